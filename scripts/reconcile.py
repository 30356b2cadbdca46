"""Compares days with the bank's statements, and replays logs against wallets: `python -m scripts.reconcile`.

What it finds becomes a break, as when a worker finds it. Runs beside the service. Ends with 0 where no break is open,
1 where one is, 2 where it could not look.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple

import structlog
import typer
from pydantic import ValidationError
from pymongo.errors import PyMongoError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.domain.breaks import Break, BreakState, break_view
from service.domain.clock import to_rfc3339, utc_now
from service.domain.money import EXPONENTS, format_minor
from service.domain.reconciliation import Reconciliation
from service.errors import WalletServiceError
from service.gateways.bank import BankOutcomeUnknown, BankUnavailable
from service.repositories import wallets as wallet_repository
from service.services.breaks import BreakFilter, list_breaks
from service.services.reconciliation import Clerk, DaysFailed, compare_days, find_days_due
from service.services.replay import replay_slice
from service.settings import Settings, get_settings
from service.startup import Resources, open_resources

_BROKEN: Final = 1
_COULD_NOT_LOOK: Final = 2
_PAGE: Final = 100
# A year and a day: further back it is a matter for more than one run.
_MOST_DAYS: Final = 367

console = Console()
# Where a report is read by a program, nothing else stands in it; and nobody reads a bar in a log.
progress_console = Console(stderr=True)


class Replayed(NamedTuple):
    wallets: int
    entries: int
    slices: int
    breaks: int


class Report(NamedTuple):
    """What was looked at. `breaks` are all that are not resolved, the latest first."""

    days: list[Reconciliation]
    replayed: Replayed | None
    breaks: list[Break]

    @property
    def has_open_breaks(self) -> bool:
        return any(one.state is BreakState.OPEN for one in self.breaks)


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no day like 2026-11-20") from error


def main(
    day: Annotated[date | None, typer.Option(parser=_day, metavar="YYYY-MM-DD", help="This day (UTC).")] = None,
    first: Annotated[
        date | None, typer.Option("--from", parser=_day, metavar="YYYY-MM-DD", help="This day and those after it.")
    ] = None,
    last: Annotated[
        date | None,
        typer.Option("--to", parser=_day, metavar="YYYY-MM-DD", help="Up to this day; without it, yesterday."),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Replay every wallet from its first entry on, besides days or alone.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Without a day: those that are due. A day that is not over yet is compared as far as it goes."""
    days = _days_asked_for(day, first, last)
    try:
        report = asyncio.run(_reconcile(get_settings(), days, replay))
    except (
        PyMongoError,
        ValidationError,
        WalletServiceError,
        BankOutcomeUnknown,
        BankUnavailable,
        DaysFailed,
    ) as error:
        print(f"reconcile could not look: {error}", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    if as_json:
        print(json.dumps(_report_view(report), indent=2))
    else:
        _show(report)
    if report.has_open_breaks:
        raise typer.Exit(_BROKEN)


def _days_asked_for(day: date | None, first: date | None, last: date | None) -> list[date] | None:
    """None where no day was named."""
    today = utc_now().date()
    if day is not None:
        if first is not None or last is not None:
            raise typer.BadParameter("--day goes without --from and --to")
        first = last = day
    if first is None:
        if last is not None:
            raise typer.BadParameter("--to needs --from")
        return None
    last = last or today - timedelta(days=1)
    if last > today:
        raise typer.BadParameter(f"{last} has not begun yet")
    if first > last or (last - first).days >= _MOST_DAYS:
        raise typer.BadParameter(f"from {first} to {last} are no 1 to {_MOST_DAYS} days")
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


async def _reconcile(settings: Settings, days: list[date] | None, replay: bool) -> Report:
    # The report tells it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_console, transient=True, disable=not sys.stderr.isatty()) as progress:
        async with open_resources(settings, applies_floors=False) as resources:
            if days is None:
                days = [] if replay else await find_days_due(settings, utc_now())
            compared = await _compare_shown(resources, days, progress)
            replayed = await _replay_shown(resources, progress) if replay else None
            return Report(compared, replayed, await _unresolved())


async def _compare_shown(resources: Resources, days: Sequence[date], progress: Progress) -> list[Reconciliation]:
    task = progress.add_task("Comparing with the bank", total=None)

    async def advance(rows: int) -> None:
        progress.advance(task, rows)

    clerk = Clerk(resources.databases.client, resources.ledger, resources.bank, resources.settings, advance)
    compared = await compare_days(clerk, days)
    progress.remove_task(task)
    return compared


async def _replay_shown(resources: Resources, progress: Progress) -> Replayed:
    task: TaskID = progress.add_task("Replaying wallets", total=await wallet_repository.estimate_count())
    done = Replayed(0, 0, 0, 0)
    position: str | None = ""
    while position is not None:
        one = await replay_slice(
            resources.databases.client, resources.ledger, resources.settings, position, is_whole=True
        )
        found = len(one.findings)
        done = Replayed(done.wallets + one.wallets, done.entries + one.entries, done.slices + 1, done.breaks + found)
        progress.advance(task, one.wallets)
        position = one.position
    return done


async def _unresolved() -> list[Break]:
    found: list[Break] = []
    for state in (BreakState.OPEN, BreakState.EXPLAINED):
        before_id: str | None = None
        while page := await list_breaks(BreakFilter(state=state), before_id=before_id, limit=_PAGE):
            found += page
            before_id = page[-1].id
    return found


def _report_view(report: Report) -> dict[str, Any]:
    return {
        "days": [
            day._asdict()
            | {
                "first_compared_at": to_rfc3339(day.first_compared_at),
                "compared_at": to_rfc3339(day.compared_at),
                "totals": [total._asdict() for total in day.totals],
            }
            for day in report.days
        ],
        "replay": None if report.replayed is None else report.replayed._asdict(),
        "breaks": [break_view(one) for one in report.breaks],
    }


def _show(report: Report) -> None:
    for day in report.days:
        _show_day(day)
    if not report.days and report.replayed is None:
        console.print("No day is due: all are compared, or none is over.")
    if report.replayed is not None:
        done = report.replayed
        console.print(f"Replayed {done.wallets:,} wallets: {done.entries:,} entries in {done.slices:,} slices.")
    if report.breaks:
        console.print(_breaks_table(report.breaks))
    count = sum(one.state is BreakState.OPEN for one in report.breaks)
    if count:
        console.print(f"[red]{count} open breaks[/red]")
    else:
        console.print("[green]No break is open.[/green]")


def _show_day(day: Reconciliation) -> None:
    console.print(f"[bold]{day.day}[/bold]: {day.lines:,} lines of the bank, {day.ours:,} entries of ours")
    if day.totals:
        table = Table("", box=SIMPLE_HEAD)
        for heading in ("bank", "ours", "difference"):
            table.add_column(heading, justify="right")
        for total in day.totals:
            amounts = (total.bank, total.ours, total.bank - total.ours)
            table.add_row(total.flow.replace("_", " "), *(_money(amount, total.currency) for amount in amounts))
        console.print(table)
    if day.set_aside:
        console.print(f"  [red]{day.set_aside:,} lines cannot be read and were set aside[/red]")
    for note, count in day.notes.items():
        console.print(f"  noted: {note}: {count:,}")
    for kind, count in day.breaks.items():
        console.print(f"  {kind}: {count:,}")


def _breaks_table(breaks: Sequence[Break]) -> Table:
    table = Table("break", "kind", "subject", "day", "state", "expected", "found", "last seen", box=SIMPLE_HEAD)
    for one in breaks:
        table.add_row(
            one.id,
            one.kind,
            escape(one.subject),
            one.day or "",
            one.state,
            _facts(one.expected),
            _facts(one.found),
            f"{one.last_seen:%Y-%m-%d %H:%M}",
        )
    return table


def _facts(facts: Any) -> str:  # noqa: ANN401 what a break has found may be anything
    return escape(", ".join(f"{name} {value}" for name, value in facts.items()))


def _money(amount: int, currency: str) -> str:
    # A corrupt line may have anything.
    return format_minor(amount, currency) if currency in EXPONENTS else f"{amount} {currency}"


if __name__ == "__main__":
    typer.run(main)
