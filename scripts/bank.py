"""The simulated bank's switches: take it down and up again, move its clock, see how it is: `python -m scripts.bank`."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Final

import typer

from service.database import bind_documents, connect
from service.domain.clock import to_rfc3339, utc_now
from service.gateways.bank_conditions import BankConditions
from service.repositories import bank_conditions
from service.repositories import bank_orders as journal
from service.settings import Settings, get_settings

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_STEP: Final = re.compile(r"\+?(\d{1,6})([smhd])")
# Whoever leaves it down wants it up again tomorrow at the latest.
_LONGEST_S: Final = 24 * 3600.0

app = typer.Typer(add_completion=False, help="The simulated bank: every process of the stack sees it within 0.2 s.")


@app.command()
def status() -> None:
    """How it is doing: its clock, whether it is up, and what waits in its journal."""
    _run(_show)


@app.command()
def down(
    seconds: Annotated[float, typer.Option("--for", help="Seconds from now", min=0, max=_LONGEST_S)] = 60.0,
    *,
    hang: Annotated[bool, typer.Option("--hang", help="Answer nothing at all, instead of 503 at once")] = False,
) -> None:
    """Take it down: it answers 503 or nothing, executes nothing and sends no callbacks."""
    _run(lambda settings: _go_down(seconds, settings, hangs=hang))


@app.command()
def up() -> None:
    """Bring it up again before its time."""
    _run(_come_up)


@app.command()
def clock(step: Annotated[str, typer.Argument(help="Forward by so much: +90s, +5m, +2h, +3d")]) -> None:
    """Move its clock on, so that what comes back after days does so now."""
    found = _STEP.fullmatch(step)
    if found is None:
        raise typer.BadParameter("say by how much, forward: +90s, +5m, +2h or +3d")
    by = timedelta(**{_UNITS[found[2]]: int(found[1])})
    _run(lambda settings: _move_clock(by, settings))


def _run(act: Callable[[Settings], Awaitable[None]]) -> None:
    asyncio.run(_connected(act, get_settings()))


async def _connected(act: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    try:
        await bind_documents(databases)
        await act(settings)
    finally:
        await databases.close()


async def _go_down(seconds: float, settings: Settings, *, hangs: bool) -> None:
    await bank_conditions.go_down(utc_now() + timedelta(seconds=seconds), hangs=hangs)
    await _show(settings)


async def _come_up(settings: Settings) -> None:
    await bank_conditions.come_up()
    await _show(settings)


async def _move_clock(by: timedelta, settings: Settings) -> None:
    await bank_conditions.advance_clock(by)
    await _show(settings)


async def _show(settings: Settings) -> None:
    conditions = BankConditions(settings)
    outage, now = await conditions.outage(), await conditions.now()
    print(f"clock: {to_rfc3339(now)}")
    if outage is None:
        print("bank: up")
    else:
        how = "answers nothing" if outage.hangs else "answers 503"
        print(f"bank: down until {to_rfc3339(outage.until)} (our clock), {how}")
    print(", ".join(f"{name}: {number}" for name, number in (await journal.count(now)).items()))


if __name__ == "__main__":
    app()
