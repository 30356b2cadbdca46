"""Rows whose work fails: they come back ever later, are put aside once, and go back once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import structlog
from bson.int64 import Int64
from pymongo.errors import AutoReconnect, WriteError
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import LogCapture

from service.database import Databases
from service.documents import User
from service.domain.clock import utc_now
from service.domain.dead_letters import DeadLetter, DeadLetterState, Queue
from service.domain.operations import Operation
from service.domain.outbox import OutboxTopic, outbox_row
from service.domain.webhook_deliveries import DeliveryStatus, WebhookDelivery
from service.errors import DeadLetterEnded, DeadLetterNeeded, NotFound, Unavailable
from service.gateways.mailbox import MailboxUnavailable, MailRefused
from service.outages import OutageLog
from service.repositories import bank_callbacks as inbox
from service.repositories import outbox as outbox_repository
from service.repositories import webhook_deliveries as delivery_repository
from service.services import dead_letters
from service.services.callers import Caller
from service.services.dead_letters import Claimed, DeadLetterFilter, Reason, bury, give_back, note_failure, reason_of
from service.startup import Resources
from tests.factories import change, make_funded_wallet, make_user, withdrawal_of
from tests.servers import Admin, fail_point

Row = dict[str, Any]

_LIMIT = 3


_COLLECTIONS = {
    Queue.OUTBOX: "outbox",
    Queue.CALLBACKS: "bank_callbacks",
    Queue.EVENTS: "events",
    Queue.DELIVERIES: "webhook_deliveries",
    Queue.BANK: "orders",
}


class Scene(NamedTuple):
    """One row that a worker has taken, in one of the queues."""

    queue: Queue
    claimed: Claimed
    subject_id: str
    databases: Databases
    admin: Caller
    resources: Resources

    @property
    def collection(self) -> Any:
        name = _COLLECTIONS[self.queue]
        return (self.databases.bank if self.queue is Queue.BANK else self.databases.wallet)[name]

    async def row(self) -> Row | None:
        """As it is in its queue."""
        row: Row | None = await self.collection.find_one({"_id": self.claimed.id, "due_at": {"$exists": True}})
        return row

    async def take_again(self) -> "Scene":
        """As another worker's claim does. Events count no attempts."""
        if self.claimed.attempts is None:
            return self
        await self.collection.update_one({"_id": self.claimed.id}, {"$inc": {"attempts": 1}})
        return self._replace(claimed=Claimed(self.claimed.id, self.claimed.attempts + 1))

    async def fail(self, error: Exception | None = None, retry_for_s: float = 3600.0) -> None:
        error = error or RuntimeError("a secret of somebody")
        await note_failure(self.queue, self.claimed, error, self.databases.client, _LIMIT, retry_for_s)

    async def bury(self) -> DeadLetter:
        letter = await bury(self.queue, self.claimed, Reason("RuntimeError", "in a test"), 1, self.databases.client)
        assert letter is not None
        return letter

    async def letters(self) -> list[Row]:
        return await self.databases.wallet["dead_letters"].find({"row_id": self.claimed.id}).to_list()

    async def replay(self, letter: DeadLetter | Row) -> DeadLetter:
        letter_id = letter["_id"] if isinstance(letter, dict) else letter.id
        return await dead_letters.replay(self.databases.client, self.admin, letter_id, "a-request", self.resources.jobs)

    async def discard(self, letter: DeadLetter) -> DeadLetter:
        return await dead_letters.discard(self.databases.client, self.admin, letter.id, "Not needed", "a-request")


def _caller(user: User) -> Caller:
    return Caller(user.id, tuple(user.roles), user.token_version)


async def _outbox_scene(databases: Databases, topic: OutboxTopic, subject_id: str) -> Claimed:
    row = outbox_row(topic, subject_id, "a-request", utc_now())._replace(attempts=1)
    found = await databases.wallet["outbox"].find_one({"_id": row.id})
    if found is None:
        await outbox_repository.insert_many([row], session=None)
    else:
        await databases.wallet["outbox"].update_one({"_id": row.id}, {"$set": {"attempts": 1}})
    return Claimed(row.id, 1)


async def _callback(databases: Databases, reference: str) -> Claimed:
    callback_id = f"msg_{uuid4().hex}"
    payload = {"type": "payment.settled", "reference": reference, "status": "success", "amount": 1, "currency": "INR"}
    assert await inbox.insert_once(callback_id, payload, "a-request", utc_now())
    await databases.wallet["bank_callbacks"].update_one({"_id": callback_id}, {"$set": {"attempts": 1}})
    return Claimed(callback_id, 1)


