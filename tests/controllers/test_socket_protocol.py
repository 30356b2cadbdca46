"""Sockets and streams on uvicorn as it is started: what ends them, and what does not."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from scripts.embedded import free_port
from scripts.service_stack import HTTP_PROTOCOL, SOCKET_PROTOCOL
from service.controllers import http_protocol, socket_protocol
from service.database import Databases
from service.services import event_feed
from service.services.event_feed import StreamKind
from service.settings import Settings
from service.startup import Resources
from tests.factories import bearer, make_account, run, transfer_of
from tests.person import Person
from tests.streams import hear, hear_until, listening, numbers, socket_url, ticket_of

# Patience of the tests, not of the service.
_SOON_S = 20.0
# More than what the server and the kernels keep for one connection.
_LONG = {f"note {number}": "x" * 256 for number in range(20)}
_MANY = 120


@pytest.fixture(scope="module")
async def base_url(app: FastAPI) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app, port=free_port(), lifespan="off", log_config=None, http=HTTP_PROTOCOL, ws=SOCKET_PROTOCOL
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{config.port}"
    server.should_exit = True
    await serving


@pytest.fixture
async def person(base_url: str, databases: Databases, settings: Settings) -> AsyncIterator[Person]:
    account = await make_account(databases)
    async with httpx.AsyncClient(base_url=base_url, timeout=_SOON_S) as http:
        token = bearer(account.user, settings)["Authorization"].removeprefix("Bearer ")
        yield Person(http, token, account.user.id, account.wallet.id)


async def _pay(databases: Databases, to: Person, times: int) -> None:
    """Long events for them, in one transaction."""
    sender = (await make_account(databases, balance=times)).wallet
    await run(
        databases,
        *(transfer_of(sender, None, 1, to_wallet_id=to.wallet_id, metadata=_LONG) for _ in range(times)),
    )


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SOON_S):
        while not holds():  # noqa: ASYNC110 as above
            await asyncio.sleep(0.01)


def _deaf(base_url: str, request: str) -> sockets.socket:
    """Asks, and never reads."""
    host, _, port = base_url.removeprefix("http://").partition(":")
    deaf = sockets.socket()
    deaf.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    deaf.connect((host, int(port)))
    deaf.sendall(f"{request}\r\nHost: {host}:{port}\r\n".encode())
    return deaf


class TestDeadlines:
    async def test_those_of_requests_do_not_cut_a_socket(
        self, base_url: str, person: Person, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HEAD_TIMEOUT_S", "BODY_TIMEOUT_S", "LINGER_S"):
            monkeypatch.setattr(http_protocol, name, 0.1)
        async with listening(base_url, person, {person.wallet_id: 0}) as socket:
            await asyncio.sleep(0.5)
            await _pay(databases, person, 1)
            assert (await hear(socket))["type"] == "transfer.received"

    async def test_with_the_token_both_kinds_of_streams_end(
        self, base_url: str, person: Person, resources: Resources
    ) -> None:
        async with listening(base_url, person) as socket:
            (feed,) = resources.event_feeds._feeds[person.user_id]
            feed.expires_at = feed.expires_at.replace(year=2020)
            with pytest.raises(ConnectionClosed):
                await hear(socket)
            assert (socket.close_code, socket.close_reason) == (4401, "token_ended")
        async with person.http.stream("GET", "/api/v1/events/stream", headers=person.headers) as response:
            (feed,) = resources.event_feeds._feeds[person.user_id]
            feed.expires_at = feed.expires_at.replace(year=2020)
            rest = (await response.aread()).decode()
        assert 'event: stream.ended\ndata: {"type":"stream.ended","reason":"token_ended"}\n\n' in rest


class TestReaders:
    async def test_one_that_does_not_read_is_dropped_while_others_go_on(
        self, base_url: str, person: Person, databases: Databases, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By WebSocket and by Server-Sent Events: small buffers, never a read, and more to tell than anybody keeps."""
        monkeypatch.setattr(socket_protocol, "STALL_S", 0.5)
        monkeypatch.setattr(http_protocol, "STALL_S", 0.5)
        for _ in range(3):
            await _pay(databases, person, _MANY)
        path = socket_url("", await ticket_of(person), {person.wallet_id: 0})
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        stream = f"Authorization: {person.headers['Authorization']}\r\nLast-Event-ID: {person.wallet_id}:0\r\n\r\n"
        both = _deaf(base_url, f"GET {path} HTTP/1.1"), _deaf(base_url, "GET /api/v1/events/stream HTTP/1.1")
        async with listening(base_url, person, {person.wallet_id: 0}) as reader:
            reading = asyncio.create_task(hear_until(reader, person.wallet_id, 3 * _MANY))
            for deaf, rest in zip(both, (upgrade, stream), strict=True):
                deaf.sendall(rest.encode())
            await _until(lambda: resources.event_feeds.counts.total() == 3)
            # Of the two nothing is asked; that they are thrown out shows in what is left.
            await _until(lambda: resources.event_feeds.counts.total() == 1)
            heard = await reading
            await _pay(databases, person, 1)
            heard += await hear_until(reader, person.wallet_id, 3 * _MANY + 1)
        assert numbers(heard) == {person.wallet_id: list(range(1, 3 * _MANY + 2))}
        for deaf in both:
            got = 0
            with deaf, suppress(ConnectionResetError):
                while chunk := deaf.recv(65536):
                    got += len(chunk)
            assert got < 3 * _MANY * len(str(_LONG))

    async def test_one_for_whom_too_much_waits_is_told_to_come_again(
        self, base_url: str, person: Person, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_feed, "WAITING_LIMIT", 5)
        async with listening(base_url, person) as socket:
            (feed,) = resources.event_feeds._feeds[person.user_id]
            for number in range(7):
                feed.offer(event_feed.Told(person.wallet_id, number + 1, "deposit.pending", b"{}"))
            with pytest.raises(ConnectionClosed):
                await hear_until(socket, person.wallet_id, 8)
            assert (socket.close_code, socket.close_reason) == (1013, "too_slow")


