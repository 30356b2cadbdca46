"""SIGKILL in the middle of a load, and an emptied Redis: after a restart everything ends, and the books balance."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from uuid import uuid4

import httpx
import pytest
import redis

from scripts.check_ledger import check_ledger
from scripts.server_process import LOOPBACK, free_port
from scripts.service_stack import API, READY_LIMIT_S, WORKER, Stack, api_options
from service.crash_points import EXIT_CODE, CrashPoint
from service.database import Databases
from service.transaction_lifetime import TRANSACTION_LIFETIME_S
from tests.person import Person
from tests.stack_fixtures import QUICK_BANK, databases_of, statuses

# With the quick bank's three attempts, a kill would use up the patience of operations that only have to wait.
_PATIENT = QUICK_BANK | {"WALLET_BANK_ATTEMPT_LIMIT": "15"}

_PEOPLE = 8
_LOAD_S = 4.0
_END_LIMIT_S = 60.0
# Longer than the client for Redis tries once more by itself.
_REDIS_AWAY_S = 6.0


@pytest.fixture
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that may be broken: nobody else uses it."""
    with Stack(tmp_path_factory.mktemp("broken"), settings=_PATIENT) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.start_worker()
        yield stack


@pytest.fixture
async def own_databases(own_stack: Stack) -> AsyncIterator[Databases]:
    async with databases_of(own_stack) as databases:
        yield databases


