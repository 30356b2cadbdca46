"""Queries on `dead_letters`, and on the queues that rows leave for it and come back to."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from service.documents import DeadLetterDocument
from service.domain.dead_letters import DeadLetter, DeadLetterState, Queue
from service.repositories.queues import HOMES
from service.repositories.records import from_row, to_row

Row = dict[str, Any]

# What is of whoever had it last.
_LAST_FIELDS = ("failures", "first_failed_at", "claim")


class DeadLetterFilter(NamedTuple):
    """What a list, or a replay of many, is narrowed to."""

    queue: Queue | None = None
    state: DeadLetterState | None = None
    topic: str | None = None
    error_type: str | None = None
    subject_id: str | None = None

    @property
    def condition(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None}


class Claimed(NamedTuple):
    """A row as a worker has taken it: whoever takes it later counts one attempt more. Events count none.

    Where the id may come again, `claim` tells the lives of a row apart, which count their attempts anew.
    """

    id: str
    attempts: int | None
    claim: str | None = None

    @property
    def condition(self) -> dict[str, Any]:
        return {name: value for name, value in self._known if value is not None}

    @property
    def _known(self) -> tuple[tuple[str, str | int | None], ...]:
        return ("_id", self.id), ("attempts", self.attempts), ("claim", self.claim)


def _collection(queue: Queue) -> AsyncCollection[Row]:
    return HOMES[queue].document.get_pymongo_collection()


def subject_of(queue: Queue, row: Row) -> str:
    found: Any = row
    for part in HOMES[queue].subject.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return str(found or row["_id"])


async def find_claimed(queue: Queue, claimed: Claimed, *, session: AsyncClientSession | None = None) -> Row | None:
    """None where the row has gone, or is somebody else's by now."""
    return await _collection(queue).find_one({**claimed.condition, "due_at": {"$exists": True}}, session=session)


async def come_back(queue: Queue, claimed: Claimed, due_at: datetime, failed_at: datetime, *, is_first: bool) -> None:
    """After one more failure."""
    change = {"due_at": due_at} | ({"first_failed_at": failed_at} if is_first else {})
    await _collection(queue).update_one(
        claimed.condition, {"$set": change, "$inc": {"failures": Int64(1)}, "$unset": {"claim": ""}}
    )


async def give_back(queue: Queue, claimed: Sequence[Claimed], due_at: datetime, *, was_begun: bool) -> None:
    """Makes the rows due at that time, for any worker. Where the work was not begun, the attempt is not counted."""
    due = {"due_at": {"$exists": True}}
    changes = []
    for one in claimed:
        change: dict[str, Any] = {"$set": {"due_at": due_at}, "$unset": {"claim": ""}}
        if not was_begun and one.attempts is not None:
            change["$inc"] = {"attempts": -1}
        changes.append(UpdateOne(one.condition | due, change))
    if changes:
        await _collection(queue).bulk_write(changes, ordered=False)


async def bury(letter: DeadLetter, *, session: AsyncClientSession) -> None:
    """Takes the row out of its queue, in the transaction that has found it there."""
    await DeadLetterDocument.get_pymongo_collection().insert_one(to_row(letter), session=session)
    collection = _collection(letter.queue)
    if HOMES[letter.queue].is_record:
        out = {"$unset": dict.fromkeys(("due_at", *_LAST_FIELDS), ""), "$set": {"dead_letter_id": letter.id}}
        await collection.update_one({"_id": letter.row_id}, out, session=session)
    else:
        await collection.delete_one({"_id": letter.row_id}, session=session)


def kept_of(queue: Queue, row: Row) -> Row:
    """Picks what of the row a dead letter has to keep."""
    if HOMES[queue].is_record:
        return {}
    return {name: value for name, value in row.items() if name not in _LAST_FIELDS}


async def return_to_queues(letters: Sequence[DeadLetter], now: datetime, *, session: AsyncClientSession) -> None:
    """As if they had just come. What is in its queue again by other ways stays as it is there."""
    for queue in sorted({letter.queue for letter in letters}):
        those = [letter for letter in letters if letter.queue is queue]
        fresh = {"due_at": now, "attempts": Int64(0)}
        ids = [letter.row_id for letter in those]
        collection = _collection(queue)
        if HOMES[queue].is_record:
            named = {"_id": {"$in": ids}, "dead_letter_id": {"$in": [letter.id for letter in those]}}
            if queue is Queue.EVENTS:
                del fresh["attempts"]
            await collection.update_many(named, {"$set": fresh, "$unset": {"dead_letter_id": ""}}, session=session)
            continue
        found = await collection.find({"_id": {"$in": ids}}, {"_id": 1}, session=session).to_list()
        there = {row["_id"] for row in found}
        # One subject may have died twice.
        rows = {letter.row_id: {**letter.row, **fresh, "visits": 0} for letter in those if letter.row_id not in there}
        if rows:
            await collection.insert_many(list(rows.values()), session=session)


async def find(letter_id: str, *, session: AsyncClientSession | None = None) -> DeadLetter | None:
    row = await DeadLetterDocument.get_pymongo_collection().find_one({"_id": letter_id}, session=session)
    if row is None:
        return None
    letter: DeadLetter = from_row(DeadLetter, row)
    return letter


async def find_newest(wanted: DeadLetterFilter, *, before_id: str | None, limit: int) -> list[DeadLetter]:
    """Newest first; `before_id` is the last one of the page before."""
    condition = wanted.condition | ({} if before_id is None else {"_id": {"$lt": before_id}})
    found = DeadLetterDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(DeadLetter, row) for row in await found.to_list()]


async def find_oldest_dead(wanted: DeadLetterFilter, limit: int, *, session: AsyncClientSession) -> list[DeadLetter]:
    condition = wanted._replace(state=DeadLetterState.DEAD).condition
    found = DeadLetterDocument.get_pymongo_collection().find(condition, sort=[("_id", 1)], limit=limit, session=session)
    return [from_row(DeadLetter, row) for row in await found.to_list()]


async def end_many(
    letters: Sequence[DeadLetter],
    state: DeadLetterState,
    *,
    by: str,
    at: datetime,
    reason: str | None,
    session: AsyncClientSession,
) -> None:
    """Of letters that this transaction has found dead. Whoever ends one of them at the same time makes it run anew."""
    await DeadLetterDocument.get_pymongo_collection().update_many(
        {"_id": {"$in": [letter.id for letter in letters]}},
        {"$set": {"state": state, "ended_by": by, "ended_at": at, "reason": reason}},
        session=session,
    )


async def count_dead() -> dict[str, int]:
    """By queue; those without any are left out."""
    counted = await DeadLetterDocument.get_pymongo_collection().aggregate(
        [{"$match": {"state": DeadLetterState.DEAD}}, {"$group": {"_id": "$queue", "letters": {"$sum": 1}}}]
    )
    return {row["_id"]: row["letters"] for row in await counted.to_list()}