class TestFloods:
    @pytest.mark.parametrize("frame", [0x89, 0x8A, 0x00], ids=["pings", "pongs", "parts"])
    async def test_one_who_sends_what_nobody_waits_for_is_cut_off(
        self, base_url: str, person: Person, resources: Resources, frame: int
    ) -> None:
        """Frames that the application never sees; each costs the process more than it costs to send."""
        async with listening(base_url, person, ping_interval=None) as socket:
            if frame == 0x00:
                await _send_raw(socket, b"\x01\x80\0\0\0\0")
            await _send_raw(socket, bytes((frame, 0x80, 0, 0, 0, 0)) * 1_300)
            await (await socket.ping())
            await _send_raw(socket, bytes((frame, 0x80, 0, 0, 0, 0)) * 1_300)
            await _until(lambda: not resources.event_feeds.counts.total())
            await asyncio.wait_for(socket.wait_closed(), _SOON_S)
            assert socket.close_code == 1006

    async def test_in_the_next_window_there_is_room_again(
        self, base_url: str, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(socket_protocol, "WINDOW_S", 0.0)
        async with listening(base_url, person, ping_interval=None) as socket:
            for _ in range(4):
                await _send_raw(socket, bytes((0x89, 0x80, 0, 0, 0, 0)) * 1_000)
                await (await socket.ping())


async def _send_raw(socket: ClientConnection, sent: bytes) -> None:
    """Past the library, which would keep its own pings apart."""
    socket.transport.write(sent)
    await asyncio.sleep(0)


class TestRoom:
    async def test_the_eleventh_of_one_user_is_429_until_one_is_closed(self, base_url: str, person: Person) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(9):
                await stack.enter_async_context(listening(base_url, person))
            async with listening(base_url, person):
                with pytest.raises(InvalidStatus) as refused:
                    await stack.enter_async_context(connect(socket_url(base_url, await ticket_of(person)), proxy=None))
                assert refused.value.response.status_code == 429
                answer = await person.get("/events/stream")
                assert (answer.status_code, answer.json()["error"]) == (429, "too_many_streams")
            async with asyncio.timeout(_SOON_S):
                while True:
                    with suppress(InvalidStatus):
                        await stack.enter_async_context(listening(base_url, person))
                        break

    async def test_nothing_of_a_stream_is_left_when_it_is_over(
        self, base_url: str, person: Person, resources: Resources
    ) -> None:
        async with listening(base_url, person):
            assert resources.event_feeds.counts[StreamKind.WEBSOCKET] == 1
        async with person.http.stream("GET", "/api/v1/events/stream", headers=person.headers):
            assert resources.event_feeds.counts[StreamKind.SSE] == 1
        await _until(lambda: not resources.event_feeds.counts.total())
        assert not resources.event_feeds._feeds
