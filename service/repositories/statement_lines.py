"""Queries on `statement_lines` and `set_aside_lines`: what the bank's statements say, kept so that a day need not be
held in memory.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import UpdateOne

from service.documents import SetAsideLineDocument, StatementLineDocument
from service.domain.bank_lines import BankLine, Flow
from service.domain.statement_lines import SetAsideLine, SetAsideReason

_ONE_BATCH = 2_000
_LIMIT_MS = 60_000
_VALID = {"is_withdrawn": False}
# Fees are under no order: they count in the day's sums alone.
_COMPARED = {**_VALID, "flow": {"$ne": Flow.FEE.value}}
# Beyond this, more is more.
_COUNTED = 100_000


class KeptLine(NamedTuple):
    """A line under the name that tells it from all others of its day."""

    name: str
    bank_reference: str
    line: BankLine


class KeptAside(NamedTuple):
    """A line that cannot be compared, under the same kind of name."""

    name: str
    line: SetAsideLine


async def save_many(day: str, lines: Sequence[KeptLine], import_id: str) -> None:
    """Saves what is new. What is there already is only noted as seen again."""
    if not lines:
        return
    changes = [
        UpdateOne(
            {"_id": f"{day}/{kept.name}"},
            {
                "$setOnInsert": {
                    "day": day,
                    "reference": kept.line.reference,
                    "flow": kept.line.flow.value,
                    "amount": Int64(kept.line.amount),
                    "currency": kept.line.currency,
                    "bank_reference": kept.bank_reference,
                    "booked_at": kept.line.booked_at,
                },
                "$set": _VALID,
                # Of two imports at once the later one counts.
                "$max": {"import_id": import_id},
            },
            upsert=True,
        )
        for kept in lines
    ]
    await StatementLineDocument.get_pymongo_collection().bulk_write(changes, ordered=False)


async def save_set_aside(day: str, lines: Sequence[KeptAside], import_id: str, now: datetime) -> None:
    """Saves what is new. What is there already is only noted as seen again."""
    if not lines:
        return
    changes = [
        UpdateOne(
            {"_id": f"{day}/{kept.name}"},
            {
                "$setOnInsert": {"day": day, "reason": kept.line.reason.value, "raw": kept.line.raw, "first_seen": now},
                "$set": _VALID,
                "$max": {"import_id": import_id},
            },
            upsert=True,
        )
        for kept in lines
    ]
    await SetAsideLineDocument.get_pymongo_collection().bulk_write(changes, ordered=False)


async def withdraw_older(day: str, import_id: str) -> int:
    """Lines that the bank has taken back: those of the day that this import and later ones have not seen."""
    older = {"day": day, "import_id": {"$lt": import_id}, **_VALID}
    withdrawn = {"$set": {"is_withdrawn": True}}
    done = await StatementLineDocument.get_pymongo_collection().update_many(older, withdrawn)
    await SetAsideLineDocument.get_pymongo_collection().update_many(older, withdrawn)
    return done.modified_count


async def stream_set_aside(day: str) -> AsyncIterator[KeptAside]:
    """Streams the day's lines that cannot be compared, under their whole names."""
    found = SetAsideLineDocument.get_pymongo_collection().find(
        {"day": day, **_VALID}, sort=[("_id", 1)], batch_size=_ONE_BATCH
    )
    async with found:
        async for row in found:
            yield KeptAside(row["_id"], SetAsideLine(SetAsideReason(row["reason"]), row["raw"]))


async def count_set_aside() -> int:
    """Of all days, as their last statements have them."""
    return await SetAsideLineDocument.get_pymongo_collection().count_documents(_VALID, limit=_COUNTED)


async def stream_references(day: str) -> AsyncIterator[str]:
    """Each reference of the day's lines once, in order."""
    found = StatementLineDocument.get_pymongo_collection().find(
        {"day": day, **_COMPARED},
        {"reference": 1},
        sort=[("reference", 1)],
        hint="day_reference",
        batch_size=_ONE_BATCH,
    )
    last: str | None = None
    async with found:
        async for row in found:
            if row["reference"] != last:
                last = row["reference"]
                yield row["reference"]


async def find_of(references: Sequence[str]) -> dict[str, list[BankLine]]:
    """Finds all lines under these references, of whatever day, the oldest first; by reference."""
    found = StatementLineDocument.get_pymongo_collection().find(
        {"reference": {"$in": list(references)}, **_COMPARED}, batch_size=_ONE_BATCH, max_time_ms=_LIMIT_MS
    )
    lines: dict[str, list[BankLine]] = defaultdict(list)
    for row in sorted(await found.to_list(), key=_booked_at):
        line = BankLine(row["reference"], Flow(row["flow"]), int(row["amount"]), row["currency"], row["booked_at"])
        lines[line.reference].append(line)
    return lines


def _booked_at(row: dict[str, Any]) -> tuple[Any, str]:
    return row["booked_at"], row["_id"]


async def sum_of_day(day: str) -> tuple[int, list[tuple[Flow, str, int]]]:
    """Counts the lines of the day, and sums them up by flow and currency."""
    # Decimals, because the sum of longs turns into a double, and so loses digits, where it leaves 64 bits.
    found = await StatementLineDocument.get_pymongo_collection().aggregate(
        [
            {"$match": {"day": day, **_VALID}},
            {
                "$group": {
                    "_id": {"flow": "$flow", "currency": "$currency"},
                    "amount": {"$sum": {"$toDecimal": "$amount"}},
                    "lines": {"$sum": 1},
                }
            },
        ],
        maxTimeMS=_LIMIT_MS,
    )
    rows = await found.to_list()
    sums = [(Flow(row["_id"]["flow"]), str(row["_id"]["currency"]), int(row["amount"].to_decimal())) for row in rows]
    return sum(row["lines"] for row in rows), sums
