"""Replaying a wallet's log: what its entries make of it, step by step, against what its document says.

Pure: whoever reads the rows hands them in, all of one moment.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from service.domain.breaks import BreakKind, Facts, Finding
from service.domain.entries import EFFECTS, Entry, EntryType, entry_hash
from service.domain.history import BEFORE_THE_FIRST, BalancePoint
from service.domain.holds import HoldStatus
from service.domain.identifiers import Prefix
from service.domain.operations import FINAL_STATUSES, OperationStatus

# What stands for a number where the document has none.
UNREADABLE: Final = -1


class WalletHead(NamedTuple):
    """A wallet as its document has it."""

    id: str
    available: int
    held: int
    seq: int
    head_hash: str


class WalletCheck(NamedTuple):
    """How far a wallet's entries were found good. Up to `verified` they may not change any more.

    `walked` is where a replay from the first entry on has got to, while there is one that takes several steps, and
    `faults` what was wrong with the entries up to there; it is due again at `full_due_at`.
    """

    wallet_id: str
    verified: BalancePoint
    walked: BalancePoint | None
    full_due_at: datetime
    faults: tuple[Finding, ...] = ()


class Window(NamedTuple):
    """A piece of a wallet's chain: the entries after `start` up to number `end`."""

    wallet_id: str
    start: BalancePoint
    end: int


class Replayed(NamedTuple):
    """Where the entries have led to, what was wrong on the way, and what each operation's status may be after them."""

    end: BalancePoint
    faults: tuple[Finding, ...]
    statuses: dict[str, frozenset[str]]


_ENDED_HOLD = frozenset(status.value for status in HoldStatus if status is not HoldStatus.HELD)
_OPEN: Final[Mapping[str, frozenset[str]]] = {
    Prefix.WITHDRAWAL: frozenset(status.value for status in OperationStatus if status not in FINAL_STATUSES),
    Prefix.TRANSFER: frozenset({OperationStatus.REQUIRES_APPROVAL.value}),
    Prefix.HOLD: frozenset({HoldStatus.HELD.value}),
}
_SUCCESS = frozenset({OperationStatus.SUCCESS.value})
_UNDONE = frozenset({OperationStatus.FAILED.value, OperationStatus.CANCELED.value})
_RELEASED_TRANSFER = frozenset({OperationStatus.SUCCESS.value, OperationStatus.CANCELED.value})
# By type of the entry and kind of its operation: which statuses go with its being the last one of the operation.
_STATUSES: Final[Mapping[tuple[EntryType, str], frozenset[str]]] = {
    (EntryType.DEPOSIT, Prefix.DEPOSIT): _SUCCESS,
    (EntryType.WITHDRAWAL, Prefix.WITHDRAWAL): _OPEN[Prefix.WITHDRAWAL],
    (EntryType.WITHDRAWAL_SETTLEMENT, Prefix.WITHDRAWAL): _SUCCESS,
    (EntryType.WITHDRAWAL_REFUND, Prefix.WITHDRAWAL): _UNDONE,
    (EntryType.HOLD, Prefix.TRANSFER): _OPEN[Prefix.TRANSFER],
    (EntryType.HOLD_RELEASE, Prefix.TRANSFER): _RELEASED_TRANSFER,
    (EntryType.HOLD, Prefix.HOLD): _OPEN[Prefix.HOLD],
    (EntryType.HOLD_CAPTURE, Prefix.HOLD): _ENDED_HOLD,
    (EntryType.HOLD_RELEASE, Prefix.HOLD): _ENDED_HOLD,
}


def replay(
    window: Window, entries: Sequence[Entry | None], verified: BalancePoint | None, earlier: Iterable[Finding] = ()
) -> Replayed:
    """Follows the entries of a window; None is one that cannot be read. The first fault of a kind is told, and of
    several how many there are: one that comes to those that were explained is not to be taken for them.

    `verified` is a point that was reached before: what it sealed has to be there still. `earlier` are the faults of
    the windows before this one: those of all together are told.
    """
    found = {one.kind: one for one in earlier}
    faults = Counter({kind: one.found.get("faults", 1) for kind, one in found.items()})
    statuses: dict[str, frozenset[str]] = {}
    point = window.start

    def note(kind: BreakKind, expected: Facts, actual: Facts) -> None:
        faults[kind] += 1
        found.setdefault(kind, Finding(kind, window.wallet_id, expected, actual, window.wallet_id))

    for entry in entries:
        if entry is None:
            note(BreakKind.ENTRIES_ALTERED, {"seq": point.seq + 1}, {"entry": "unreadable"})
            continue
        if entry.seq != point.seq + 1:
            note(BreakKind.ENTRIES_MISSING, {"seq": point.seq + 1}, {"seq": entry.seq})
        else:
            for expected, actual in _alterations(entry, point):
                note(BreakKind.ENTRIES_ALTERED, {"seq": entry.seq, **expected}, {"seq": entry.seq, **actual})
        if verified is not None and entry.seq == verified.seq and entry.hash != verified.hash:
            note(
                BreakKind.ENTRIES_ALTERED,
                {"seq": entry.seq, "hash": verified.hash},
                {"seq": entry.seq, "hash": entry.hash},
            )
        point = BalancePoint(entry.seq, entry.available_after, entry.held_after, entry.hash)
        fitting = _fitting(entry)
        if fitting is not None:
            statuses[entry.reference] = fitting
    if point.seq < window.end:
        note(BreakKind.ENTRIES_MISSING, {"seq": window.end}, {"seq": point.seq})
        # What was asked for has been read, and a step that finds nothing there is one as well.
        point = point._replace(seq=window.end)
    counted = tuple(
        one if faults[one.kind] == 1 else one._replace(found={**one.found, "faults": faults[one.kind]})
        for one in found.values()
    )
    return Replayed(point, counted, statuses)


