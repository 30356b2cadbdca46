"""The circuit breaker: what opens it, who finds out that the bank is back, and that Redis is nobody's trouble."""

import asyncio
import gc
import signal
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from scripts.embedded import RedisServer, free_port, start_redis
from service.gateways import bank_breaker, quick_redis
from service.gateways.bank import (
    BankOrder,
    BankOutcomeUnknown,
    BankRejected,
    BankReport,
    BankState,
    BankUnavailable,
    OrderKind,
    StatementLine,
)
from service.gateways.bank_breaker import BankBreaker, BreakerState
from service.gateways.quick_redis import QuickRedis
from tests.servers import Servers, make_settings

_OPEN_S = 0.05
_FAILURES = 10


class ToldBank:
    """Does what it is told to; `gate` holds every submission up."""

    def __init__(self) -> None:
        self.word: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.submitted: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.statement_s = 0.0

    async def submit(self, order: BankOrder) -> BankReport:
        self.submitted.append(order.reference)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        if self.word is not None:
            raise self.word
        return BankReport(order.reference, BankState.ACCEPTED, order.amount, order.currency, None, None, None)

    async def find(self, reference: str) -> BankReport | None:
        self.submitted.append(reference)
        if self.word is not None:
            raise self.word
        return None

    async def statement(self, day: date) -> list[StatementLine]:
        self.submitted.append(str(day))
        await asyncio.sleep(self.statement_s)
        if self.word is not None:
            raise self.word
        return []


def order_of(account: str | None = None, reference: str | None = None) -> BankOrder:
    return BankOrder(reference or f"wdr_{uuid4().hex}", OrderKind.PAYOUT, 1, "INR", account or f"acc-{uuid4().hex}")


Make = Callable[..., BankBreaker]


@pytest.fixture
def bank() -> ToldBank:
    return ToldBank()


@pytest.fixture
async def redis(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QuickRedis]:
    monkeypatch.setattr(bank_breaker, "_LOOK_S", 0.01)
    monkeypatch.setattr(quick_redis, "_PROBE_S", 0.05)
    redis = QuickRedis(make_settings(servers))
    yield redis
    await redis.close()


