"""The bank down; Redis killed, emptied and frozen; all under load: nothing is refused, lost or paid twice for it."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest
from redis import Redis as SyncRedis

from scripts.check_ledger import check_ledger
from scripts.service_stack import API, WORKER, Stack
from service.database import Databases
from service.domain.clock import utc_now
from tests.person import Person
from tests.stack_fixtures import QUICK_BANK, databases_of, statuses

_SETTINGS = QUICK_BANK | {
    # Three visits without an answer would leave an order to a person: those while the bank is down do not count.
    "WALLET_BANK_ATTEMPT_LIMIT": "3",
    # On a busy machine too, a bank that is up answers within it.
    "WALLET_BANK_TIMEOUT_S": "3",
    "WALLET_BANK_RECHECK_S": "6",
    "WALLET_BANK_BREAKER_FAILURES": "4",
    "WALLET_BANK_BREAKER_OPEN_S": "0.5",
}
_PEOPLE = 6
_PAUSE_S = 0.1
_OUTAGE_S = 6.0
_FROZEN_S = 10.0
# Longer than MongoDB keeps a transaction, and shorter than the clients of this load wait.
_API_FROZEN_S = 8.0
_SPELL_S = 1.5
_END_LIMIT_S = 60.0


@pytest.fixture(scope="module")
def hardy_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("hardy"), settings=_SETTINGS) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.start_worker()
        yield stack


@pytest.fixture
async def hardy_databases(hardy_stack: Stack) -> AsyncIterator[Databases]:
    async with databases_of(hardy_stack) as databases:
        yield databases


@dataclass
class Load:
    """Deposits and withdrawals of several people, each from an account of their own, until it is told to end."""

    answers: Counter[int] = field(default_factory=Counter)
    hints: list[int] = field(default_factory=list)
    has_ended: bool = False

    async def go_on(self, person: Person, account: str) -> None:
        while not self.has_ended:
            for answer in (await person.deposit(3, source=account), await person.withdraw(3, destination=account)):
                self.answers[answer.status_code] += 1
                if "Retry-After" in answer.headers:
                    self.hints.append(int(answer.headers["Retry-After"]))
            await asyncio.sleep(_PAUSE_S)

    async def during(self, seconds: float) -> int:
        """How many were accepted meanwhile."""
        before = self.answers[202]
        await asyncio.sleep(seconds)
        return self.answers[202] - before


@asynccontextmanager
async def _under_load(stack: Stack) -> AsyncIterator[Load]:
    limits = httpx.Limits(max_connections=64)
    load = Load()
    # Nobody is kept waiting either.
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=10, limits=limits) as http:
        people = [await Person.register(http) for _ in range(_PEOPLE)]
        await asyncio.gather(*(person.fund(1_000) for person in people))
        running = asyncio.gather(
            *(load.go_on(person, f"bank-account-{number}-success") for number, person in enumerate(people))
        )
        try:
            await load.during(_SPELL_S)
            yield load
            await load.during(_SPELL_S)
        finally:
            load.has_ended = True
            await running


async def _all_end_well(databases: Databases) -> None:
    async with asyncio.timeout(_END_LIMIT_S):
        while await statuses(databases) & {"pending", "processing"}:  # noqa: ASYNC110 another process works
            await asyncio.sleep(0.2)
    assert await statuses(databases) == {"success"}
    assert await check_ledger(databases) == []
    orders = await databases.bank["orders"].find({}).to_list()
    accepted = [await databases.wallet[name].count_documents({}) for name in ("deposits", "withdrawals")]
    assert len(orders) == sum(accepted)
    assert {len(order["payments"]) for order in orders} == {1}


def _events(stack: Stack) -> Counter[str]:
    lines = stack.log_path(WORKER).read_text().splitlines()
    return Counter(json.loads(line)["event"] for line in lines if line.startswith("{"))


async def test_a_bank_that_is_down_under_load_keeps_nothing_from_being_accepted_and_ended_later(
    hardy_stack: Stack, hardy_databases: Databases
) -> None:
    conditions = hardy_databases.bank["conditions"]
    down = {"down_until": utc_now() + timedelta(hours=1), "hangs": False}
    async with _under_load(hardy_stack) as load:
        await conditions.update_one({"_id": "bank"}, {"$set": down}, upsert=True)
        async with asyncio.timeout(_END_LIMIT_S):
            while not _events(hardy_stack)["bank.breaker_open"]:  # noqa: ASYNC110 another process opens it
                await asyncio.sleep(0.1)
        assert await load.during(_OUTAGE_S) > 0
        waiting = await hardy_databases.wallet["withdrawals"].find({"status": "pending", "attempts": 0}).to_list()
        assert waiting, "what is accepted waits as it was accepted"
        health = await asyncio.to_thread(httpx.get, f"{hardy_stack.base_url}/readyz")
        assert health.is_success
        await conditions.update_one({"_id": "bank"}, {"$set": {"down_until": None}})
    assert set(load.answers) == {202}
    assert load.hints, "whoever asks is told when it is worth asking again"
    await _all_end_well(hardy_databases)
    events = _events(hardy_stack)
    assert events["bank.still_down"] >= 1
    assert events["bank.breaker_closed"] >= 1
    assert events["operation.requires_review"] == 0


async def test_a_redis_that_is_killed_emptied_and_frozen_under_load_stops_neither_money_nor_workers(
    hardy_stack: Stack, hardy_databases: Databases
) -> None:
    redis = hardy_stack.redis
    assert redis is not None
    worker = hardy_stack.children[WORKER].pid
    async with _under_load(hardy_stack) as load:
        await asyncio.to_thread(redis.kill)
        assert await load.during(_SPELL_S) > 0
        await asyncio.to_thread(redis.start)
        before = load.answers[202]
        for _ in range(3):
            await asyncio.to_thread(_empty, hardy_stack)
            await load.during(_SPELL_S / 3)
        assert load.answers[202] > before
        assert redis.process is not None
        redis.process.send_signal(signal.SIGSTOP)
        try:
            # Whoever waited for it would be answered once, on the way.
            assert await load.during(_FROZEN_S) > 5 * _PEOPLE
        finally:
            redis.process.send_signal(signal.SIGCONT)
    assert set(load.answers) == {202}
    await _all_end_well(hardy_databases)
    assert hardy_stack.is_running(WORKER)
    assert hardy_stack.children[WORKER].pid == worker


def _empty(stack: Stack) -> None:
    with SyncRedis.from_url(stack.settings["WALLET_REDIS_URL"]) as client:
        client.flushall()


async def test_an_api_that_is_frozen_under_load_goes_on_by_itself(
    hardy_stack: Stack, hardy_databases: Databases
) -> None:
    """Its transaction is ended meanwhile, its connections and its patience are over when it wakes."""
    api = hardy_stack.children[API].pid
    async with _under_load(hardy_stack) as load:
        os.kill(api, signal.SIGSTOP)
        try:
            await load.during(_API_FROZEN_S)
        finally:
            os.kill(api, signal.SIGCONT)
        async with asyncio.timeout(_END_LIMIT_S):
            while not await load.during(_SPELL_S):
                pass
        health = await asyncio.to_thread(httpx.get, f"{hardy_stack.base_url}/readyz")
        assert health.is_success
    # What had waited past the ledger's patience is asked to come again.
    assert set(load.answers) <= {202, 503}
    await _all_end_well(hardy_databases)
    assert hardy_stack.children[API].pid == api
    assert hardy_stack.is_running(API)
