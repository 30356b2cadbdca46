"""Proves the ledger from its own documents: `python -m scripts.check_ledger`.

Reads everything as of one moment and changes nothing, so it may run beside the service. Ends with 0 where every rule
holds, 1 where one is broken (each breach is named), 2 where it could not look.
"""

import asyncio
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError
from pymongo.errors import PyMongoError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scripts.ledger_inspection import COUNTED, Inspection, count_rows, inspect
from scripts.ledger_rules import Breach, Rule
from scripts.place_inspection import inspect_with_copy
from scripts.place_rules import PlaceRule
from service.database import Databases, connect
from service.domain.clock import to_rfc3339
from service.domain.money import EXPONENTS, format_minor
from service.settings import Settings, get_settings
from service.startup import policy_of

__all__ = ["Breach", "check_ledger"]

_BROKEN: Final = 1
_COULD_NOT_LOOK: Final = 2
# Snapshots of this age are gone: the server was not told to keep them for longer.
_SNAPSHOT_TOO_OLD: Final = 239
# Back-off ends at 10 min, so within an hour there were several tries.
_GRACE_S: Final = 3600.0

console = Console()


async def check_ledger(
    databases: Databases, *, grace: timedelta | None = None, checkpoint_key: Ed25519PublicKey | None = None
) -> list[Breach]:
    """Lists every rule that does not hold; empty for a sound ledger. Raises PyMongoError where it could not look.

    Without `grace`, unlike at the command line, nothing that waits is late: neither what the bank paid nor what it
    said. Without `checkpoint_key`, the signatures of checkpoints are not looked at.
    """
    return (await inspect(databases, grace=grace, checkpoint_key=checkpoint_key)).breaches


