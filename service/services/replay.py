"""Replaying logs against wallets, all the time: a round goes over all wallets, slice by slice.

A slice reads everything of one moment, so that running traffic looks like no break; it is bounded in wallets and in
entries. Of a wallet that was found good before only what has come since is read, and now and then all of it.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.crash_points import CrashPoint, reach
from service.database import Client, read_in_snapshot
from service.domain.breaks import BOOK_KINDS, Break, BreakKind, Finding
from service.domain.clock import utc_now
from service.domain.history import BEFORE_THE_FIRST, BalancePoint
from service.domain.replay import (
    Replayed,
    WalletCheck,
    WalletHead,
    Window,
    check_head,
    check_statuses,
    ended_only,
    replay,
    start_of,
)
from service.ledger.committer import Ledger
from service.repositories import breaks as break_repository
from service.repositories import duties as duty_repository
from service.repositories import replay as replay_repository
from service.repositories import wallet_checks as check_repository
from service.repositories import wallets as wallet_repository
from service.services import leases
from service.services.breaks import report, resolve_by_itself
from service.settings import Settings

log = structlog.get_logger()

DUTY = "replay"
# A tenth of a second of work and 5 MB for entries, a few milliseconds for wallets that did not move.
_SLICE_WALLETS = 500
_SLICE_ENTRIES = 4_000
# After a slice as long again for everybody else, however far behind the schedule it is.
_SHORTEST_PAUSE_S = 0.01
# Between two looks of a worker: who finds nothing due does nothing but read one document.
LOOK_S = 1.0
_BEFORE_ALL = ""


class Round(NamedTuple):
    """One pass over all wallets. `position` is the last wallet that is done with; `breaks` are those it has seen."""

    number: int
    started_at: datetime
    position: str = _BEFORE_ALL
    wallets: int = 0
    entries: int = 0
    slices: int = 0
    breaks: int = 0
    busy_ms: int = 0
    finished_at: datetime | None = None


class Slice(NamedTuple):
    """What one read has come to. `position` is None where there is no wallet behind it."""

    position: str | None
    wallets: int
    entries: int
    findings: list[Finding]
    checks: list[WalletCheck]
    gone: list[Break]


class _Part(NamedTuple):
    """One wallet's share of a slice: where it starts, and what is read of it."""

    wallet: WalletHead
    check: WalletCheck | None
    last: BalancePoint
    window: Window
    # From the first entry on, be it in several steps.
    is_full: bool

    @property
    def reaches_head(self) -> bool:
        return self.window.end >= self.last.seq

    @property
    def goes_on(self) -> bool:
        """A replay from the first entry on, with more of it behind this step."""
        return self.is_full and not self.reaches_head


async def work_on_round(client: Client, ledger: Ledger, settings: Settings) -> float | None:
    """For a worker to call often: does the slice that is due, if one is and nobody else is at it.

    In how many seconds the next one is due; None where there was nothing to do. Safe at any point: a slice that is
    done twice comes to the same.
    """
    now = utc_now()
    duty = await duty_repository.claim(DUTY, now=now, lease_s=leases.REPLAY_S)
    if duty is None:
        return None
    last = round_in(duty.progress.get("last"))
    current = round_in(duty.progress.get("current")) or Round(1 if last is None else last.number + 1, now)
    if current.started_at > now:
        # By a server's clock that was ahead: the schedule begins anew, or it would stand still until then.
        current = current._replace(started_at=now)
    started_s = monotonic()
    try:
        done = await replay_slice(client, ledger, settings, current.position)
    except asyncio.CancelledError:
        # A worker that is shut down lets nobody wait for its lease.
        await duty_repository.hand_back(duty, utc_now(), duty.progress)
        raise
    reach(CrashPoint.REPLAY_CHECKED)
    took_s = monotonic() - started_s
    current = current._replace(
        position=current.position if done.position is None else done.position,
        wallets=current.wallets + done.wallets,
        entries=current.entries + done.entries,
        slices=current.slices + 1,
        breaks=current.breaks + len(done.findings),
        busy_ms=current.busy_ms + round(took_s * 1000),
    )
    is_over = done.position is None
    now = utc_now()
    if is_over:
        last = current._replace(finished_at=now)
        log.info("replay.round_finished", number=last.number, wallets=last.wallets, entries=last.entries)
    share = 1.0 if is_over else min(1.0, current.wallets / max(1, await wallet_repository.estimate_count()))
    on_schedule = current.started_at + timedelta(seconds=settings.integrity_round_s * share)
    due_at = max(on_schedule, now + timedelta(seconds=max(_SHORTEST_PAUSE_S, took_s)))
    progress = {
        "current": None if is_over else current._asdict(),
        "last": None if last is None else last._asdict(),
    }
    if not await duty_repository.hand_back(duty, due_at, progress):
        log.warning("replay.another_went_on", number=current.number)
    return (due_at - now).total_seconds()


