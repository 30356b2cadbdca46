"""Handshakes of WebSockets that are none, and more connections than a process has room for, on a real server."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import orjson
import pytest
import uvicorn
from fastapi import FastAPI

from scripts.embedded import free_port
from scripts.service_stack import HTTP_PROTOCOL, SOCKET_PROTOCOL
from service.controllers import socket_protocol
from service.controllers import sockets as socket_routes
from service.controllers.connections import CONNECTIONS, Connections
from service.settings import Settings
from tests.security.wire import Server

# Patience of the test, not of the service.
_SOON_S = 20.0
_PATH = "/api/v1/ws"
_HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_SECURITY = ("x-content-type-options", "content-security-policy", "x-frame-options", "referrer-policy", "cache-control")


class Trial(NamedTuple):
    name: str
    content: bytes
    status: int


def _head(*more: str, path: str = _PATH, method: str = "GET", version: str = "1.1", handshake: int = 4) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: wallet.example", *_HANDSHAKE[:handshake], *more]
    return "\r\n".join([*lines, "", ""]).encode()


_TRIALS = [
    Trial("a length", _head("Content-Length: 1") + b"x", 426),
    Trial("a length, and no body", _head("Content-Length: 1"), 426),
    Trial("chunks", _head("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n", 426),
    Trial("a length, on a path of nobody's", _head("Content-Length: 1", path="/nowhere") + b"x", 404),
    Trial("a length, where a token is needed", _head("Content-Length: 1", path="/api/v1/me") + b"x", 401),
    Trial("200 headers", _head(*(f"X-{number}: 1" for number in range(200))), 431),
    Trial("a header of 9 kB", _head("X-Long: " + "x" * 9_000), 426),
    Trial("an address of 9 kB", _head(path=f"{_PATH}?ticket=" + "x" * 9_000), 414),
    Trial("another method", _head("Content-Length: 0", method="POST"), 405),
    Trial("an old version of HTTP", _head(version="1.0"), 426),
    Trial("another version of the protocol", _head("Sec-WebSocket-Version: 8", handshake=2), 426),
    Trial("no key", _head(handshake=3), 426),
    Trial("a key that is none", _head("Sec-WebSocket-Key: x", handshake=3), 426),
    Trial("two keys", _head(_HANDSHAKE[3]), 426),
    Trial("an extension that is no word", _head("Sec-WebSocket-Extensions: ;;,"), 401),
    Trial("another protocol", _head("Connection: Upgrade", "Upgrade: h2c", handshake=0), 426),
    Trial("no upgrade at all", _head(handshake=0), 426),
    Trial("a path of nobody's", _head(path="/nowhere"), 404),
    Trial("no ticket", _head(), 401),
    Trial("a ticket that is none", _head(path=f"{_PATH}?ticket=x"), 401),
    Trial("a page of another origin", _head("Origin: https://evil.example"), 403),
    Trial("a query that is none", _head(path=f"{_PATH}?ticket=%ff"), 422),
]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def _answer(reader: asyncio.StreamReader) -> Answer:
    async with asyncio.timeout(_SOON_S):
        head = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(status_line.split()[1]), headers, body)


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(_SOON_S):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def _try(server: Server, trial: Trial) -> tuple[str | None, str]:
    """What is wrong with the answer, and the request's id."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(trial.content)
        await writer.drain()
        answer = await _answer(reader)
        if answer.status != trial.status:
            return f"{trial.name}: {answer.status} instead of {trial.status}", ""
        missing = [name for name in _SECURITY if name not in answer.headers]
        if missing or answer.headers.get("content-type") != "application/problem+json":
            return f"{trial.name}: without {missing}, {answer.headers.get('content-type')}", ""
        if b"Upgrade:" in trial.content and not await _is_closed(reader):
            return f"{trial.name}: more came after the answer", ""
        request_id: str = orjson.loads(answer.body)["request_id"]
    except TimeoutError:
        return f"{trial.name}: neither an answer nor an end", ""
    else:
        return None, request_id
    finally:
        writer.close()


class TestAHandshakeThatIsRefused:
    async def test_is_answered_closed_and_logged_as_any_request_is(self, server: Server) -> None:
        already = server.log.stat().st_size
        found = await asyncio.gather(*(_try(server, trial) for trial in _TRIALS))
        assert [wrong for wrong, _ in found if wrong] == []
        lines = [orjson.loads(line) for line in server.log.read_bytes()[already:].splitlines()]
        assert [line for line in lines if line["level"] not in {"info", "debug"}] == []
        statuses = {line["request_id"]: line["status"] for line in lines if line["event"] == "request.finished"}
        assert [statuses.get(request_id) for _, request_id in found] == [trial.status for trial in _TRIALS]

    async def test_hides_no_request_behind_it(self, server: Server) -> None:
        """What stands behind an upgrade is nobody's request: a proxy in front may have taken it for a body."""
        hidden = b"GET /livez HTTP/1.1\r\nHost: wallet.example\r\n\r\n"
        for content in (_head("Content-Length: 1") + b"x" + hidden, _head("Upgrade: h2c", handshake=1) + hidden):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(content)
            await _answer(reader)
            writer.write(hidden)
            assert await _is_closed(reader)
            writer.close()


class Face(NamedTuple):
    port: int
    connections: Connections


@asynccontextmanager
async def _serving(app: FastAPI, settings: Settings, **limits: int) -> AsyncIterator[Face]:
    config = uvicorn.Config(
        app,
        host="0.0.0.0",  # noqa: S104 all of 127/8, so that there are several addresses
        port=free_port(),
        lifespan="off",
        log_config=None,
        http=HTTP_PROTOCOL,
        ws=SOCKET_PROTOCOL,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0.01)
    connections = Connections(settings.model_copy(update=limits))
    server.lifespan.state[CONNECTIONS] = connections
    yield Face(config.port, connections)
    server.should_exit = True
    await serving


