"""Workers that are told to end, and asked whether they are well: with load, without Redis, and more than once."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from scripts.check_ledger import check_ledger
from scripts.service_stack import WORKER, Stack
from service.database import Databases
from service.domain.clock import utc_now
from tests.person import Person
from tests.stack_fixtures import QUICK_BANK, databases_of

_GRACE_S = 4.0
# For what closes after the grace.
_FAREWELL_S = 6.0
_PEOPLE = 6
_EACH = 20
_END_LIMIT_S = 60.0
_SOON_S = 20.0

_SETTINGS = QUICK_BANK | {"WALLET_BANK_ATTEMPT_LIMIT": "15", "WALLET_WORKER_GRACE_S": str(_GRACE_S)}


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("ended"), settings=_SETTINGS) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        yield stack


@pytest.fixture(scope="module")
async def own_databases(own_stack: Stack) -> AsyncIterator[Databases]:
    async with databases_of(own_stack) as databases:
        yield databases


@pytest.fixture(scope="module")
async def people(own_stack: Stack) -> AsyncIterator[list[Person]]:
    """With money, by a worker of their own."""
    async with httpx.AsyncClient(base_url=own_stack.base_url, timeout=20) as http:
        own_stack.start_worker("first")
        people = [await Person.register(http) for _ in range(_PEOPLE)]
        await asyncio.gather(*(person.fund(1_000_000) for person in people))
        await asyncio.to_thread(own_stack.stop, "first")
        yield people


async def _ask_for_many(people: list[Person]) -> None:
    answers = await asyncio.gather(*(person.withdraw(100) for person in people for _ in range(_EACH)))
    assert {answer.status_code for answer in answers} == {202}


async def _is_at_work(own_stack: Stack, databases: Databases) -> None:
    """Until it has told of itself, which it does when it begins."""
    started = time.monotonic()
    while await databases.wallet["workers"].find_one({"stopped_at": None}) is None:
        assert time.monotonic() - started < _SOON_S, own_stack.log_path(WORKER).read_text()[-2000:]
        await asyncio.sleep(0.005)


async def _ended(stack: Stack, databases: Databases) -> None:
    """A new worker brings everything to its end."""
    stack.start_worker()
    started = time.monotonic()
    while await databases.wallet["withdrawals"].find_one({"status": {"$in": ["pending", "processing"]}}):
        assert time.monotonic() - started < _END_LIMIT_S, "accepted operations have not ended"
        await asyncio.sleep(0.2)
    assert await check_ledger(databases) == []


async def _told_to_end(stack: Stack, *signals: signal.Signals) -> tuple[int, float]:
    """Its exit status, and how long it took."""
    process, started = stack.children.pop(WORKER), time.monotonic()
    for number in signals:
        process.send_signal(number)
        await asyncio.sleep(0.05)
    try:
        status = await asyncio.to_thread(process.wait, _GRACE_S + _FAREWELL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    return status, time.monotonic() - started


async def test_told_to_end_under_load_it_leaves_nothing_that_others_would_have_to_wait_for(
    own_stack: Stack, own_databases: Databases, people: list[Person]
) -> None:
    await _ask_for_many(people)
    own_stack.start_worker()
    await _is_at_work(own_stack, own_databases)
    # Whoever is impatient changes nothing.
    status, _ = await _told_to_end(own_stack, signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    assert status == 0
    # What the bank has not heard of is there to be taken.
    wallet = own_databases.wallet
    pending = [row["_id"] for row in await wallet["withdrawals"].find({"status": "pending"}, {"_id": 1}).to_list()]
    leased = {"subject_id": {"$in": pending}, "topic": "bank_order", "due_at": {"$gt": utc_now()}}
    assert await wallet["outbox"].count_documents(leased) == 0
    assert await wallet["workers"].count_documents({"stopped_at": None}) == 0
    await _ended(own_stack, own_databases)
    assert (await _told_to_end(own_stack, signal.SIGTERM))[0] == 0


@pytest.mark.parametrize("how", ["gone", "frozen"])
async def test_told_to_end_while_redis_is_away_it_ends_as_well_and_in_time(
    own_stack: Stack, own_databases: Databases, people: list[Person], how: str
) -> None:
    assert own_stack.redis is not None
    assert own_stack.redis.process is not None
    redis_process = own_stack.redis.process
    own_stack.start_worker()
    await _ask_for_many(people)
    await _is_at_work(own_stack, own_databases)
    if how == "gone":
        await asyncio.to_thread(own_stack.redis.kill)
    else:
        redis_process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(0.5)
        status, took_s = await _told_to_end(own_stack, signal.SIGTERM)
    finally:
        if how == "gone":
            await asyncio.to_thread(own_stack.redis.start)
        else:
            redis_process.send_signal(signal.SIGCONT)
    assert status == 0, f"after {took_s:.1f} s"
    await _ended(own_stack, own_databases)
    assert (await _told_to_end(own_stack, signal.SIGTERM))[0] == 0


async def test_arq_check_tells_a_worker_that_is_there_from_one_that_is_not_and_finds_it_again_after_an_outage(
    own_stack: Stack,
) -> None:
    assert own_stack.redis is not None
    assert await _check(own_stack) == 1, "nobody is there"
    own_stack.start_worker()
    await _until_checked(own_stack)
    await asyncio.to_thread(own_stack.redis.kill)
    started = time.monotonic()
    assert await _check(own_stack) == 1, "nobody can tell"
    assert time.monotonic() - started < _SOON_S, "it has to say so, and not to wait"
    await asyncio.to_thread(own_stack.redis.start)
    await _until_checked(own_stack)
    assert (await _told_to_end(own_stack, signal.SIGTERM))[0] == 0
    assert await _check(own_stack) == 1, "it has left"


async def _check(stack: Stack) -> int:
    """As the container's health check asks."""
    process = await asyncio.create_subprocess_exec(
        *stack.worker_command()[:-1], "--check", stack.worker_command()[-1],
        env=stack.environment, cwd=stack.data_dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return await asyncio.wait_for(process.wait(), _SOON_S)


async def _until_checked(stack: Stack) -> None:
    started = time.monotonic()
    while await _check(stack) != 0:
        assert time.monotonic() - started < _SOON_S
