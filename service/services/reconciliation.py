"""Reconciliation: each day of ours against the bank's statement, when the day is over and for some days after.

Statements are kept line by line and compared by reference in portions, so that a day of a million lines needs no more
memory than one of a thousand, besides what the bank's own answer takes.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import structlog

from service.database import Client
from service.domain.bank_lines import Flow, LineNote, told_as_batches
from service.domain.breaks import BANK_KINDS, BreakKind, Finding
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, made_at, new_id
from service.domain.operations import Operation
from service.domain.reconciliation import (
    Judged,
    OurLine,
    Reconciliation,
    WatchedDay,
    day_bounds,
    fee_finding,
    is_over,
    judge_lines,
    judge_ours,
    totals_of,
    watched_days,
)
from service.domain.statement_lines import SetAsideLine, read_line, set_aside_finding
from service.gateways.bank import Bank, BankOutcomeUnknown, BankUnavailable
from service.ledger.committer import Ledger
from service.repositories import breaks as break_repository
from service.repositories import duties as duty_repository
from service.repositories import reconciliations as reconciliation_repository
from service.repositories import records as record_repository
from service.repositories import statement_lines as line_repository
from service.repositories.statement_lines import KeptAside, KeptLine
from service.services import leases
from service.services.breaks import report, resolve_by_itself
from service.services.dead_letters import is_outage
from service.settings import Settings

log = structlog.get_logger()

_Item = TypeVar("_Item")

DUTY = "reconciliation"
_PORTION = 1_000
# Findings that are held back of each kind: bounds the memory for a day whose statement is empty.
_HELD_BACK = 5_000
# Between two looks whether a day is due.
LOOK_S = 60.0
_DAY = timedelta(days=1)
# A day whose comparison raised is tried again after a minute, then two, four … up to the usual interval.
_FIRST_RETRY_S = 60.0
_RETRIES_DOUBLED = 10

OnProgress = Callable[[int], Awaitable[None]]


async def _tell_nobody(_rows: int) -> None:
    """For whoever does not want to hear how far it is."""


class Clerk(NamedTuple):
    """Who takes part in a comparison. `on_progress` hears how many more rows were compared."""

    client: Client
    ledger: Ledger
    bank: Bank
    settings: Settings
    on_progress: OnProgress = _tell_nobody

    @property
    def grace(self) -> timedelta:
        return timedelta(seconds=self.settings.reconciliation_grace_s)


class LeaseLost(Exception):
    """Another worker has taken over, since this one was away for too long."""


class Comparisons(NamedTuple):
    """What has become of days so far; filled while they are compared, so that it is known however that ends.

    `failed` are days whose comparison raised, `silent` those whose statement did not come.
    """

    compared: list[Reconciliation]
    failed: dict[date, Exception]
    silent: dict[date, BankOutcomeUnknown | BankUnavailable]


class DaysFailed(Exception):
    """The comparison of these days raised, and perhaps some statements did not come; the other days were compared."""

    def __init__(self, done: Comparisons) -> None:
        self.failed = dict(done.failed)
        super().__init__(", ".join(f"{day}: {error!r}" for day, error in sorted((done.silent | done.failed).items())))


async def reconcile_what_is_due(clerk: Clerk) -> list[Reconciliation]:
    """For a worker to call often: compares the days that are due, if any is and nobody else is at it.

    Safe at any point: a day that is compared twice comes to the same. Raises BankOutcomeUnknown, BankUnavailable and
    LeaseLost; what was compared by then stays.
    """
    duty = await duty_repository.claim(DUTY, now=utc_now(), lease_s=leases.RECONCILIATION_S)
    if duty is None:
        return []

    async def renew(rows: int) -> None:
        await clerk.on_progress(rows)
        if not await duty_repository.renew(duty, now=utc_now(), lease_s=leases.RECONCILIATION_S):
            raise LeaseLost

    failures, done = duty.progress.get("failures", {}), Comparisons([], {}, {})
    try:
        now = utc_now()
        due = [day for day in await find_days_due(clerk.settings, now) if _may_be_tried(failures.get(str(day)), now)]
        await _compare_each(clerk._replace(on_progress=renew), due, done)
    finally:
        failures = {**failures, **_count_failures(failures, done.failed, clerk.settings)}
        left = {day: known for day, known in failures.items() if day not in {one.day for one in done.compared}}
        await duty_repository.hand_back(duty, utc_now() + timedelta(seconds=LOOK_S), {"failures": left})
    for silence in done.silent.values():
        raise silence
    return done.compared


def _may_be_tried(failed: Mapping[str, Any] | None, now: datetime) -> bool:
    return failed is None or bool(failed["again_at"] <= now)


def _count_failures(
    failures: Mapping[str, Mapping[str, Any]], failed: Mapping[date, Exception], settings: Settings
) -> dict[str, dict[str, Any]]:
    """By day: how often its comparison has raised, and when it is tried again. Logs it, at first with a traceback."""
    noted = {}
    for day, error in failed.items():
        count = failures.get(str(day), {}).get("count", 0) + 1
        pause_s = min(settings.reconciliation_interval_s, _FIRST_RETRY_S * 2 ** min(count - 1, _RETRIES_DOUBLED))
        noted[str(day)] = {"count": count, "again_at": utc_now() + timedelta(seconds=pause_s)}
        log.error(
            "reconciliation.day_failed",
            day=str(day),
            failures=count,
            again_in_s=round(pause_s),
            error=repr(error),
            exc_info=error if count == 1 else None,
        )
    return noted


async def find_days_due(settings: Settings, now: datetime) -> list[date]:
    """From the first day that has an entry on; none where there is none."""
    return [day.day for day in await find_watched_days(settings, now) if day.due_at <= now]


async def find_watched_days(settings: Settings, now: datetime) -> list[WatchedDay]:
    """Days that are to be compared, now or once more later, the oldest first. For metrics too: three small reads."""
    first_id = await reconciliation_repository.find_first_entry_id()
    began_at = None if first_id is None else made_at(first_id)
    if began_at is None:
        return []
    compared = await reconciliation_repository.find_compared_since(began_at.date().isoformat())
    broken = await break_repository.find_days_with_open()
    return watched_days(
        began_at.date(),
        {date.fromisoformat(day): at for day, at in compared.items()},
        [date.fromisoformat(day) for day in broken],
        now,
        grace=timedelta(seconds=settings.reconciliation_grace_s),
        interval=timedelta(seconds=settings.reconciliation_interval_s),
        days_back=settings.reconciliation_days_back,
    )


async def compare_days(clerk: Clerk, days: Sequence[date]) -> list[Reconciliation]:
    """Each day by the statements of itself and its neighbours: what we booked at 23:59:59 the bank may have the next
    day, and the other way. A statement that does not come, or a day whose comparison raises, holds up only those days.

    Raises BankOutcomeUnknown, BankUnavailable or DaysFailed, when all that could be compared are. What stops all of
    them, as MongoDB that is away does, is raised at once.
    """
    done = Comparisons([], {}, {})
    await _compare_each(clerk, days, done)
    if done.failed:
        raise DaysFailed(done)
    for silence in done.silent.values():
        raise silence
    return done.compared


async def _compare_each(clerk: Clerk, days: Sequence[date], done: Comparisons) -> None:
    imported: set[date] = set()
    for day in days:
        nearby = [near for near in (day - _DAY, day, day + _DAY) if near <= utc_now().date()]
        try:
            await _import_statements(clerk, nearby, imported, done.silent)
            if imported.issuperset(nearby):
                done.compared.append(await _compare_day(clerk, day))
        except LeaseLost:
            raise
        except Exception as error:
            if is_outage(error):
                raise
            done.failed[day] = error


async def _import_statements(
    clerk: Clerk, days: Sequence[date], imported: set[date], silent: dict[date, BankOutcomeUnknown | BankUnavailable]
) -> None:
    """Those that were not asked for yet; into `imported` or `silent` goes what came of each."""
    for day in days:
        if day in imported or day in silent:
            continue
        try:
            await _import_statement(clerk, day)
        except (BankOutcomeUnknown, BankUnavailable) as silence:
            silent[day] = silence
            log.warning("reconciliation.no_statement", day=day.isoformat(), reason=str(silence))
        else:
            imported.add(day)


async def _import_statement(clerk: Clerk, day: date) -> None:
    """Keeps every line of the day's statement: to be compared, or set aside with the reason why it cannot be."""
    name, now = day.isoformat(), utc_now()
    import_id = f"{now:%Y%m%d%H%M%S%f}-{new_id(Prefix.TRANSACTION)}"
    await clerk.on_progress(0)
    async for portion in _portions(_named(await _ask_for_statement(clerk, day))):
        await line_repository.save_many(name, [one for one in portion if isinstance(one, KeptLine)], import_id)
        aside = [one for one in portion if isinstance(one, KeptAside)]
        await line_repository.save_set_aside(name, aside, import_id, now)
        await clerk.on_progress(len(portion))
    withdrawn = await line_repository.withdraw_older(name, import_id)
    if withdrawn:
        log.warning("reconciliation.lines_withdrawn", day=name, lines=withdrawn)