def _fitting(entry: Entry) -> frozenset[str] | None:
    kind = entry.reference.partition("_")[0]
    if (entry.type, kind, entry.status) == (EntryType.HOLD_RELEASE, Prefix.HOLD, HoldStatus.HELD):
        # A return took a part of it; what is left is still held.
        return _OPEN[Prefix.HOLD]
    return _STATUSES.get((entry.type, kind))


def ended_only(statuses: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """For a window that ends before the chain does: what was set aside in it may have come to its end behind it."""
    return {name: fitting for name, fitting in statuses.items() if fitting not in _OPEN.values()}


def _alterations(entry: Entry, point: BalancePoint) -> Iterable[tuple[Facts, Facts]]:
    """Finds what is wrong with an entry that follows that point, as expected and found."""
    if entry.prev_hash != point.hash:
        yield {"prev_hash": point.hash}, {"prev_hash": entry.prev_hash}
    sealed = entry_hash(entry)
    if entry.hash != sealed:
        yield {"hash": sealed}, {"hash": entry.hash}
    effect = EFFECTS[entry.type]
    due = (
        point.available,
        point.held,
        point.available + effect.available * entry.amount,
        point.held + effect.held * entry.amount,
    )
    actual = entry.available_before, entry.held_before, entry.available_after, entry.held_after
    if actual != due or min(actual) < 0 or entry.amount <= 0:
        yield _balances(due), _balances(actual)


def _balances(numbers: tuple[int, int, int, int]) -> Facts:
    names = ("available_before", "held_before", "available_after", "held_after")
    return dict(zip(names, numbers, strict=True))


def check_head(wallet: WalletHead, end: BalancePoint, last: BalancePoint) -> list[Finding]:
    """The wallet's document against where its entries have led to, and against the last one there is."""

    def finding(kind: BreakKind, expected: Facts, found: Facts) -> Finding:
        return Finding(kind, wallet.id, expected, found, wallet.id)

    findings: list[Finding] = []
    if (wallet.available, wallet.held) != (end.available, end.held):
        expected = {"available": end.available, "held": end.held}
        findings.append(
            finding(BreakKind.WALLET_BALANCE, expected, {"available": wallet.available, "held": wallet.held})
        )
    if wallet.seq != last.seq or end.seq > last.seq:
        entries: Facts = {"entries": max(wallet.seq, end.seq)}
        findings.append(finding(BreakKind.ENTRIES_MISSING, entries, {"entries": last.seq}))
    elif len({wallet.head_hash, end.hash, last.hash}) > 1:
        sealed = wallet.head_hash if wallet.head_hash != last.hash else end.hash
        findings.append(
            finding(BreakKind.ENTRIES_ALTERED, {"seq": last.seq, "hash": sealed}, {"seq": last.seq, "hash": last.hash})
        )
    return findings


def check_statuses(wallet_id: str, statuses: Mapping[str, frozenset[str]], actual: Mapping[str, str]) -> list[Finding]:
    """Compares what operations are with what their last entries say that they are."""
    return [
        Finding(
            BreakKind.OPERATION_STATE,
            operation_id,
            {"status": " or ".join(sorted(fitting))},
            {"status": actual.get(operation_id)},
            wallet_id,
            operation_id,
        )
        for operation_id, fitting in statuses.items()
        if actual.get(operation_id) not in fitting
    ]


def start_of(check: WalletCheck | None, now: datetime, *, is_whole: bool) -> BalancePoint:
    """Where a replay begins: where the last one ended, or with the first entry where that is due or asked for."""
    if check is None:
        return BEFORE_THE_FIRST
    if check.walked is not None:
        return check.walked
    return BEFORE_THE_FIRST if is_whole or now >= check.full_due_at else check.verified
