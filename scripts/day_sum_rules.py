"""Checks what admins, services and API keys have moved alone in a day against the adjustments and reversals of it.

Written out a second time like `ledger_rules`, and for the same reason.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from enum import StrEnum
from typing import Final

from scripts.ledger_reader import Reader
from scripts.ledger_rules import Breach, is_shaped
from scripts.record_rules import Row

COLLECTIONS: Final = ("adjustments", "reversals")

_PREFIX: Final = "dsm_"
_FIELDS: Final = (
    "_id", "currency", "amount", "shortfall", "to_wallet_id", "counted_day", "counted_for", "requested_by",
    "decided_by", "status",
)  # fmt: skip
_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "actor_id", "currency", "day"), str),
    "amount": int,
}
_COUNTED: Final[Mapping[str, type]] = {**dict.fromkeys(("_id", "currency", "counted_day"), str), "amount": int}

Moved = Counter[tuple[str, str, str]]
"""By actor, currency and day: minor units."""


class DaySumRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    MALFORMED = "day_sum_malformed"
    AMOUNT = "day_sum"
    COUNTED = "day_sum_counted"


async def inspect_day_sums(reader: Reader) -> tuple[int, list[Breach]]:
    """How many sums there are, and what is wrong with them."""
    breaches, moved = list[Breach](), Moved()
    async for row in _counted(reader):
        breaches += count(row, moved)
    sums = [row async for row in reader.find(reader.wallet["day_sums"], [("_id", 1)])]
    breaches += check_sums(sums, moved)
    return len(sums), breaches


async def _counted(reader: Reader) -> AsyncIterator[Row]:
    for name in COLLECTIONS:
        async for row in reader.find(reader.wallet[name], [("_id", 1)], _FIELDS, {"counted_day": {"$ne": None}}):
            yield row


def count(row: Row, moved: Moved) -> Iterator[Breach]:
    """Adds what was moved to the sums of everybody that it counts for: whoever asked, at least."""
    actors = row.get("counted_for")
    if not is_shaped(row, _COUNTED) or not isinstance(actors, list):
        yield Breach(DaySumRule.MALFORMED, str(row.get("_id")), "what it counts for lacks fields or has wrong types")
        return
    if row.get("requested_by") not in actors or row.get("status") != "success":
        yield Breach(DaySumRule.COUNTED, row["_id"], f"{row.get('status')} by {row.get('requested_by')} for {actors}")
    if row.get("decided_by", row.get("requested_by")) != row.get("requested_by"):
        yield Breach(DaySumRule.COUNTED, row["_id"], f"counted though {row.get('decided_by')} approved it")
    # A reversal counts for what a user gets, or else what the house bears; an adjustment has no shortfall.
    is_of_house = "shortfall" in row and row.get("to_wallet_id") is None
    for actor in actors:
        moved[actor, row["currency"], row["counted_day"]] += row["shortfall"] if is_of_house else row["amount"]


def check_sums(sums: list[Row], moved: Moved) -> Iterator[Breach]:
    """Each sum is that of its day, and of no actor was anything counted on a later one."""
    last: dict[tuple[str, str], str] = {}
    for actor, currency, day in moved:
        last[actor, currency] = max(day, last.get((actor, currency), ""))
    for row in sums:
        key = str(row.get("_id"))
        if not is_shaped(row, _SHAPE):
            yield Breach(DaySumRule.MALFORMED, key, "it lacks fields or has wrong types")
            continue
        actor, currency, day = row["actor_id"], row["currency"], row["day"]
        if key != f"{_PREFIX}{actor}_{currency}":
            yield Breach(DaySumRule.AMOUNT, key, f"it says that it is of {actor} in {currency}")
            continue
        due, of_day = moved[actor, currency, day], last.pop((actor, currency), None)
        if (row["amount"], day) != (due, of_day):
            yield Breach(DaySumRule.AMOUNT, key, f"{row['amount']} on {day}, it should be {due}, last on {of_day}")
    for (actor, currency), day in last.items():
        detail = f"nothing, it should be {moved[actor, currency, day]} on {day}"
        yield Breach(DaySumRule.AMOUNT, f"{_PREFIX}{actor}_{currency}", detail)
