"""`python -m seed`: demo users with real balances, or many users for a load test. Repeating it changes nothing."""

import logging
import sys
from typing import Annotated, Final

import structlog
import typer
import uvloop
from pydantic import ValidationError
from pymongo.errors import PyMongoError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from seed.demo_users import seed_demo_users
from seed.demo_vouchers import DEMO_VOUCHERS, ensure_vouchers
from seed.deposits import SeedFailed
from seed.load_users import load_email, seed_load_users
from service.domain.money import MAX_AMOUNT_MINOR, format_minor, is_currency
from service.errors import WalletServiceError
from service.settings import Environment, Settings, get_settings
from service.startup import open_resources

_FAILED: Final = 1
_REFUSED: Final = 2
# As many as `load-000001` has digits for.
_USERS_LIMIT: Final = 999_999


def main(
    users: Annotated[int, typer.Option(help="Make this many users for a load test instead.", min=0)] = 0,
    balance: Annotated[
        int, typer.Option(help="Their balance in minor units.", min=1, max=MAX_AMOUNT_MINOR)
    ] = 1_000_000,
    currency: Annotated[str, typer.Option(help="The currency of their wallets, ISO 4217.")] = "INR",
    yes_production: Annotated[
        bool, typer.Option("--yes-production", help="Allow it with WALLET_ENV=production.")
    ] = False,
) -> None:
    """Make the demo users of CREDENTIALS.md, or users for a load test; what is there already stays as it is."""
    if not is_currency(currency):
        raise typer.BadParameter(f"{currency} is not an ISO 4217 code", param_hint="--currency")
    if users > _USERS_LIMIT:
        raise typer.BadParameter(f"at most {_USERS_LIMIT}", param_hint="--users")
    try:
        settings = get_settings()
        if settings.env is Environment.PRODUCTION and not yes_production:
            _say("The seed's passwords are public: not with WALLET_ENV=production, unless you add --yes-production.")
            raise typer.Exit(_REFUSED)
        # A line for each of thousands of deposits helps nobody; warnings and errors still show.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        uvloop.run(_seed_load(settings, users, balance, currency) if users else _seed_demo(settings))
    except (PyMongoError, ValidationError, WalletServiceError, SeedFailed) as error:
        _say(f"The seed did not end: {error}. It can be run again and goes on where it stopped.")
        raise typer.Exit(_FAILED) from error


async def _seed_demo(settings: Settings) -> None:
    async with open_resources(settings, applies_floors=False) as resources:
        for user, is_new in await seed_demo_users(resources):
            money = ", ".join(format_minor(amount, currency) for currency, amount in user.balances.items())
            state = "created" if is_new else "is there"
            print(f"{user.registration.email:20} {state}: {', '.join(user.roles)}; started with {money}")  # noqa: T201 it is a command
        await ensure_vouchers(resources.ledger)
    print(f"Vouchers: {', '.join(f'{order.title} ({order.cost} points)' for order in DEMO_VOUCHERS)}.")  # noqa: T201 it is a command
    print("Their passwords stand in CREDENTIALS.md.")  # noqa: T201 it is a command


async def _seed_load(settings: Settings, users: int, balance: int, currency: str) -> None:
    columns = (TextColumn("Load users"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with open_resources(settings, applies_floors=False) as resources:
        with Progress(*columns) as progress:
            task = progress.add_task("", total=users)
            kept = await seed_load_users(resources, users, balance, currency, lambda done: progress.advance(task, done))
    print(f"{load_email(1)} to {load_email(users)}: {format_minor(balance, currency)} each.")  # noqa: T201 it is a command
    if kept:
        print(f"{kept} of them keep another balance, with which they were seeded before.")  # noqa: T201 it is a command


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 it is a command


if __name__ == "__main__":
    typer.run(main)