def round_in(progress: Mapping[str, Any] | None) -> Round | None:
    return None if progress is None else Round(**progress)


async def replay_slice(
    client: Client, ledger: Ledger, settings: Settings, position: str, *, is_whole: bool = False
) -> Slice:
    """The wallets behind that one, as far as a slice goes: reads, keeps what was found good, reports what was not.

    `is_whole`: from each wallet's first entry on, whatever was found good before.
    """
    done = await read_in_snapshot(client, partial(_look, settings, position, is_whole))
    now = utc_now()
    reach(CrashPoint.REPLAY_READ)
    for finding in done.findings:
        await report(finding, ledger, now)
    await resolve_by_itself(client, done.gone)
    await check_repository.save_many(done.checks)
    return done


async def _look(settings: Settings, position: str, is_whole: bool, session: AsyncClientSession) -> Slice:
    now = utc_now()
    wallets = await replay_repository.find_heads(position, _SLICE_WALLETS, session=session)
    is_last = len(wallets) < _SLICE_WALLETS
    lasts = await replay_repository.find_last_points(position, None if is_last else wallets[-1].id, session=session)
    ids = [wallet.id for wallet in wallets]
    checks = await check_repository.find_named(ids, session=session)
    broken = await break_repository.find_unresolved_of_wallets(BOOK_KINDS, [*ids, *lasts], session=session)
    is_broken = {one.wallet_id for one in broken}
    parts = _share_out(wallets, checks, lasts, lambda wallet: is_whole or wallet.id in is_broken, now)
    findings, replays = await _replay_parts(parts, {(one.kind, one.subject) for one in broken}, session)
    # What shows in a step that began in the middle is looked at whole by the next round.
    done = [part for part in parts if part.reaches_head or (findings[part.wallet.id] and not part.goes_on)]
    if done:
        position = done[-1].wallet.id
    reached = None if is_last and len(done) == len(wallets) else position
    known = set(ids)
    for wallet_id, last in lasts.items():
        if wallet_id not in known and (reached is None or wallet_id <= reached):
            of_none = Finding(BreakKind.WALLET_UNKNOWN, wallet_id, {"entries": 0}, {"entries": last.seq}, wallet_id)
            findings[wallet_id] = [of_none]
    kept = [_checked(part, replays[part.wallet.id], bool(findings[part.wallet.id]), settings, now) for part in parts]
    return Slice(
        reached,
        len(done),
        sum(max(0, replays[part.wallet.id].end.seq - part.window.start.seq) for part in parts),
        [finding for of_one in findings.values() for finding in of_one],
        [check for check in kept if check is not None],
        _gone(broken, findings, parts),
    )


def _share_out(
    wallets: Sequence[WalletHead],
    checks: Mapping[str, WalletCheck],
    lasts: Mapping[str, BalancePoint],
    is_whole: Callable[[WalletHead], bool],
    now: datetime,
) -> list[_Part]:
    """As many of the wallets as there may be entries for. One that has more of them by itself gets a piece of it."""
    parts: list[_Part] = []
    left = _SLICE_ENTRIES
    for wallet in wallets:
        check, last = checks.get(wallet.id), lasts.get(wallet.id, BEFORE_THE_FIRST)
        start = start_of(check, now, is_whole=is_whole(wallet))
        end = last.seq
        if end - start.seq > left:
            if left < _SLICE_ENTRIES:
                break
            end = start.seq + left
        is_full = check is None or check.walked is not None or start == BEFORE_THE_FIRST
        parts.append(_Part(wallet, check, last, Window(wallet.id, start, end), is_full))
        left -= max(0, end - start.seq)
        if end < last.seq:
            break
    return parts