async def _bank_order(databases: Databases, reference: str) -> Claimed:
    order = {
        "_id": reference, "kind": "payout", "amount": Int64(500), "currency": "INR", "account": "account-0001",
        "state": "accepted", "bank_reference": "bank_1", "outcome": "success", "failure_code": None,
        "failure_message": None, "payments": [], "returns": [], "reports": [], "executed_at": None, "return_at": None,
        "execute_at": utc_now() + timedelta(days=1), "submissions": 1, "attempts": 1, "created_at": utc_now(),
        "due_at": utc_now(),
    }  # fmt: skip
    await databases.bank["orders"].insert_one(order)
    return Claimed(reference, 1)


def _delivery(event_id: str) -> WebhookDelivery:
    now = utc_now()
    return WebhookDelivery(
        id=f"whd_{uuid4().hex}",
        endpoint_id="whe_any",
        user_id="usr_any",
        event_id=event_id,
        event_type="withdrawal.succeeded",
        body=b"{}",
        status=DeliveryStatus.PENDING,
        attempts=1,
        tries=(),
        request_id=None,
        queued_at=now,
        created_at=now,
        expires_at=now + timedelta(days=1),
        due_at=now,
    )


@pytest.fixture
async def boss(databases: Databases) -> Caller:
    return _caller(await make_user(databases, roles=["user", "admin"]))


@pytest.fixture
async def withdrawal(databases: Databases) -> Operation:
    return await change(databases, withdrawal_of(await make_funded_wallet(databases, 1_000), 500))


Make = Callable[[Queue], Awaitable[Scene]]


@pytest.fixture
def make_scene(databases: Databases, boss: Caller, withdrawal: Operation, resources: Resources) -> Make:
    async def make(queue: Queue) -> Scene:
        match queue:
            case Queue.OUTBOX:
                claimed = await _outbox_scene(databases, OutboxTopic.BANK_ORDER, withdrawal.id)
            case Queue.CALLBACKS:
                claimed = await _callback(databases, withdrawal.id)
            case Queue.EVENTS:
                event = await databases.wallet["events"].find_one({"subject_id": withdrawal.id})
                assert event is not None
                claimed = Claimed(event["_id"], None)
            case Queue.DELIVERIES:
                delivery = _delivery(withdrawal.id)
                await delivery_repository.ensure_many([delivery])
                claimed = Claimed(delivery.id, 1)
            case Queue.BANK:
                claimed = await _bank_order(databases, withdrawal.id)
        return Scene(queue, claimed, withdrawal.id, databases, boss, resources)

    return make


@pytest.fixture
async def notice(databases: Databases, boss: Caller, resources: Resources) -> Scene:
    """A row that nothing else waits for."""
    user = await make_user(databases)
    claimed = await _outbox_scene(databases, OutboxTopic.PASSWORD_NOTICE, user.id)
    return Scene(Queue.OUTBOX, claimed, user.id, databases, boss, resources)


def _raised(error: Exception) -> Exception:
    """With the traceback that it has where it is caught."""
    try:
        raise error  # noqa: TRY301 that is what it is for
    except Exception as caught:  # noqa: BLE001 it is handed in
        return caught