async def _load(person: Person, seconds: float, sent: dict[str, tuple[str, int]]) -> None:
    """Withdrawals and deposits as fast as answers come; what gets no answer is sent again under its key later."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for kind in ("withdrawals", "deposits"):
            key = uuid4().hex
            sent[key] = (kind, 3)
            await _send(person, key, *sent[key])


async def _send(person: Person, key: str, kind: str, amount: int) -> httpx.Response | None:
    ask = person.withdraw if kind == "withdrawals" else person.deposit
    try:
        return await ask(amount, key=key)
    except httpx.TransportError:
        return None


async def _resend_until_answered(person: Person, sent: dict[str, tuple[str, int]]) -> None:
    """A client that lost an answer repeats the request under its key until it has one."""
    for key, (kind, amount) in sent.items():
        answer = await _send(person, key, kind, amount)
        while answer is None or answer.status_code in (409, 503):
            await asyncio.sleep(0.1)
            answer = await _send(person, key, kind, amount)
        assert answer.status_code == 202, answer.text


async def test_kill_9_of_api_and_worker_and_an_emptied_redis_lose_nothing_and_pay_nothing_twice(
    own_stack: Stack, own_databases: Databases
) -> None:
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=own_stack.base_url, timeout=10, limits=limits) as http:
        people = [await Person.register(http) for _ in range(_PEOPLE)]
        await asyncio.gather(*(person.fund(1_000_000) for person in people))
        sent: list[dict[str, tuple[str, int]]] = [{} for _ in people]
        loads = asyncio.gather(*(_load(person, _LOAD_S, keys) for person, keys in zip(people, sent, strict=True)))
        await asyncio.sleep(_LOAD_S / 4)
        own_stack.kill(WORKER)
        await asyncio.sleep(_LOAD_S / 4)
        own_stack.kill(API)
        redis.Redis.from_url(own_stack.settings["WALLET_REDIS_URL"]).flushall()
        await asyncio.to_thread(own_stack.start_api)
        own_stack.start_worker()
        restarted = time.monotonic()
        await loads
        await asyncio.gather(*(_resend_until_answered(p, keys) for p, keys in zip(people, sent, strict=True)))
        while await statuses(own_databases) & {"pending", "processing"}:
            assert time.monotonic() - restarted < _END_LIMIT_S, "accepted operations have not ended"
            await asyncio.sleep(0.5)
        assert await statuses(own_databases) == {"success"}
        assert sum(len(keys) for keys in sent) > _PEOPLE * 10, "the load has to be one"
    assert await check_ledger(own_databases) == []
    orders = await own_databases.bank["orders"].find({}).to_list()
    assert len(orders) == sum(len(keys) for keys in sent) + _PEOPLE
    assert {len(order["payments"]) for order in orders} == {1}


async def test_kill_9_of_mongodb_in_the_middle_of_a_load_loses_nothing_that_was_accepted(
    own_stack: Stack, own_databases: Databases
) -> None:
    assert own_stack.mongo is not None
    async with httpx.AsyncClient(base_url=own_stack.base_url, timeout=20) as http:
        people = [await Person.register(http) for _ in range(_PEOPLE)]
        await asyncio.gather(*(person.fund(1_000_000) for person in people))
        sent: list[dict[str, tuple[str, int]]] = [{} for _ in people]
        loads = asyncio.gather(*(_load(person, _LOAD_S, keys) for person, keys in zip(people, sent, strict=True)))
        await asyncio.sleep(_LOAD_S / 2)
        await asyncio.to_thread(own_stack.mongo.kill)
        await asyncio.to_thread(own_stack.mongo.start)
        restarted = time.monotonic()
        await loads
        await asyncio.gather(*(_resend_until_answered(p, keys) for p, keys in zip(people, sent, strict=True)))
        while await statuses(own_databases) & {"pending", "processing"}:
            assert time.monotonic() - restarted < _END_LIMIT_S, "accepted operations have not ended"
            await asyncio.sleep(0.5)
        assert await statuses(own_databases) == {"success"}
    assert await check_ledger(own_databases) == []


async def test_sigterm_under_load_ends_api_and_worker_in_time_and_leaves_nothing_half_done(
    own_stack: Stack, own_databases: Databases
) -> None:
    async with httpx.AsyncClient(base_url=own_stack.base_url, timeout=20) as http:
        people = [await Person.register(http) for _ in range(_PEOPLE)]
        await asyncio.gather(*(person.fund(1_000_000) for person in people))
        sent: list[dict[str, tuple[str, int]]] = [{} for _ in people]
        loads = asyncio.gather(*(_load(person, _LOAD_S, keys) for person, keys in zip(people, sent, strict=True)))
        await asyncio.sleep(_LOAD_S / 2)
        processes = {name: own_stack.children[name] for name in (WORKER, API)}
        for name in processes:
            await asyncio.to_thread(own_stack.stop, name)
        # uvicorn ends cleanly and then by the signal that it got; -9 would be the one that had to end it.
        assert processes[WORKER].returncode == 0
        assert processes[API].returncode == -signal.SIGTERM
        await asyncio.to_thread(own_stack.start_api)
        own_stack.start_worker()
        await loads
        await asyncio.gather(*(_resend_until_answered(p, keys) for p, keys in zip(people, sent, strict=True)))
        started = time.monotonic()
        while await statuses(own_databases) & {"pending", "processing"}:
            assert time.monotonic() - started < _END_LIMIT_S, "accepted operations have not ended"
            await asyncio.sleep(0.5)
    assert await check_ledger(own_databases) == []


async def test_a_redis_that_goes_and_comes_back_ends_no_worker_and_delays_work_by_a_sweep_at_most(
    own_stack: Stack, own_databases: Databases
) -> None:
    assert own_stack.redis is not None
    async with httpx.AsyncClient(base_url=own_stack.base_url, timeout=20) as http:
        person = await Person.register(http)
        await person.fund(1_000)
        await asyncio.to_thread(own_stack.redis.stop)
        # No bell rings, and the work is found all the same.
        accepted = await person.withdraw(100)
        assert (await person.ended(accepted.json()))["status"] == "success"
        await asyncio.sleep(_REDIS_AWAY_S)
        assert own_stack.is_running(WORKER)
        await asyncio.to_thread(own_stack.redis.start)
        accepted = await person.withdraw(100)
        assert (await person.ended(accepted.json()))["status"] == "success"
        assert own_stack.is_running(WORKER)
    assert await check_ledger(own_databases) == []


async def _until_ready(http: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if (await http.get("/readyz")).is_success:
                return
        await asyncio.sleep(0.1)
    raise TimeoutError("the second API is not ready")


async def test_an_api_that_dies_with_a_wallet_locked_keeps_another_one_for_no_second(own_stack: Stack) -> None:
    """Its transaction is open and has written: until somebody ends it, MongoDB lets nobody else at the wallet."""
    port = free_port()
    dying = {**own_stack.environment, "WALLET_CRASH_AT": CrashPoint.LEDGER_WRITTEN}
    command = [sys.executable, "-m", "uvicorn", *api_options(host=LOOPBACK, port=port)]
    process = await asyncio.create_subprocess_exec(*command, env=dying, cwd=own_stack.data_dir)
    try:
        async with httpx.AsyncClient(base_url=own_stack.base_url, timeout=20) as http:
            person = await Person.register(http)
            await person.fund(1_000_000)
            async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", timeout=20) as other:
                await _until_ready(other)
                asking = {**person.headers, "Idempotency-Key": uuid4().hex}
                order = {"amount": 100, "currency": "INR", "destination": "bank-account-success"}
                with pytest.raises(httpx.TransportError):
                    await other.post("/api/v1/withdrawals", json=order, headers=asking)
            assert await process.wait() == EXIT_CODE
            began = time.monotonic()
            answer = await person.withdraw(100)
            waited_s = time.monotonic() - began
            assert answer.status_code == 202, answer.text
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    print(f"a dead owner's wallet was free after {waited_s * 1000:.0f} ms")  # noqa: T201 pytest -rP shows it
    assert waited_s < TRANSACTION_LIFETIME_S / 2