async def _replay_parts(
    parts: Sequence[_Part], known: set[tuple[BreakKind, str]], session: AsyncClientSession
) -> tuple[dict[str, list[Finding]], dict[str, Replayed]]:
    """Returns what is to be told of each wallet, and what its entries have come to.

    Faults of entries are told at the end of the chain, those of all steps as one: each step's by itself would be other
    damage than what was explained. Only what no break is `known` of is told at once, to shut the wallet.
    """
    moved = [part.window for part in parts if part.window.end > part.window.start.seq]
    entries = await replay_repository.find_entries(moved, session=session)
    findings: dict[str, list[Finding]] = defaultdict(list)
    replays: dict[str, Replayed] = {}
    due: dict[str, Mapping[str, frozenset[str]]] = {}
    for part in parts:
        wallet_id = part.wallet.id
        of_one = entries.pop(wallet_id, [])
        check = part.check
        replayed = replay(part.window, of_one, check and check.verified, check.faults if check else ())
        found = [one for one in replayed.faults if not part.goes_on or (one.kind, one.subject) not in known]
        if part.reaches_head:
            told = {finding.kind for finding in found}
            found += [one for one in check_head(part.wallet, replayed.end, part.last) if one.kind not in told]
            due[wallet_id] = replayed.statuses
        else:
            due[wallet_id] = ended_only(replayed.statuses)
        findings[wallet_id], replays[wallet_id] = found, replayed
        if of_one:
            # Others in this process have something to do as well.
            await asyncio.sleep(0)
    references = [reference for statuses in due.values() for reference in statuses]
    actual = await replay_repository.find_statuses(references, session=session)
    for wallet_id, statuses in due.items():
        findings[wallet_id] += check_statuses(wallet_id, statuses, actual)
    return findings, replays


def _checked(
    part: _Part, replayed: Replayed, has_findings: bool, settings: Settings, now: datetime
) -> WalletCheck | None:
    """Returns what is known of the wallet from here on; None where that is no news."""
    before, end = part.check, replayed.end
    verified = BEFORE_THE_FIRST if before is None else before.verified
    # Behind damage nothing more is taken for good.
    if end.seq > verified.seq and not (has_findings or replayed.faults):
        verified = end
    if part.goes_on:
        due_at = now if before is None else before.full_due_at
        return WalletCheck(part.wallet.id, verified, end, due_at, replayed.faults)
    if has_findings:
        # The next look begins with the first entry.
        return None if before is None or before.walked is None else before._replace(walked=None, faults=())
    is_news = before is None or before.walked is not None or now >= before.full_due_at
    if before is None or (part.is_full and is_news):
        # Apart from each other, though all began on one day.
        due_at = now + timedelta(seconds=settings.integrity_full_s * random.uniform(0.5, 1))  # noqa: S311 no secret
        return WalletCheck(part.wallet.id, verified, None, due_at)
    after = before._replace(verified=verified)
    return None if after == before else after


def _gone(broken: Sequence[Break], findings: Mapping[str, list[Finding]], parts: Sequence[_Part]) -> list[Break]:
    """Breaks of wallets that were read from the first entry to the last one, and do not show any more."""
    shown = {(finding.kind, finding.subject) for of_one in findings.values() for finding in of_one}
    whole = {part.wallet.id: part for part in parts if part.is_full and part.reaches_head}
    return [
        one
        for one in broken
        if (one.kind, one.subject) not in shown
        and one.wallet_id in whole
        # In several steps, what an earlier one set aside is not known any more.
        and (one.kind is not BreakKind.OPERATION_STATE or whole[one.wallet_id].window.start == BEFORE_THE_FIRST)
    ]