@pytest.fixture
async def make(bank: ToldBank, servers: Servers, redis: QuickRedis) -> AsyncIterator[Make]:
    """Breakers of several processes, so to speak, that share a database and thus a state."""
    made: list[BankBreaker] = []
    settings = make_settings(
        servers, bank_breaker_open_s=_OPEN_S, bank_breaker_failures=_FAILURES, bank_timeout_s=0.2, bank_recheck_s=5
    )

    def make(own_redis: QuickRedis = redis, **more: Any) -> BankBreaker:
        made.append(BankBreaker(bank, own_redis, settings.model_copy(update=more)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def state_of(breaker: BankBreaker) -> BreakerState:
    """Each time anew: a type checker takes a property for what it was in the line before."""
    return breaker.state_now


async def fail(breaker: BankBreaker, bank: ToldBank, times: int, account: str | None = None) -> None:
    bank.word = BankOutcomeUnknown("503")
    for _ in range(times):
        with pytest.raises(BankOutcomeUnknown):
            await breaker.submit(order_of(account))


async def open_up(breaker: BankBreaker, bank: ToldBank) -> None:
    await fail(breaker, bank, _FAILURES)
    assert state_of(breaker) is not BreakerState.CLOSED


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 it is Redis that is waited for
            await asyncio.sleep(0.01)


class TestOpening:
    async def test_so_many_failures_in_a_row_open_it_and_then_nobody_asks(self, make: Make, bank: ToldBank) -> None:
        breaker = make(bank_breaker_open_s=60)
        await fail(breaker, bank, _FAILURES - 1)
        assert state_of(breaker) is BreakerState.CLOSED
        assert breaker.retry_after_s() == 0
        await fail(breaker, bank, 1)
        assert state_of(breaker) is BreakerState.OPEN
        with pytest.raises(BankUnavailable) as refused:
            await breaker.submit(order_of())
        assert 59 < refused.value.retry_after_s <= 60
        assert len(bank.submitted) == _FAILURES
        assert breaker.places(64) == 0

    async def test_a_success_in_between_makes_them_count_from_the_beginning(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        for _ in range(3):
            await fail(breaker, bank, _FAILURES - 1)
            bank.word = None
            await breaker.submit(order_of())
        assert state_of(breaker) is BreakerState.CLOSED

    async def test_a_bank_that_says_no_is_well(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        bank.word = BankRejected("invalid_account", "No such account")
        for _ in range(2 * _FAILURES):
            with pytest.raises(BankRejected):
                await breaker.submit(order_of())
        assert state_of(breaker) is BreakerState.CLOSED

    async def test_one_order_again_and_again_does_not_open_it(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        order = order_of()
        bank.word = BankOutcomeUnknown("503")
        for _ in range(5 * _FAILURES):
            with pytest.raises(BankOutcomeUnknown):
                await breaker.submit(order)
        assert state_of(breaker) is BreakerState.CLOSED

    async def test_one_account_alone_needs_five_times_as_many(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        await fail(breaker, bank, 5 * _FAILURES - 1, account="hanging")
        assert state_of(breaker) is BreakerState.CLOSED
        await fail(breaker, bank, 1, account="hanging")
        assert state_of(breaker) is not BreakerState.CLOSED

    @pytest.mark.parametrize("word", [ConnectionResetError(), TimeoutError()])
    async def test_whatever_the_gateway_stumbles_over_is_a_failure(
        self, make: Make, bank: ToldBank, word: Exception
    ) -> None:
        breaker = make()
        bank.word = word
        for _ in range(_FAILURES):
            with pytest.raises((type(word), BankOutcomeUnknown)):
                await breaker.find(f"wdr_{uuid4().hex}")
        assert state_of(breaker) is not BreakerState.CLOSED

    async def test_a_bank_that_hangs_is_one_that_failed_whoever_loses_patience_first(
        self, make: Make, bank: ToldBank
    ) -> None:
        breaker = make(bank_timeout_s=0.05)
        bank.gate.clear()

        async def ask(patience_s: float) -> None:
            async with asyncio.timeout(patience_s):
                await breaker.submit(order_of())

        outcomes = await asyncio.gather(
            *(ask(patience_s) for patience_s in (0.05, 5.0) for _ in range(_FAILURES // 2)), return_exceptions=True
        )
        assert {type(one) for one in outcomes} <= {TimeoutError, BankOutcomeUnknown}
        assert state_of(breaker) is not BreakerState.CLOSED

    async def test_who_goes_away_early_says_nothing_about_the_bank(self, make: Make, bank: ToldBank) -> None:
        breaker = make(bank_timeout_s=60)
        bank.gate.clear()
        tasks = [asyncio.create_task(breaker.submit(order_of())) for _ in range(2 * _FAILURES)]
        await until(lambda: bank.at_once == len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert state_of(breaker) is BreakerState.CLOSED

    async def test_a_visit_counts_once_and_its_last_call_tells(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        for _ in range(_FAILURES):
            async with breaker.visit():
                bank.word = None
                await breaker.find("wdr_1")
                bank.word = BankOutcomeUnknown("503")
                with pytest.raises(BankOutcomeUnknown):
                    await breaker.submit(order_of())
        assert state_of(breaker) is not BreakerState.CLOSED

    async def test_a_visit_that_asked_nothing_is_no_news(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        await fail(breaker, bank, _FAILURES - 1)
        async with breaker.visit():
            pass
        await fail(breaker, bank, 1)
        assert state_of(breaker) is not BreakerState.CLOSED

    async def test_it_can_be_turned_off(self, make: Make, bank: ToldBank) -> None:
        breaker = make(bank_breaker_failures=0)
        await fail(breaker, bank, 10 * _FAILURES)
        assert state_of(breaker) is BreakerState.CLOSED


class TestClosing:
    async def test_one_at_a_time_finds_out_over_all_processes(self, make: Make, bank: ToldBank) -> None:
        breakers = [make(), make()]
        for breaker in breakers:
            await open_up(breaker, bank)
        await asyncio.sleep(_OPEN_S)
        assert state_of(breakers[0]) is BreakerState.HALF_OPEN
        assert breakers[0].places(64) == 1
        bank.word = None
        bank.submitted.clear()
        bank.gate.clear()
        tasks = [asyncio.create_task(breaker.submit(order_of())) for _ in range(10) for breaker in breakers]
        done, pending = await asyncio.wait(tasks, timeout=0.15)
        assert len(bank.submitted) == 1
        assert {type(task.exception()) for task in done} == {BankUnavailable}
        assert len(pending) == 1
        bank.gate.set()
        assert (await pending.pop()).state is BankState.ACCEPTED

    async def test_a_failure_opens_it_again(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        await open_up(breaker, bank)
        await asyncio.sleep(_OPEN_S)
        await fail(breaker, bank, 1)
        with pytest.raises(BankUnavailable):
            await breaker.submit(order_of())

    async def test_a_success_closes_it_and_then_ever_more_go_at_once(self, make: Make, bank: ToldBank) -> None:
        breaker = make(worker_concurrency=8)
        await open_up(breaker, bank)
        await asyncio.sleep(_OPEN_S)
        bank.word = None
        bank.most_at_once = 0
        await breaker.submit(order_of())
        assert state_of(breaker) is BreakerState.CLOSED
        grown = [breaker.places(64)]
        while grown[-1] < 64:
            bank.most_at_once = 0
            await asyncio.gather(*(breaker.submit(order_of()) for _ in range(grown[-1])))
            assert bank.most_at_once <= grown[-1]
            grown.append(breaker.places(64))
        assert grown == [1, 2, 4, 64]

    async def test_more_than_there_is_room_for_wait_for_each_other(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        await open_up(breaker, bank)
        await asyncio.sleep(_OPEN_S)
        bank.word = None
        await breaker.submit(order_of())
        bank.submitted.clear()
        bank.gate.clear()
        tasks = [asyncio.create_task(breaker.submit(order_of())) for _ in range(20)]
        await asyncio.sleep(0.02)
        assert len(bank.submitted) == 1
        bank.gate.set()
        await asyncio.gather(*tasks)
        assert len(bank.submitted) == 20

    async def test_what_began_before_it_opened_closes_nothing(self, make: Make, bank: ToldBank) -> None:
        breaker = make(bank_breaker_open_s=60)
        bank.gate.clear()
        early = asyncio.create_task(breaker.submit(order_of()))
        await until(lambda: bank.at_once == 1)
        bank.word = BankOutcomeUnknown("503")
        for _ in range(_FAILURES):
            with pytest.raises(BankOutcomeUnknown):
                await breaker.find(f"wdr_{uuid4().hex}")
        bank.word = None
        bank.gate.set()
        await early
        assert state_of(breaker) is BreakerState.OPEN

    async def test_a_first_try_that_comes_to_nothing_leaves_the_next_one_to_somebody_else(
        self, make: Make, bank: ToldBank
    ) -> None:
        breaker = make()
        await open_up(breaker, bank)
        await asyncio.sleep(_OPEN_S)
        async with breaker.visit():
            pass
        await asyncio.sleep(0.05)
        bank.word = None
        await breaker.submit(order_of())
        assert state_of(breaker) is BreakerState.CLOSED

    async def test_what_began_before_it_opened_does_not_speak_for_the_one_that_finds_out(
        self, make: Make, bank: ToldBank
    ) -> None:
        breaker = make(bank_timeout_s=60)
        bank.gate.clear()
        early = asyncio.create_task(breaker.submit(order_of()))
        await until(lambda: bank.at_once == 1)
        bank.word = BankOutcomeUnknown("503")
        for _ in range(_FAILURES):
            with pytest.raises(BankOutcomeUnknown):
                await breaker.find(f"wdr_{uuid4().hex}")
        await asyncio.sleep(_OPEN_S)
        async with breaker.visit():
            bank.word = None
            bank.gate.set()
            await early
            assert state_of(breaker) is BreakerState.HALF_OPEN


class TestTellingEachOther:
    async def test_what_one_process_finds_out_the_others_know(self, make: Make, bank: ToldBank) -> None:
        one, other = make(bank_breaker_open_s=60), make(bank_breaker_open_s=60)
        one.start()
        other.start()
        await open_up(one, bank)
        await until(lambda: state_of(other) is BreakerState.OPEN)
        assert other.retry_after_s() == pytest.approx(one.retry_after_s(), abs=0.5)
        assert one._changed_s is not None
        one._changed_s -= 60
        bank.word = None
        await one.submit(order_of())
        await until(lambda: state_of(other) is BreakerState.CLOSED)
        assert other.places(64) == 1

    @pytest.mark.parametrize("ahead_s", [600, -600])
    async def test_a_machine_whose_clock_is_wrong_tells_and_hears_like_any_other(
        self, make: Make, bank: ToldBank, monkeypatch: pytest.MonkeyPatch, ahead_s: float
    ) -> None:
        one, other = make(bank_breaker_open_s=60), make(bank_breaker_open_s=60)
        one.start()
        other.start()
        right = time.time
        with monkeypatch.context() as wrong:
            wrong.setattr(time, "time", lambda: right() + ahead_s)
            await open_up(one, bank)
            await asyncio.sleep(0.05)
        assert 50 < one.retry_after_s() <= 60
        await until(lambda: state_of(other) is BreakerState.OPEN)
        assert 50 < other.retry_after_s() <= 60
        assert one._changed_s is not None
        one._changed_s -= 60
        bank.word = None
        await one.submit(order_of())
        await until(lambda: state_of(other) is BreakerState.CLOSED)

    async def test_a_redis_that_was_emptied_is_told_again(self, make: Make, bank: ToldBank, redis: QuickRedis) -> None:
        one = make(bank_breaker_open_s=60)
        one.start()
        await open_up(one, bank)
        await asyncio.sleep(0.05)
        await redis._client.delete(one._key)
        other = make(bank_breaker_open_s=60)
        other.start()
        await until(lambda: state_of(other) is BreakerState.OPEN)

    @pytest.mark.parametrize("what", ["99999999999999999:opened", "1:what", "what", ""])
    async def test_what_stands_there_and_makes_no_sense_is_nobodys_trouble(
        self, make: Make, bank: ToldBank, redis: QuickRedis, what: str
    ) -> None:
        one, other = make(bank_breaker_open_s=60), make(bank_breaker_open_s=60)
        await redis._client.set(one._key, what)
        one.start()
        await asyncio.sleep(0.05)
        await one.submit(order_of())
        await open_up(one, bank)
        other.start()
        await until(lambda: state_of(other) is BreakerState.OPEN)
        assert not redis.is_away

    async def test_who_ends_at_once_leaves_nothing_undone(self, make: Make) -> None:
        one = make()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            one.start()
            await one.close()
            gc.collect()
        assert [str(warning.message) for warning in warned] == []


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with start_redis(tmp_path / "redis", free_port()) as server:
        yield server


class TestWithoutRedis:
    async def test_each_process_finds_out_for_itself_and_nobody_waits(
        self, make: Make, bank: ToldBank, servers: Servers, own_redis: RedisServer
    ) -> None:
        own = QuickRedis(make_settings(servers, redis_url=own_redis.url))
        breaker = make(own)
        breaker.start()
        own_redis.kill()
        with capture_logs() as logs:
            await open_up(breaker, bank)
            await asyncio.sleep(_OPEN_S)
            bank.word = None
            bank.most_at_once = 0
            bank.gate.clear()
            tasks = [asyncio.create_task(breaker.submit(order_of())) for _ in range(10)]
            await asyncio.wait(tasks, timeout=0.1)
            bank.gate.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert bank.most_at_once == 1
            assert sum(isinstance(one, BankReport) for one in outcomes) == 1
        assert state_of(breaker) is BreakerState.CLOSED
        assert not [line for line in logs if line.get("exc_info")]
        await own.close()

    async def test_a_redis_that_hangs_keeps_nobody_from_the_bank(
        self, make: Make, bank: ToldBank, servers: Servers, own_redis: RedisServer
    ) -> None:
        assert own_redis.process is not None
        own = QuickRedis(make_settings(servers, redis_url=own_redis.url))
        breaker = make(own)
        breaker.start()
        own_redis.process.send_signal(signal.SIGSTOP)
        try:
            await open_up(breaker, bank)
            await asyncio.sleep(_OPEN_S)
            bank.word = None
            await breaker.submit(order_of())
            assert state_of(breaker) is BreakerState.CLOSED
        finally:
            own_redis.process.send_signal(signal.SIGCONT)
        await own.close()


class TestStatements:
    async def test_may_take_longer_than_an_order(self, make: Make, bank: ToldBank) -> None:
        bank.statement_s = 0.1
        assert await make(bank_timeout_s=0.01).statement(date(2026, 11, 20)) == []

    async def test_say_nothing_about_how_orders_fare(self, make: Make, bank: ToldBank) -> None:
        breaker = make()
        bank.word = BankOutcomeUnknown("503")
        for number in range(_FAILURES * 2):
            with pytest.raises(BankOutcomeUnknown):
                await breaker.statement(date(2026, 1, 1) + timedelta(days=number))
        assert state_of(breaker) is BreakerState.CLOSED

    async def test_are_not_asked_for_while_the_bank_is_down(self, make: Make, bank: ToldBank) -> None:
        breaker = make(bank_breaker_open_s=60.0)
        await fail(breaker, bank, _FAILURES)
        asked = len(bank.submitted)
        with pytest.raises(BankUnavailable):
            await breaker.statement(date(2026, 11, 20))
        assert len(bank.submitted) == asked