def _all_lines(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is said of outages, at every level."""
    logs = LogCapture()
    monkeypatch.setattr(
        "service.outages.log",
        structlog.wrap_logger(
            None, processors=[logs], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
        ),
    )
    return logs.entries


class TestAFailure:
    @pytest.mark.parametrize("queue", Queue)
    async def test_lets_the_row_come_back_ever_later_and_the_last_one_puts_it_aside(
        self, make_scene: Make, queue: Queue
    ) -> None:
        scene = await make_scene(queue)
        for failures, (least, most) in enumerate([(0.9, 2), (1.9, 4)], start=1):
            before = utc_now()
            await scene.fail()
            row = await scene.row()
            assert row is not None
            assert row["failures"] == failures
            assert timedelta(seconds=least) < row["due_at"] - before < timedelta(seconds=most + 1)
            scene = await scene.take_again()
        await scene.fail(_raised(KeyError("account 1234567890123")))
        assert await scene.row() is None
        (letter,) = await scene.letters()
        assert (letter["state"], letter["attempts"], letter["failures"]) == ("dead", 3, 3)
        assert (letter["subject_id"], letter["error_type"]) == (scene.subject_id, "KeyError")
        assert letter["message"].startswith("in _raised (test_dead_letters.py:")
        assert letter["first_failed_at"] < letter["last_failed_at"]

    async def test_of_a_row_that_another_worker_has_by_now_changes_nothing(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        await scene.take_again()
        before = await scene.row()
        for _ in range(_LIMIT + 1):
            await scene.fail()
        assert await scene.row() == before

    async def test_of_a_row_that_has_gone_changes_nothing(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        await scene.collection.delete_one({"_id": scene.claimed.id})
        assert await bury(scene.queue, scene.claimed, Reason("E", "m"), 1, scene.databases.client) is None
        assert await scene.letters() == []

    @pytest.mark.parametrize(
        "outage",
        [AutoReconnect("away"), RedisConnectionError("away"), Unavailable()],
        ids=["mongodb", "redis", "ledger"],
    )
    async def test_does_not_count_while_what_it_needs_is_away(self, make_scene: Make, outage: Exception) -> None:
        scene = await make_scene(Queue.OUTBOX)
        before = await scene.row()
        for _ in range(_LIMIT + 1):
            await scene.fail(outage)
        row = await scene.row()
        assert before is not None
        assert row is not None
        # It only comes back later.
        assert row | {"due_at": before["due_at"]} == before
        assert await scene.letters() == []

    async def test_of_a_mail_whose_server_is_away_bring_it_back_ever_later_for_a_stated_time(
        self, make_scene: Make
    ) -> None:
        scene = await make_scene(Queue.OUTBOX)
        before = utc_now()
        for _ in range(_LIMIT + 3):
            await scene.fail(MailboxUnavailable("away"))
            scene = await scene.take_again()
        row = await scene.row()
        assert row is not None
        assert row["due_at"] - before > timedelta(seconds=16)
        assert await scene.letters() == []
        await scene.fail(MailboxUnavailable("away"), retry_for_s=0.0)
        (letter,) = await scene.letters()
        assert (letter["error_type"], letter["failures"]) == ("MailboxUnavailable", _LIMIT + 4)
        assert await scene.row() is None

    async def test_of_a_mail_that_the_server_refuses_for_good_are_not_repeated(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        await scene.fail(_raised(MailRefused(550)))
        (letter,) = await scene.letters()
        assert (letter["error_type"], letter["failures"]) == ("MailRefused", 1)
        assert letter["message"].startswith("error 550 ")

    async def test_that_an_outage_is_to_blame_for_names_its_row_and_warns_of_it_once(
        self, make_scene: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines, outages = _all_lines(monkeypatch), OutageLog()
        monkeypatch.setattr(dead_letters, "outages", outages)
        scene = await make_scene(Queue.OUTBOX)
        await scene.fail(AutoReconnect("away"))
        for _ in range(60):
            outages.put_back("outbox", scene.claimed.id, AutoReconnect("away"))
        first, *_ = told = [line for line in lines if line.get("row_id") == scene.claimed.id]
        assert (first["log_level"], first["queue"], first["error"]) == ("debug", "outbox", "AutoReconnect")
        assert told[-1]["times"] == 61
        assert [(line["event"], line["times"]) for line in told if line["log_level"] == "warning"] == [
            ("outage.row_put_back_often", 50)
        ]

    def test_does_not_count_as_one_more_in_a_row_after_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now_s = 0.0
        monkeypatch.setattr("service.outages.monotonic", lambda: now_s)
        lines, outages = _all_lines(monkeypatch), OutageLog()
        for pause_s in (0.0, 59.0, 61.0):
            now_s += pause_s
            outages.put_back("outbox", "a row", AutoReconnect("away"))
        assert [line["times"] for line in lines] == [1, 2, 1]


class TestBurying:
    async def test_moves_the_row_once_however_many_try_at_once(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        client = scene.databases.client
        buried = await asyncio.gather(
            *(bury(scene.queue, scene.claimed, Reason("E", "m"), 1, client) for _ in range(8))
        )
        assert len([letter for letter in buried if letter is not None]) == 1
        assert len(await scene.letters()) == 1
        assert await scene.row() is None

    @pytest.mark.parametrize("queue", Queue)
    async def test_that_loses_mongodb_before_its_commit_leaves_the_row_in_its_queue(
        self, make_scene: Make, queue: Queue, admin: Admin
    ) -> None:
        scene = await make_scene(queue)
        refuse = fail_point(admin, 1, failCommands=["commitTransaction"], errorCode=20)
        with refuse, pytest.raises(Exception, match="failCommand"):
            await scene.bury()
        assert await scene.row() is not None
        assert await scene.letters() == []

    async def test_keeps_what_a_row_of_the_outbox_needs_to_come_back(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        before = await scene.row()
        assert before is not None
        await scene.bury()
        (letter,) = await scene.letters()
        assert letter["row"] == before
        assert letter["topic"] == "bank_order"

    @pytest.mark.parametrize("queue", [queue for queue in Queue if queue is not Queue.OUTBOX])
    async def test_leaves_what_is_a_record_too_where_it_is_and_copies_nothing_of_it(
        self, make_scene: Make, queue: Queue
    ) -> None:
        scene = await make_scene(queue)
        letter = await scene.bury()
        assert letter.row == {}
        kept = await scene.collection.find_one({"_id": scene.claimed.id})
        assert kept["dead_letter_id"] == letter.id


class TestAReason:
    def test_has_the_services_own_words(self) -> None:
        assert reason_of(NotFound("There is no user usr_1")) == ("NotFound", "There is no user usr_1")

    def test_has_no_word_of_other_errors_which_may_quote_a_whole_document(self) -> None:
        error = _raised(WriteError("validation failed: {account: 12345678901}", 121, {"errInfo": {"account": "123"}}))
        found = reason_of(error)
        assert found.error_type == "WriteError"
        assert found.message.startswith("error 121 in _raised (test_dead_letters.py:")
        assert "123456" not in found.message


class TestReplaying:
    @pytest.mark.parametrize("queue", Queue)
    async def test_puts_the_row_back_with_fresh_attempts(self, make_scene: Make, queue: Queue) -> None:
        scene = await make_scene(queue)
        before = await scene.collection.find_one({"_id": scene.claimed.id})
        await scene.fail()
        letter = await scene.bury()
        replayed = await scene.replay(letter)
        assert (replayed.state, replayed.ended_by) == (DeadLetterState.REPLAYED, scene.admin.user_id)
        row = await scene.row()
        assert row is not None
        assert row.pop("due_at") <= utc_now()
        assert row.pop("attempts", 0) == 0
        row.pop("visits", None)
        for name in ("due_at", "attempts", "visits"):
            before.pop(name, None)
        assert row == before

    @pytest.mark.parametrize("queue", Queue)
    async def test_twice_and_by_many_at_once_does_it_once(self, make_scene: Make, queue: Queue) -> None:
        scene = await make_scene(queue)
        letter = await scene.bury()
        answers = await asyncio.gather(*(scene.replay(letter) for _ in range(8)))
        assert {answer.state for answer in answers} == {DeadLetterState.REPLAYED}
        await scene.take_again()
        row = await scene.row()
        await scene.replay(letter)
        assert row is not None
        assert await scene.row() == row, "the second one did not touch it"
        events = scene.databases.wallet["audit_events"]
        assert await events.count_documents({"subject_id": letter.id, "action": "dead_letter.replayed"}) == 1

    async def test_leaves_alone_what_came_into_the_queue_meanwhile(self, notice: Scene) -> None:
        letter = await notice.bury()
        await _outbox_scene(notice.databases, OutboxTopic.PASSWORD_NOTICE, notice.subject_id)
        await notice.replay(letter)
        row = await notice.row()
        assert row is not None
        assert row["attempts"] == 1

    async def test_of_one_that_fails_again_makes_another_dead_letter(self, notice: Scene) -> None:
        await notice.replay(await notice.bury())
        scene = await notice._replace(claimed=Claimed(notice.claimed.id, 0)).take_again()
        await scene.bury()
        assert sorted(letter["state"] for letter in await scene.letters()) == ["dead", "replayed"]

    async def test_of_what_was_discarded_is_refused(self, notice: Scene) -> None:
        letter = await notice.bury()
        await notice.discard(letter)
        with pytest.raises(DeadLetterEnded):
            await notice.replay(letter)
        assert await notice.row() is None


class TestReplayingMany:
    @pytest.fixture
    async def scenes(self, databases: Databases, boss: Caller, resources: Resources) -> list[Scene]:
        """Five dead letters with an error of their own."""
        scenes = []
        for _ in range(5):
            user = await make_user(databases)
            claimed = await _outbox_scene(databases, OutboxTopic.PASSWORD_NOTICE, user.id)
            scenes.append(Scene(Queue.OUTBOX, claimed, user.id, databases, boss, resources))
        error_type = f"Error{uuid4().hex}"
        for scene in scenes:
            await bury(scene.queue, scene.claimed, Reason(error_type, "in a test"), 1, databases.client)
        return scenes

    async def _replay(self, scene: Scene, limit: int) -> tuple[int, bool]:
        (letter,) = await scene.letters()
        wanted = DeadLetterFilter(error_type=letter["error_type"])
        return await dead_letters.replay_many(
            scene.databases.client, scene.admin, wanted, limit, None, scene.resources.jobs
        )

    async def test_takes_the_oldest_first_and_says_whether_there_are_more(self, scenes: list[Scene]) -> None:
        assert await self._replay(scenes[0], 3) == (3, True)
        assert [await scene.row() is not None for scene in scenes] == [True, True, True, False, False]
        assert await self._replay(scenes[0], 3) == (2, False)
        assert await self._replay(scenes[0], 3) == (0, False)

    async def test_goes_on_over_several_transactions(
        self, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead_letters, "_AT_ONCE", 2)
        assert await self._replay(scenes[0], 1000) == (5, False)

    async def test_by_several_at_once_puts_each_back_once(self, scenes: list[Scene]) -> None:
        done = await asyncio.gather(*(self._replay(scenes[0], 1000) for _ in range(6)))
        assert sum(letters for letters, _ in done) == 5
        ids = [(await scene.letters())[0]["_id"] for scene in scenes]
        events = scenes[0].databases.wallet["audit_events"]
        assert await events.count_documents({"subject_id": {"$in": ids}}) == 5


class TestDiscarding:
    async def test_says_who_and_why_and_is_an_audit_event(self, notice: Scene) -> None:
        letter = await notice.bury()
        discarded = await notice.discard(letter)
        assert (discarded.state, discarded.reason) == (DeadLetterState.DISCARDED, "Not needed")
        assert await notice.discard(letter) == await dead_letters.get_dead_letter(letter.id)
        found = await notice.databases.wallet["audit_events"].find({"subject_id": letter.id}).to_list()
        assert [(event["action"], event["reason"]) for event in found] == [("dead_letter.discarded", "Not needed")]

    async def test_is_refused_while_money_waits_for_it(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        letter = await scene.bury()
        with pytest.raises(DeadLetterNeeded) as refused:
            await scene.discard(letter)
        assert refused.value.facts == {"subject_id": scene.subject_id, "status": "pending"}
        await scene.databases.wallet["withdrawals"].update_one(
            {"_id": scene.subject_id}, {"$set": {"status": "requires_review"}}
        )
        assert (await scene.discard(letter)).state is DeadLetterState.DISCARDED

    async def test_of_what_was_replayed_is_refused(self, notice: Scene) -> None:
        letter = await notice.bury()
        await notice.replay(letter)
        with pytest.raises(DeadLetterEnded):
            await notice.discard(letter)


class TestGivingBack:
    @pytest.mark.parametrize("queue", Queue)
    async def test_makes_the_row_due_at_once_and_its_attempt_none(self, make_scene: Make, queue: Queue) -> None:
        scene = await make_scene(queue)
        await scene.collection.update_one({"_id": scene.claimed.id}, {"$set": {"due_at": _later()}})
        await give_back(queue, [scene.claimed], was_begun=False)
        row = await scene.row()
        assert row is not None
        assert (row.get("attempts", 0), row["due_at"] <= utc_now()) == (0, True)

    async def test_of_what_was_begun_counts_the_attempt(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        await give_back(scene.queue, [scene.claimed], was_begun=True)
        row = await scene.row()
        assert row is not None
        assert row["attempts"] == 1

    async def test_of_what_somebody_else_has_by_now_changes_nothing(self, make_scene: Make) -> None:
        scene = await make_scene(Queue.OUTBOX)
        await scene.take_again()
        await scene.collection.update_one({"_id": scene.claimed.id}, {"$set": {"due_at": _later()}})
        before = await scene.row()
        await give_back(scene.queue, [scene.claimed], was_begun=False)
        assert await scene.row() == before


def _later() -> datetime:
    return utc_now().replace(microsecond=0) + timedelta(minutes=5)
