"""Breaks: where our books disagree with themselves or with the bank's, kept until somebody has dealt with them."""

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339

# Who does what nobody asked for, in breaks and in audit events.
SYSTEM: str = "system"

Facts = Mapping[str, str | int | None]


class BreakKind(StrEnum):
    # Our books by themselves.
    WALLET_BALANCE = "wallet_balance"
    ENTRIES_MISSING = "entries_missing"
    ENTRIES_ALTERED = "entries_altered"
    OPERATION_STATE = "operation_state"
    WALLET_UNKNOWN = "wallet_unknown"
    # Ours and the bank's.
    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    AMOUNT_DIFFERS = "amount_differs"
    STATE_DIFFERS = "state_differs"
    UNAPPLIED = "unapplied"
    PAID_TWICE = "paid_twice"
    RETURN_MISSING_HERE = "return_missing_here"
    RETURN_MISSING_THERE = "return_missing_there"
    RETURN_DIFFERS = "return_differs"
    # A line of a statement that nobody can read, and which is compared with nothing.
    LINE_SET_ASIDE = "line_set_aside"
    # Several payments that do not come to the whole; those that do are only noted.
    PAID_IN_PARTS = "paid_in_parts"
    # One line of what many orders come to: by its sum, so that a person has to agree.
    BATCH_BOOKING = "batch_booking"
    # What the bank has kept for itself on a day: a person books it.
    FEE = "fee"


# A wallet with one of these is shut: what it holds cannot be told. What the bank says is no reason for that.
BOOK_KINDS = frozenset(
    {
        BreakKind.WALLET_BALANCE,
        BreakKind.ENTRIES_MISSING,
        BreakKind.ENTRIES_ALTERED,
        BreakKind.OPERATION_STATE,
        BreakKind.WALLET_UNKNOWN,
    }
)
BANK_KINDS = frozenset(BreakKind) - BOOK_KINDS
# Facts of a wallet that payments go on changing while its books disagree.
_MOVED_BY_TRAFFIC = frozenset({"available", "held", "entries"})


class BreakState(StrEnum):
    """Open until somebody explains it; explained until it shows no more or its facts change; resolved for good. A break
    with the bank stays resolved as long as its facts stay the same.
    """

    OPEN = "open"
    EXPLAINED = "explained"
    RESOLVED = "resolved"


class Finding(NamedTuple):
    """What a look at the books has found. `subject` tells, with the kind, whether it is the same as before."""

    kind: BreakKind
    subject: str
    expected: Facts
    found: Facts
    wallet_id: str | None = None
    operation_id: str | None = None
    # Of the statement, as 2026-11-20.
    day: str | None = None


class Word(NamedTuple):
    """What somebody, or the system, said of a break. `facts` is the fingerprint of the facts that it was said about;
    None in older releases.
    """

    by: str
    reason: str
    at: datetime
    facts: str | None = None


class Break(NamedTuple):
    """Of one kind and subject there is one at most that is not resolved."""

    id: str
    kind: BreakKind
    subject: str
    wallet_id: str | None
    operation_id: str | None
    day: str | None
    expected: Facts
    found: Facts
    state: BreakState
    first_seen: datetime
    last_seen: datetime
    times_seen: int
    explained: Word | None = None
    resolved: Word | None = None
    version: int = 0


def open_key_of(kind: BreakKind, subject: str) -> str:
    """Unique among the breaks that are not resolved."""
    return f"{kind}:{subject}"


def fingerprint(expected: Facts, found: Facts) -> str:
    """Of what is wrong: the same for two looks that have found the same damage, and for no others."""
    return sha256(json.dumps(_damage_of(expected, found), sort_keys=True).encode()).hexdigest()


def is_as_decided(one: Break, finding: Finding) -> bool:
    """Tells whether the finding is what the last word on the break is about, and no more than that."""
    word = one.resolved or one.explained
    decided = None if word is None else word.facts
    return (decided or fingerprint(one.expected, one.found)) == fingerprint(finding.expected, finding.found)


def stays_resolved(one: Break, finding: Finding) -> bool:
    """Whether a person has resolved it on these very facts. Only for breaks with the bank: what the bank has moved goes
    on to show after a decision. A break of our own books that still shows was not put right.
    """
    is_decided = one.state is BreakState.RESOLVED and one.resolved is not None and one.resolved.by != SYSTEM
    return is_decided and one.kind in BANK_KINDS and is_as_decided(one, finding)


def _damage_of(expected: Facts, found: Facts) -> dict[str, Any]:
    """Returns what is wrong, for comparing two looks: of what traffic moves on both sides alike only the difference."""
    damage: dict[str, Any] = {}
    for name in expected.keys() | found.keys():
        due, actual = expected.get(name), found.get(name)
        damage[name] = due, actual
        if name in _MOVED_BY_TRAFFIC and isinstance(due, int) and isinstance(actual, int):
            damage[name] = actual - due
    return damage


def break_view(one: Break) -> dict[str, Any]:
    """Returns the break as the API shows it."""
    view = one._asdict()
    del view["version"]
    for name in ("explained", "resolved"):
        word: Word | None = view[name]
        view[name] = None if word is None else {"by": word.by, "reason": word.reason, "at": to_rfc3339(word.at)}
    return view | {"first_seen": to_rfc3339(one.first_seen), "last_seen": to_rfc3339(one.last_seen)}
