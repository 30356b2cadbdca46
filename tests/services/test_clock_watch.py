"""The watch over a process's clock, with clocks that a test sets."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from time import monotonic

import pytest
from pymongo.errors import AutoReconnect
from standardwebhooks.webhooks import Webhook

from service.database import Databases
from service.domain import clock
from service.domain.clock import forget_clock, machine_now, utc_now
from service.domain.outbox import OutboxTopic, outbox_row
from service.errors import ClockOff, InvalidSignature, Unauthenticated
from service.gateways.callback_lines import Post
from service.repositories import outbox as outbox_repository
from service.services.access_tokens import issue_access_token, verify_access_token
from service.services.bank_callbacks import verify_signature
from service.services.clock_watch import ClockWatch, watch_of
from service.settings import Settings
from tests.factories import make_user
from tests.logs import own_logs
from workers.bank_simulation import BankWork

BOUND_S = 5.0
TEN_MINUTES = timedelta(minutes=10)
# A machine that is busy may take its time between two lines of a test.
CLOSE = timedelta(seconds=4)


class Clocks:
    """The server is right; the machine is `ahead` of it."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.answer_after_s = 0.0
        self.trouble: Exception | None = None

    async def server(self) -> datetime:
        await asyncio.sleep(self.answer_after_s)
        if self.trouble is not None:
            raise self.trouble
        return machine_now()

    def machine(self) -> datetime:
        return machine_now() + self.ahead

    def watch(self, bound_s: float = BOUND_S) -> ClockWatch:
        return ClockWatch(self.server, bound_s, self.machine)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    """What a test does to the one clock of the process ends with it."""
    monkeypatch.setattr(clock, "_reading", None)
    yield Clocks()
    forget_clock()


class TestAClockThatIsWrong:
    @pytest.mark.parametrize("ahead", [TEN_MINUTES, -TEN_MINUTES], ids=["ahead", "behind"])
    async def test_changes_nothing_of_the_time_that_the_service_goes_by(self, clocks: Clocks, ahead: timedelta) -> None:
        clocks.ahead = ahead
        clock.set_clock(clocks.machine(), 0.0)
        watch = clocks.watch()
        await watch.look()
        assert abs(utc_now() - machine_now()) < CLOSE
        assert watch.difference_s == pytest.approx(ahead.total_seconds(), abs=CLOSE.total_seconds())

    async def test_takes_no_commands_until_it_is_right_again_and_says_so_once(self, clocks: Clocks) -> None:
        watch = clocks.watch()
        await watch.look()
        watch.require_right()
        with own_logs() as lines:
            clocks.ahead = TEN_MINUTES
            for _ in range(3):
                await watch.look()
                assert watch.is_wrong()
                with pytest.raises(ClockOff) as refused:
                    watch.require_right()
                assert refused.value.retry_after_s
            clocks.ahead = timedelta()
            for _ in range(3):
                await watch.look()
                watch.require_right()
        assert [line["event"] for line in lines] == ["clock.off", "clock.right_again"]

    async def test_is_not_judged_by_an_answer_that_took_longer_than_the_difference(self, clocks: Clocks) -> None:
        clocks.ahead, clocks.answer_after_s = timedelta(milliseconds=150), 0.4
        watch = clocks.watch(bound_s=0.1)
        await watch.look()
        assert not watch.is_wrong()
        clocks.ahead, clocks.answer_after_s = TEN_MINUTES, 0.0
        await watch.look()
        clocks.ahead, clocks.answer_after_s = timedelta(), 0.4
        await watch.look()
        assert watch.is_wrong()

    async def test_stays_what_it_was_known_to_be_while_mongodb_is_away(self, clocks: Clocks) -> None:
        watch = clocks.watch()
        clocks.trouble = AutoReconnect("away")
        await watch.look()
        # Nobody knows yet.
        assert (watch.is_wrong(), watch.difference_s) == (True, None)
        clocks.trouble = None
        await watch.look()
        assert not watch.is_wrong()
        clocks.ahead = TEN_MINUTES
        await watch.look()
        clocks.trouble = AutoReconnect("away")
        await watch.look()
        assert watch.is_wrong()
        assert abs(utc_now() - machine_now()) < CLOSE

    async def test_that_is_set_between_two_looks_moves_nothing(
        self, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await clocks.watch().look()
        right = utc_now()
        monkeypatch.setattr(clock, "machine_now", lambda: right + TEN_MINUTES)
        assert right <= utc_now() < right + CLOSE

    async def test_is_measured_against_mongodb(self, databases: Databases, clocks: Clocks) -> None:
        watch = watch_of(databases.client, BOUND_S)
        await watch.look()
        assert watch.difference_s == pytest.approx(0.0, abs=CLOSE.total_seconds())
        del clocks


class TestWhatGoesByIt:
    async def test_leases_a_row_for_as_long_as_was_meant(
        self, databases: Databases, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A row that a machine ten minutes ahead had taken was nobody's for ten minutes."""
        clocks.ahead = TEN_MINUTES
        monkeypatch.setattr(clock, "machine_now", clocks.machine)
        await clocks.watch().look()
        user = await make_user(databases)
        row = outbox_row(OutboxTopic.PASSWORD_NOTICE, user.id, None, utc_now())
        await outbox_repository.insert_many([row], session=None)
        topics = [OutboxTopic.PASSWORD_NOTICE]
        claimed = await outbox_repository.claim(now=utc_now(), lease_s=30.0, limit=1_000, topics=topics)
        (mine,) = [one for one in claimed if one.id == row.id]
        await outbox_repository.delete(mine)
        assert mine.due_at < machine_now() + timedelta(seconds=30) + CLOSE

    @pytest.mark.parametrize("ahead", [TEN_MINUTES, -TEN_MINUTES], ids=["ahead", "behind"])
    def test_takes_access_tokens_of_processes_whose_machine_is_right(
        self, clocks: Clocks, settings: Settings, ahead: timedelta
    ) -> None:
        """The library that reads them goes by the machine's clock, which here is the wrong one."""
        clock.set_clock(clocks.machine() + ahead, monotonic())
        assert verify_access_token(token_of(settings, utc_now()), settings).user_id == "usr_1"
        late = utc_now() - timedelta(seconds=settings.access_token_lifetime_s + 60)
        with pytest.raises(Unauthenticated):
            verify_access_token(token_of(settings, late), settings)

    def test_signs_callbacks_when_they_are_sent_and_reads_them_by_it(self, clocks: Clocks, settings: Settings) -> None:
        work = BankWork(settings)
        post = work.signed({"webhook_id": "msg_1", "payload": {"type": "payment.settled"}})
        # It waited for ten minutes before it was sent, or its sender was suspended.
        clock.set_clock(clocks.machine() + TEN_MINUTES, monotonic())
        assert verify_signature(post.body, post.headers, settings) == "msg_1"
        clock.set_clock(clocks.machine(), monotonic())
        with pytest.raises(InvalidSignature):
            verify_signature(post.body, _signed_at(post, utc_now() - TEN_MINUTES, settings), settings)
        work.close()


class _Somebody:
    """As much of a user as a token needs."""

    id = "usr_1"
    roles = ("user",)
    token_version = 7


def token_of(settings: Settings, at: datetime) -> str:
    return issue_access_token(_Somebody(), settings, at)  # type: ignore[arg-type]  # see above


def _signed_at(post: Post, at: datetime, settings: Settings) -> dict[str, str]:
    signature = Webhook(settings.bank_webhook_secret.get_secret_value()).sign("msg_1", at, post.body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
