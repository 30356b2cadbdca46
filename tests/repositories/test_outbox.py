"""Who gets taken from the outbox, where more is due than can be taken."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from pymongo import UpdateOne

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.repositories import outbox as outbox_repository
from service.services.dead_letters import Claimed, Reason, bury, give_back

_TOPICS = (OutboxTopic.REWARD, OutboxTopic.APPROVAL_CODE, OutboxTopic.EXPIRY)


def _rows(topic: OutboxTopic, number: int, due_s: float) -> list[OutboxRow]:
    now = utc_now()
    due_at = now + timedelta(seconds=due_s)
    return [outbox_row(topic, f"sub_{uuid4().hex}", None, now, due_at) for _ in range(number)]


@pytest.fixture
async def _only_ours(databases: Databases) -> AsyncIterator[None]:
    """What other tests have left behind is out of the way meanwhile, and ours afterwards."""
    outbox = databases.wallet["outbox"]
    others = {row["_id"]: row["due_at"] async for row in outbox.find({}, {"due_at": 1})}
    far = utc_now() + timedelta(days=1)
    await outbox.update_many({}, {"$set": {"due_at": far}})
    yield
    await outbox.delete_many({"_id": {"$nin": list(others)}})
    back = [UpdateOne({"_id": row_id}, {"$set": {"due_at": due_at}}) for row_id, due_at in others.items()]
    if back:
        await outbox.bulk_write(back)


@pytest.mark.usefixtures("_only_ours")
class TestTaking:
    async def test_many_rows_of_one_topic_keep_no_other_topic_waiting(self) -> None:
        await outbox_repository.insert_many(_rows(OutboxTopic.REWARD, 200, -60), session=None)
        late = _rows(OutboxTopic.APPROVAL_CODE, 3, -1) + _rows(OutboxTopic.EXPIRY, 3, -1)
        await outbox_repository.insert_many(late, session=None)
        taken = await outbox_repository.claim(now=utc_now(), lease_s=60, limit=20, topics=_TOPICS)
        assert Counter(row.topic for row in taken) == {
            OutboxTopic.REWARD: 14,
            OutboxTopic.APPROVAL_CODE: 3,
            OutboxTopic.EXPIRY: 3,
        }

    async def test_only_the_topics_asked_for_are_taken_and_the_longest_due_first(self) -> None:
        first, second = _rows(OutboxTopic.BANK_ORDER, 1, -9), _rows(OutboxTopic.BANK_ORDER, 1, -5)
        await outbox_repository.insert_many([*second, *first, *_rows(OutboxTopic.REWARD, 2, -60)], session=None)
        taken = await outbox_repository.claim(now=utc_now(), lease_s=60, limit=1, topics=(OutboxTopic.BANK_ORDER,))
        assert [row.id for row in taken] == [first[0].id]

    async def test_a_row_tells_that_it_was_taken_as_the_database_has_it(self, databases: Databases) -> None:
        (row,) = _rows(OutboxTopic.REWARD, 1, -1)
        await outbox_repository.insert_many([row], session=None)
        (taken,) = await outbox_repository.claim(now=utc_now(), lease_s=60, limit=5, topics=(OutboxTopic.REWARD,))
        kept = await databases.wallet["outbox"].find_one({"_id": row.id})
        assert kept is not None
        assert (taken.attempts, taken.visits, taken.due_at) == (kept["attempts"], kept["visits"], kept["due_at"])

    async def test_a_row_that_is_put_back_was_visited_by_nobody(self, databases: Databases) -> None:
        put_back, postponed = _rows(OutboxTopic.REWARD, 2, -1)
        await outbox_repository.insert_many([put_back, postponed], session=None)
        later = utc_now() + timedelta(minutes=1)
        await outbox_repository.put_back(put_back, later)
        await outbox_repository.postpone(postponed, later)
        rows = databases.wallet["outbox"].find({"_id": {"$in": [put_back.id, postponed.id]}})
        found = {row["_id"]: (row["visits"], row["due_at"]) async for row in rows}
        assert found == {put_back.id: (0, later), postponed.id: (1, later)}

    @pytest.mark.parametrize("late", ["delete", "put_back", "postpone", "give_back", "bury"])
    async def test_whoever_took_a_row_that_has_gone_does_nothing_to_the_one_made_anew(
        self, databases: Databases, late: str
    ) -> None:
        outbox = databases.wallet["outbox"]
        (row,) = _rows(OutboxTopic.REWARD, 1, -1)
        await outbox_repository.insert_many([row], session=None)
        (stale,) = await outbox_repository.claim(now=utc_now(), lease_s=60, limit=1, topics=(OutboxTopic.REWARD,))
        await outbox.delete_one({"_id": row.id})
        await outbox_repository.insert_many([row], session=None)
        await outbox_repository.claim(now=utc_now(), lease_s=60, limit=1, topics=(OutboxTopic.REWARD,))
        anew = await outbox.find_one({"_id": row.id})
        claimed = Claimed(stale.id, stale.attempts, stale.claim)
        match late:
            case "delete":
                await outbox_repository.delete(stale)
            case "put_back":
                await outbox_repository.put_back(stale, utc_now())
            case "postpone":
                await outbox_repository.postpone(stale, utc_now())
            case "give_back":
                await give_back(Queue.OUTBOX, [claimed], was_begun=True)
            case "bury":
                assert await bury(Queue.OUTBOX, claimed, Reason("E", "m"), 1, databases.client) is None
        assert await outbox.find_one({"_id": row.id}) == anew