class Caller(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def _call(stack: AsyncExitStack, port: int, address: str) -> Caller:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0), family=sockets.AF_INET)
    stack.callback(writer.close)
    return Caller(reader, writer)


async def _ask(caller: Caller) -> int:
    caller.writer.write(b"GET /livez HTTP/1.1\r\nHost: wallet.example\r\n\r\n")
    return (await _answer(caller.reader)).status


class AtWork(asyncio.Transport):
    """A connection that is not idle until it is told to be, and counts how often somebody looks."""

    looks = 0

    def __init__(self) -> None:
        super().__init__()
        self.is_idle = False

    def get_protocol(self) -> Any:
        AtWork.looks += 1
        return self

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...


class TestConnections:
    async def test_of_one_address_are_bounded_and_others_get_in(self, app: FastAPI, settings: Settings) -> None:
        async with (
            _serving(app, settings, connections_limit=100, connections_per_address=5) as face,
            AsyncExitStack() as stack,
        ):
            callers = [await _call(stack, face.port, "127.0.0.2") for _ in range(5)]
            assert [await _ask(caller) for caller in callers] == [200] * 5
            refused = await _call(stack, face.port, "127.0.0.2")
            answer = await _answer(refused.reader)
            assert (answer.status, orjson.loads(answer.body)["error"]) == (503, "too_many_connections")
            assert answer.headers["retry-after"] == "1"
            assert [name for name in _SECURITY if name not in answer.headers] == []
            assert await _is_closed(refused.reader)
            assert await _ask(await _call(stack, face.port, "127.0.0.3")) == 200
            callers[0].writer.close()
            await _until_open(face.connections, 5)
            assert await _ask(await _call(stack, face.port, "127.0.0.2")) == 200

    async def test_that_do_nothing_give_way_when_there_is_no_room_and_those_at_work_do_not(
        self, app: FastAPI, settings: Settings
    ) -> None:
        async with (
            _serving(app, settings, connections_limit=12, connections_per_address=6) as face,
            AsyncExitStack() as stack,
        ):
            quiet = await _call(stack, face.port, "127.0.0.2")
            assert await _ask(quiet) == 200
            crowd = [await _call(stack, face.port, f"127.0.0.{3 + number % 2}") for number in range(12)]
            await _until_open(face.connections, 12)
            assert await _ask(await _call(stack, face.port, "127.0.0.5")) == 200
            # Whoever has one is not who makes it narrow.
            assert await _ask(quiet) == 200
            assert sum(caller.reader.at_eof() for caller in crowd) >= 1

    async def test_of_one_ipv6_network_are_bounded_by_64_56_and_48_bits(self, settings: Settings) -> None:
        connections = Connections(settings.model_copy(update={"connections_limit": 100, "connections_per_address": 2}))

        def admitted(*networks: str) -> int:
            return sum(connections.admit(asyncio.Transport(), f"2001:db8:{network}::1") for network in networks)

        assert admitted("1:1", "1:1", "1:1") == 2
        assert admitted("1:2", "1:3", "1:4", "1:5") == 2
        assert admitted(*(f"1:{number}00" for number in range(1, 9))) == 4
        assert admitted("2:1") == 1

    async def test_in_a_full_process_cost_the_same_however_many_are_open(self, settings: Settings) -> None:
        limits = {"connections_limit": 300, "connections_per_address": 0}
        connections = Connections(settings.model_copy(update=limits))
        opened = [AtWork() for _ in range(300)]
        for number, transport in enumerate(opened):
            assert connections.admit(transport, f"10.0.{number % 100}.1")
        AtWork.looks = 0
        assert not connections.admit(AtWork(), "10.1.0.1")
        assert 0 < AtWork.looks <= 64
        # What is idle is found all the same, a few attempts later.
        opened[250].is_idle = True
        assert any(connections.admit(AtWork(), "10.1.0.1") for _ in range(5))
        assert len(connections) == 300

    async def test_of_proxies_that_are_trusted_are_not_bounded_by_address(self, settings: Settings) -> None:
        limits = {"connections_limit": 8, "connections_per_address": 2, "trusted_proxies": ("127.0.0.2/32",)}
        connections = Connections(Settings.model_validate(settings.model_dump() | limits))
        assert [connections.admit(asyncio.Transport(), "127.0.0.2") for _ in range(9)] == [True] * 8 + [False]


async def _until_open(connections: Connections, count: int) -> None:
    async with asyncio.timeout(_SOON_S):
        while len(connections) > count - 1 and len(connections) != count:  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.01)


class TestAHandshakeThatTakesTooLong:
    async def test_is_answered_and_closed(
        self, app: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held = asyncio.Event()

        async def admit(*_: object) -> None:
            await held.wait()

        monkeypatch.setattr(socket_routes, "_admit", admit)
        monkeypatch.setattr(socket_protocol, "HANDSHAKE_TIMEOUT_S", 0.1)
        async with (
            _serving(app, settings, connections_limit=9, connections_per_address=9) as face,
            AsyncExitStack() as stack,
        ):
            caller = await _call(stack, face.port, "127.0.0.1")
            caller.writer.write(_head())
            answer = await _answer(caller.reader)
            assert (answer.status, orjson.loads(answer.body)["error"]) == (503, "service_unavailable")
            assert [name for name in _SECURITY if name not in answer.headers] == []
            assert await _is_closed(caller.reader)
            held.set()