async def _ask_for_statement(clerk: Clerk, day: date) -> Sequence[object]:
    """An error that is not one of the gateway's own is a defect, and fails the days that need this statement."""
    try:
        async with asyncio.timeout(leases.STATEMENT_LIMIT_S):
            return list(await clerk.bank.statement(day))
    except TimeoutError as silence:
        raise BankOutcomeUnknown(f"no statement of {day} in time") from silence


async def _named(given: Iterable[object]) -> AsyncIterator[KeptLine | KeptAside]:
    """Each under a name that it has in every import. Lines that are alike in all they say, as when the bank pays twice
    in one millisecond, are counted; since they are booked at one time, they are near each other.
    """
    alike: Counter[str] = Counter()
    aside: Counter[str] = Counter()
    booked_at: datetime | None = None
    for one in given:
        read = read_line(one)
        if isinstance(read, SetAsideLine):
            aside[read.digest] += 1
            yield KeptAside(f"{read.digest}/{aside[read.digest]}", read)
            continue
        line = read.line
        if line.booked_at != booked_at:
            booked_at = line.booked_at
            alike.clear()
        moved = f"{read.bank_reference}/{line.amount}{line.currency}"
        name = f"{line.reference}/{line.flow}/{line.booked_at.isoformat()}/{moved}"
        alike[name] += 1
        yield KeptLine(f"{name}/{alike[name]}", read.bank_reference, line)


