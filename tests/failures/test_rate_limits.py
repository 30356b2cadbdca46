"""Rate limits over two processes of the API: exact together, and no trouble when Redis is."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from scripts.embedded import RedisServer
from scripts.service_stack import API, Stack
from tests.person import Person
from tests.stack_fixtures import QUICK_BANK

_GLOBAL = 1000
_SENT = 2000
_ADDRESSES = 50
_CONNECTIONS = 32
# The limit is shared: when it is reached, whoever is a request behind the others still has it.
_BEHIND = 2 * _ADDRESSES
_ME = "/api/v1/me"
# An answer that takes longer is none. A Redis that hangs is waited for longer by anything that waits for it.
_PATIENCE_S = 4.0
_HANGING_S = 7.0
_SPELL_S = 1.5
_SPURIOUS = 6


@contextmanager
def two_processes(folder: pytest.TempPathFactory, **limits: int) -> Iterator[Stack]:
    settings = QUICK_BANK | {name: str(value) for name, value in limits.items()}
    settings |= {"WALLET_API_PROCESSES": "2", "WALLET_TRUSTED_PROXIES": "127.0.0.0/8"}
    with Stack(folder.mktemp("limited"), settings=settings) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        yield stack


@pytest.fixture
def limited_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    limits = {"WALLET_RATE_LIMIT_ANONYMOUS": _GLOBAL, "WALLET_RATE_LIMIT_USER": 300, "WALLET_RATE_LIMIT_ADDRESS": 100}
    with two_processes(tmp_path_factory, **limits) as stack:
        yield stack


@pytest.fixture
def roomy_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    names = ("GLOBAL", "ANONYMOUS", "USER", "ADDRESS")
    with two_processes(tmp_path_factory, **{f"WALLET_RATE_LIMIT_{name}": 10_000_000 for name in names}) as stack:
        yield stack


async def test_two_processes_let_through_what_the_limit_says_and_what_those_behind_are_owed(
    limited_stack: Stack,
) -> None:
    addresses = [f"203.0.113.{number % _ADDRESSES}" for number in range(_SENT)]
    answers: list[httpx.Response] = []

    async def send_what_is_left() -> None:
        # A client of its own: one with a pool spends its time on the pool.
        async with httpx.AsyncClient(base_url=limited_stack.base_url, timeout=60) as client:
            while addresses:
                forwarded = f"198.51.100.1, {addresses.pop()}"
                answers.append(await client.get(_ME, headers={"X-Forwarded-For": forwarded}))

    await asyncio.gather(*(send_what_is_left() for _ in range(_CONNECTIONS)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {401, 429}
    assert _GLOBAL <= statuses[401] <= _GLOBAL + _BEHIND, statuses
    limits_told = Counter(answer.headers["x-ratelimit-limit"] for answer in answers if answer.status_code == 429)
    assert set(limits_told) == {str(_GLOBAL)}


async def test_a_redis_that_hangs_or_stops_in_the_middle_of_it_is_nobodys_trouble(roomy_stack: Stack) -> None:
    redis = roomy_stack.redis
    assert redis is not None
    assert redis.process is not None
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(base_url=roomy_stack.base_url, timeout=30, limits=limits) as patient:
        people = [await Person.register(patient) for _ in range(8)]
    statuses: Counter[int] = Counter()
    async with httpx.AsyncClient(base_url=roomy_stack.base_url, timeout=_PATIENCE_S, limits=limits) as client:
        ended = asyncio.Event()
        load = asyncio.gather(*(_load(client, person, ended, statuses) for person in people))
        await asyncio.sleep(_SPELL_S)
        with _hanging(redis):
            await asyncio.sleep(_HANGING_S)
        # Once for each process that anybody is connected to: that may be one only.
        await _until(lambda: _times_away(roomy_stack) >= 1)
        before = _times_away(roomy_stack)
        await asyncio.to_thread(redis.stop)
        await asyncio.sleep(_SPELL_S)
        await asyncio.to_thread(redis.start)
        await _until(lambda: _times_away(roomy_stack) > before)
        ended.set()
        await load
    assert set(statuses) == {200, 202}
    # Once each way, in each process, for each time that it was away; on a busy machine it may seem so once more.
    assert sum(statuses.values()) > 10 * _times_away(roomy_stack)
    assert _times_away(roomy_stack) <= 4 + _SPURIOUS


async def _load(client: httpx.AsyncClient, person: Person, ended: asyncio.Event, statuses: Counter[int]) -> None:
    person.http = client
    while not ended.is_set():
        for answer in (await person.get("/me"), await person.deposit(100)):
            statuses[answer.status_code] += 1


@contextmanager
def _hanging(redis: RedisServer) -> Iterator[None]:
    """It takes connections, and never answers."""
    assert redis.process is not None
    os.kill(redis.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)


def _times_away(stack: Stack) -> int:
    """How often it was gone and came back, over both processes; 0 while one of them is without it."""
    lines = [line for line in stack.log_path(API).read_text().splitlines() if '"redis.' in line]
    events = Counter(json.loads(line)["event"] for line in lines)
    return events["redis.back"] if events["redis.lost"] == events["redis.back"] else 0


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 it is other processes that are waited for
            await asyncio.sleep(0.05)
