"""Streams of events while Redis breaks, or the API itself is restarted: nothing is lost, and nothing comes twice."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from scripts.embedded import RedisServer
from scripts.server_process import tail
from scripts.service_stack import API, WORKER, Stack
from tests.person import Person
from tests.stack_fixtures import QUICK_BANK
from tests.streams import frames_of, hear, hear_until, listening, numbers, socket_url, ticket_of


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {**QUICK_BANK, "WALLET_API_PROCESSES": "2"}
    with Stack(tmp_path_factory.mktemp("streams"), settings=settings) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.start_worker()
        yield stack


@pytest.fixture(autouse=True)
def worker_lives(stack: Stack) -> Iterator[None]:
    """Nobody starts it again: whatever becomes of Redis, it goes on (workers/outliving_redis.py)."""
    yield
    assert stack.is_running(WORKER), tail(stack.log_path(WORKER))


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=30) as client:
        yield client


def _redis_of(stack: Stack) -> RedisServer:
    assert stack.redis is not None
    return stack.redis


async def _pay(sender: Person, recipient: Person, times: int) -> None:
    for _ in range(times):
        answer = await sender.transfer(1, recipient)
        assert answer.status_code == 201, answer.text


class TestRedis:
    async def test_restarted_in_the_middle_it_costs_no_event_and_brings_none_twice(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        sender, recipient = await Person.register(http), await Person.register(http)
        await sender.fund(1_000)
        redis = _redis_of(stack)
        async with listening(stack.base_url, recipient) as one, listening(stack.base_url, recipient) as two:
            await _pay(sender, recipient, 5)
            await hear_until(one, recipient.wallet_id, 5)
            redis.stop()
            try:
                await _pay(sender, recipient, 5)
                # While it is away: read from MongoDB.
                away = await hear_until(one, recipient.wallet_id, 10)
            finally:
                redis.start()
            await _pay(sender, recipient, 5)
            back = await hear_until(one, recipient.wallet_id, 15)
            other = await hear_until(two, recipient.wallet_id, 15)
        assert numbers([*away, *back]) == {recipient.wallet_id: list(range(6, 16))}
        assert numbers(other) == {recipient.wallet_id: list(range(1, 16))}

    async def test_one_that_hangs_holds_nobody_up(self, stack: Stack, http: httpx.AsyncClient) -> None:
        sender, recipient = await Person.register(http), await Person.register(http)
        await sender.fund(1_000)
        process = _redis_of(stack).process
        assert process is not None
        async with listening(stack.base_url, recipient) as stream:
            os.kill(process.pid, signal.SIGSTOP)
            try:
                async with listening(stack.base_url, recipient, {recipient.wallet_id: 0}) as late:
                    await _pay(sender, recipient, 3)
                    heard = [await hear_until(each, recipient.wallet_id, 3) for each in (stream, late)]
            finally:
                os.kill(process.pid, signal.SIGCONT)
        assert [numbers(each) for each in heard] == [{recipient.wallet_id: [1, 2, 3]}] * 2


class TestRestarts:
    async def test_a_stream_is_told_to_come_again_and_goes_on_where_it_was(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        """SIGTERM, with a socket and a stream of Server-Sent Events open: neither keeps the API from ending."""
        sender, recipient = await Person.register(http), await Person.register(http)
        await sender.fund(1_000)
        await _pay(sender, recipient, 2)
        ticket = await ticket_of(recipient)
        async with (
            connect(socket_url(stack.base_url, ticket, {recipient.wallet_id: 0}), proxy=None) as socket,
            http.stream("GET", "/api/v1/events/stream", headers=recipient.headers) as response,
        ):
            assert (await hear(socket))["type"] == "stream.ready"
            await hear_until(socket, recipient.wallet_id, 2)
            frames = frames_of(response)
            await anext(frames)
            await asyncio.to_thread(stack.stop, API)
            with pytest.raises(ConnectionClosed):
                await hear(socket)
            assert socket.close_code == 1012
            last = [frame async for frame in frames]
        assert [frame["event"] for frame in last] == ["stream.ended"]
        await asyncio.to_thread(stack.start_api)
        await _pay(sender, recipient, 2)
        async with listening(stack.base_url, recipient, {recipient.wallet_id: 2}) as again:
            assert numbers(await hear_until(again, recipient.wallet_id, 4)) == {recipient.wallet_id: [3, 4]}