class _Comparison:
    """Counts and reports one day's findings. Lines without an order and orders without a line are held back to the end,
    `_HELD_BACK` of each at most: together they may be a batch booking.
    """

    def __init__(self, clerk: Clerk, day: date) -> None:
        self.clerk, self.day, self.name = clerk, day, day.isoformat()
        self.now = utc_now()
        self.counts: Counter[BreakKind] = Counter()
        self.notes: Counter[LineNote] = Counter()
        self._held: dict[BreakKind, list[Finding]] = {BreakKind.MISSING_HERE: [], BreakKind.MISSING_THERE: []}

    async def report(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            held = self._held.get(finding.kind)
            if held is not None and len(held) < _HELD_BACK:
                held.append(finding)
            else:
                await self._report(finding)

    async def report_held(self) -> None:
        strangers, missing = self._held.values()
        is_whole = max(len(strangers), len(missing)) < _HELD_BACK
        for finding in told_as_batches(strangers, missing) if is_whole else [*strangers, *missing]:
            await self._report(finding)

    async def _report(self, finding: Finding) -> None:
        await report(finding, self.clerk.ledger, self.now)
        self.counts[finding.kind] += 1


async def _compare_day(clerk: Clerk, day: date) -> Reconciliation:
    comparison = _Comparison(clerk, day)
    now, name = comparison.now, comparison.name
    async for references in _portions(line_repository.stream_references(name)):
        for judged in await _judge_references(references, name, now - clerk.grace):
            await comparison.report(judged.findings)
            comparison.notes.update(judged.notes)
        await clerk.on_progress(len(references))
    set_aside = 0
    async for aside in _portions(line_repository.stream_set_aside(name)):
        set_aside += len(aside)
        await comparison.report(set_aside_finding(kept.name, kept.line, name) for kept in aside)
        await clerk.on_progress(len(aside))
    ours = 0
    sums: dict[tuple[Flow, str], int] = defaultdict(int)
    async for portion in _portions(reconciliation_repository.stream_ours(*day_bounds(day))):
        ours += len(portion)
        for one in portion:
            sums[one.flow, one.currency] += one.amount
        if is_over(day, now, clerk.grace):
            await comparison.report(await _judge_ours(portion, name))
        await clerk.on_progress(len(portion))
    lines, bank_sums = await line_repository.sum_of_day(name)
    await comparison.report(
        fee_finding(name, currency, amount) for flow, currency, amount in bank_sums if flow is Flow.FEE
    )
    await comparison.report_held()
    # What was seen a moment ago was seen at `now`.
    gone = await break_repository.find_unresolved_of_day(BANK_KINDS, name, seen_before=now)
    await resolve_by_itself(clerk.client, gone)
    totals = totals_of(bank_sums, [(flow, currency, amount) for (flow, currency), amount in sums.items()])
    breaks = {kind.value: count for kind, count in sorted(comparison.counts.items())}
    notes = {note.value: count for note, count in sorted(comparison.notes.items())}
    await reconciliation_repository.save(
        Reconciliation(name, now, now, 1, lines, ours, totals, breaks, set_aside, notes)
    )
    saved = await reconciliation_repository.find(name)
    assert saved is not None, "nobody may delete one"  # noqa: S101 by role
    figures = {"lines": lines, "ours": ours, "set_aside": set_aside, "breaks": comparison.counts.total()}
    log.info("reconciliation.day_compared", day=name, **figures)
    return saved


async def _judge_references(references: Sequence[str], day: str, booked_before: datetime) -> list[Judged]:
    lines = await line_repository.find_of(references)
    # One that has no prefix of ours belongs to no operation.
    operations = {
        operation.id: operation
        for prefix in (Prefix.DEPOSIT, Prefix.WITHDRAWAL)
        for operation in await record_repository.find_many(
            [reference for reference in references if reference.startswith(f"{prefix}_")], Operation
        )
    }
    returns = await reconciliation_repository.find_returns(list(operations))
    return [
        judge_lines(
            reference,
            lines.get(reference, []),
            operations.get(reference),
            [returns[reference]] if reference in returns else [],
            day=day,
            booked_before=booked_before,
        )
        for reference in references
    ]


async def _judge_ours(ours: Sequence[OurLine], day: str) -> list[Finding]:
    lines = await line_repository.find_of([one.reference for one in ours])
    return [finding for one in ours for finding in judge_ours(one, lines.get(one.reference, []), day)]


async def _portions(items: AsyncIterator[_Item]) -> AsyncIterator[list[_Item]]:
    portion: list[_Item] = []
    async for item in items:
        portion.append(item)
        if len(portion) == _PORTION:
            yield portion
            portion = []
    if portion:
        yield portion
