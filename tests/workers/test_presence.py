"""What a worker tells of itself: heartbeats, and lines in the log that have news."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.background import end
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.domain.outbox import OutboxTopic, outbox_row
from service.domain.workers import ALIVE_S, QueueState
from service.repositories import outbox as outbox_repository
from service.services.workers import Backlog, beat, find_presence, look_at_queues
from service.startup import Resources
from tests.factories import make_dead_letter, make_user
from workers.outbox import outbox_drain
from workers.presence import Presence, _Told


@pytest.fixture
def presence(resources: Resources) -> Presence:
    return Presence((outbox_drain(resources), outbox_drain(resources)), resources.clock_watch)


class TestHeartbeats:
    async def test_show_who_is_there_until_they_leave_or_are_silent(
        self, presence: Presence, databases: Databases
    ) -> None:
        before = (await find_presence(utc_now())).alive
        beating = asyncio.create_task(presence.beat_for_ever())
        while await databases.wallet["workers"].find_one({"_id": presence.now.id}) is None:  # noqa: ASYNC110 it stands in the database
            await asyncio.sleep(0)
        await end(beating)
        now = utc_now()
        seen = await find_presence(now)
        assert seen.alive == before + 1
        assert seen.last_seen_age_s is not None
        later = await find_presence(now + timedelta(seconds=ALIVE_S + 1))
        assert later.alive == 0
        assert later.last_seen_age_s is not None
        assert later.last_seen_age_s > ALIVE_S
        await presence.leave()
        assert (await find_presence(utc_now())).alive == before

    async def test_add_up_the_drains_of_a_queue(self, presence: Presence) -> None:
        for drain in presence._drains:
            drain.done = 2
        assert presence.now.done == dict.fromkeys(Queue, 0) | {"outbox": 4}
        await beat(presence.now)
        await presence.leave()


class TestTheQueues:
    async def test_are_counted_by_what_is_due_and_by_topic(self, databases: Databases) -> None:
        before = await look_at_queues(utc_now())
        now, user = utc_now(), await make_user(databases)
        due = outbox_row(OutboxTopic.PASSWORD_NOTICE, user.id, None, now - timedelta(days=400))
        later = outbox_row(OutboxTopic.REWARD, user.id, None, now, now + timedelta(hours=1))
        await outbox_repository.insert_many([due, later], session=None)
        after = await look_at_queues(now)
        was, outbox = before.queues[Queue.OUTBOX], after.queues[Queue.OUTBOX]
        assert (outbox.rows - was.rows, outbox.oldest_due_at) == (2, due.due_at)
        assert after.topics["password_notice"].oldest_age_s(now) == timedelta(days=400).total_seconds()
        letters = after.dead_letters.get("outbox", 0)
        await make_dead_letter(databases, user.id)
        assert (await look_at_queues(utc_now())).dead_letters["outbox"] == letters + 1


_NOTHING = QueueState(0, 0, None)


class TestTheStatusLine:
    def told(self, *looks: tuple[Presence, Backlog, str]) -> list[dict[str, Any]]:
        told, now = _Told(), utc_now()
        with capture_logs() as lines:
            for presence, backlog, breaker in looks:
                told.tell(presence.now, backlog, breaker, now, 10.0)
        return [dict(line) for line in lines]

    def test_is_told_when_something_has_changed_and_then_no_more(self, presence: Presence) -> None:
        calm = Backlog(dict.fromkeys(Queue, _NOTHING), {}, {})
        busy = Backlog({**calm.queues, Queue.OUTBOX: QueueState(5, 2, utc_now())}, {}, {})
        looks = [(presence, backlog, "closed") for backlog in (calm, calm, busy, busy, calm)]
        lines = self.told(*looks)
        assert [line["outbox_due"] for line in lines] == [0, 2, 0]
        assert {line["log_level"] for line in lines} == {"info"}
        assert {line["event"] for line in lines} == {"worker.status"}

    @pytest.mark.parametrize("wrong", ["dead letters", "late", "bank"])
    def test_is_a_warning_where_somebody_should_look(self, presence: Presence, wrong: str) -> None:
        late = QueueState(1, 1, utc_now() - timedelta(minutes=5))
        queues = dict.fromkeys(Queue, _NOTHING) | ({Queue.CALLBACKS: late} if wrong == "late" else {})
        backlog = Backlog(queues, {}, {"outbox": 1} if wrong == "dead letters" else {})
        (line,) = self.told((presence, backlog, "open" if wrong == "bank" else "closed"))
        assert line["log_level"] == "warning"

    def test_has_what_was_done_and_what_failed_since_the_last(self, presence: Presence) -> None:
        calm = Backlog(dict.fromkeys(Queue, _NOTHING), {}, {})
        told, now = _Told(), utc_now()
        drain = presence._drains[0]
        with capture_logs() as lines:
            for done, failed in ((3, 0), (5, 1)):
                drain.done, drain.failed = done, failed
                told.tell(presence.now, calm, "closed", now, 10.0)
        assert [(line["done"], line["failed"], line["log_level"]) for line in lines] == [
            (3, 0, "info"),
            (2, 1, "warning"),
        ]
