"""Checks discrepancies ("breaks") and lines of statements that were set aside.

Like `ledger_rules`, written out a second time on purpose, over documents as the driver gives them.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from scripts.ledger_rules import Breach

Row = dict[str, Any]

_LINE_UNTOLD: Final = "line_untold"
_DECISION_FACTS: Final = "decision_facts"
# Of a wallet that goes on moving only the difference counts.
_MOVING: Final = ("available", "held", "entries")


def check_set_aside(line: Row, compared_at: Mapping[str, Any], told: Collection[str]) -> Iterator[Breach]:
    """A line that nobody can read is told of as soon as its day has been compared. `told` are the ids that are."""
    day = str(line.get("day"))
    at = compared_at.get(day)
    if at is not None and line["first_seen"] <= at and str(line["_id"]) not in told:
        yield Breach(_LINE_UNTOLD, str(line["_id"]), f"{line.get('reason')}, and no discrepancy tells of it")


def check_decision(one: Row) -> Iterator[Breach]:
    """Requires that a decision still stands beside the facts that it was made about."""
    word = one.get(str(one.get("state")))
    decided = word.get("facts") if isinstance(word, dict) else None
    if decided is not None and decided != fingerprint(one.get("expected") or {}, one.get("found") or {}):
        yield Breach(_DECISION_FACTS, str(one["_id"]), f"was {one['state']} when other facts stood there")


def fingerprint(expected: Row, found: Row) -> str:
    damage: dict[str, Any] = {}
    for name in {*expected, *found}:
        due, actual = expected.get(name), found.get(name)
        damage[name] = [due, actual]
        if name in _MOVING and isinstance(due, int) and isinstance(actual, int):
            damage[name] = actual - due
    return sha256(json.dumps(damage, sort_keys=True).encode()).hexdigest()