def main(
    grace: Annotated[
        float,
        typer.Option(
            help="Seconds after which it is a breach that what the bank paid is still open here, or that what it "
            "said still waits; 0 is at once.",
            min=0,
        ),
    ] = _GRACE_S,
) -> None:
    """Check every wallet, entry, operation, the bank's journal and callbacks, and checkpoints against each other."""
    try:
        inspection = asyncio.run(_inspect_shown(get_settings(), timedelta(seconds=grace)))
    except (PyMongoError, OSError, ValidationError) as error:
        print(f"check-ledger could not look: {error}", file=sys.stderr)
        if getattr(error, "code", None) == _SNAPSHOT_TOO_OLD:
            print("Let mongod keep its past for longer: minSnapshotHistoryWindowInSeconds.", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    _show(inspection)
    if inspection.breaches:
        raise typer.Exit(_BROKEN)


async def _inspect_shown(settings: Settings, grace: timedelta) -> Inspection:
    # One user has to read both databases: the moment of a snapshot is one client's.
    if settings.bank_mongo_url is not None and settings.audit_mongo_url is None:
        print("check-ledger needs WALLET_AUDIT_MONGO_URL, since the bank has a user of its own.", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK)
    url = settings.audit_mongo_url or settings.mongo_url
    databases = connect(url.get_secret_value(), settings, silence_s=None)
    key = settings.checkpoint_verifier
    columns = (TextColumn("Checking the ledger"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=await count_rows(databases))
            inspecting = partial(
                inspect,
                databases,
                grace=grace,
                checkpoint_interval=timedelta(seconds=settings.checkpoint_interval_s),
                answers_kept=timedelta(seconds=settings.idempotency_retention_s),
                floors=policy_of(settings).house_floors,
                events_kept=timedelta(seconds=settings.event_retention_s),
                checkpoint_key=key,
                on_progress=lambda rows: progress.advance(task, rows),
            )
            return await inspect_with_copy(Path(settings.checkpoint_path), key, inspecting)
    finally:
        await databases.close()


def _show(inspection: Inspection) -> None:
    counts = Table("looked at", box=SIMPLE_HEAD)
    counts.add_column("count", justify="right")
    for name in COUNTED:
        counts.add_row(name, f"{inspection.counts[name]:,}")
    console.print(counts)
    console.print(_accounts_table(inspection))
    console.print(_bank_table(inspection))
    console.print(_last_checkpoint(inspection))
    for waiting in inspection.waiting:
        age_s = waiting.age.total_seconds()
        console.print(f"waiting: {waiting.operation_id} is {waiting.status}, the bank paid {age_s:.1f} s ago")
    for breach in inspection.breaches:
        # Whole, on one line, whatever the width of the terminal: somebody will search for it.
        console.print(
            f"[red]BREACH[/red] {breach.rule}: {escape(breach.subject)}: {escape(breach.detail)}", soft_wrap=True
        )
    if any(breach.rule == Rule.ACCOUNT_SUMS for breach in inspection.breaches):
        console.print(
            "The stored sums of accounts differ from the entries. Where the entries are right, make correct-sums "
            '(python -m scripts.correct_sums --reason "…" --by you) adds a correction; stored sums never change.',
            soft_wrap=True,
        )
    if any(breach.rule == Rule.HOUSE_POSITION for breach in inspection.breaches):
        console.print(
            "What accounts can still give differs from the entries. Where the entries are right, "
            'make correct-positions (python -m scripts.correct_positions --reason "…" --by you) puts it right; entries '
            "never change.",
            soft_wrap=True,
        )
    if any(breach.rule in (PlaceRule.OTHER, PlaceRule.LOST, PlaceRule.SECOND) for breach in inspection.breaches):
        console.print(
            "The copy of the checkpoints outside the database contradicts it. Keep the file as it is, and find out who "
            "changed the database, or whether it was restored from a backup (README, Proofs).",
            soft_wrap=True,
        )
    if inspection.breaches:
        console.print(f"[red]{len(inspection.breaches)} breaches[/red]")
    else:
        console.print("[green]The ledger is sound: every rule holds.[/green]")


def _last_checkpoint(inspection: Inspection) -> str:
    taken_at, looked_at = inspection.checkpointed_at, inspection.looked_at
    if taken_at is None or looked_at is None:
        return "There is no checkpoint yet: nothing seals the books."
    age_min = (looked_at - taken_at).total_seconds() / 60
    return f"The last checkpoint is of {to_rfc3339(taken_at)}, {age_min:.0f} min ago."


def _accounts_table(inspection: Inspection) -> Table:
    """Everything on either side, currency by currency; the totals are nothing in a sound ledger."""
    table = Table("account", box=SIMPLE_HEAD)
    for heading in ("debit", "credit", "balance"):
        table.add_column(heading, justify="right")
    for currency, total in sorted(inspection.totals.items()):
        for account, booked in (*sorted(total.accounts.items()), ("between wallets", total.between_wallets)):
            table.add_row(escape(account), *(_money(amount, currency) for amount in (*booked, booked.balance)))
        table.add_row("wallets, available", "", "", _money(total.available, currency))
        table.add_row("wallets, held", "", "", _money(total.held, currency))
        table.add_row("total", "", "", _money(total.total, currency), end_section=True)
    return table


def _bank_table(inspection: Inspection) -> Table:
    """The bank's account against the operations that it settled."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("deposits less returns", "- withdrawals less returns", "+ balance of bank", "= difference"):
        table.add_column(heading, justify="right")
    for currency, total in sorted(inspection.totals.items()):
        bank = total.bank_difference - total.deposited + total.withdrawn
        amounts = (total.deposited, total.withdrawn, bank, total.bank_difference)
        table.add_row(*(_money(amount, currency) for amount in amounts))
    return table


def _money(amount: int, currency: str) -> str:
    # A corrupt wallet may hold anything.
    return format_minor(amount, currency) if currency in EXPONENTS else f"{amount} {currency}"


if __name__ == "__main__":
    typer.run(main)
