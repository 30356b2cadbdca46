"""What comes over the wire before any request is there: slow, endless or odd heads, on uvicorn as it is started."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import sleep

import orjson
import pytest
import uvicorn
from fastapi import FastAPI
from structlog.testing import capture_logs

from scripts.embedded import free_port
from scripts.service_stack import HTTP_PROTOCOL
from service.controllers import http_protocol
from service.startup import Resources, check_parts

# Patience of the tests, not of the service.
_SOON_S = 20.0
_HEAD = b"POST /api/v1/withdrawals HTTP/1.1\r\nHost: wallet.example\r\n"


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body."""
        async with asyncio.timeout(_SOON_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode().split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return int(status_line.split()[1]), headers, body

    @asynccontextmanager
    async def trickling(self) -> AsyncIterator[None]:
        """A byte now and then, as long as anybody takes it."""

        async def trickle() -> None:
            with suppress(ConnectionError):
                while True:
                    await self.send(b" ")
                    await asyncio.sleep(0.02)

        task = asyncio.create_task(trickle())
        try:
            yield
        finally:
            task.cancel()

    async def is_closed(self) -> bool:
        """Waits for it; whatever is sent before is thrown away."""
        async with asyncio.timeout(_SOON_S):
            try:
                while await self._reader.read(1024):
                    pass
            except ConnectionResetError:
                pass
        return True


@pytest.fixture(scope="module")
async def port(app: FastAPI) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=free_port(), lifespan="off", log_config=None, http=HTTP_PROTOCOL, ws="none", server_header=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield config.port
    server.should_exit = True
    await serving


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(http_protocol, "BODY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(http_protocol, "LINGER_S", 0.2)


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Nobody hears whether the service is ready until it is set."""
    released = asyncio.Event()

    async def check(resources: Resources) -> dict[str, str]:
        await released.wait()
        return await check_parts(resources)

    monkeypatch.setattr("service.controllers.health.check_parts", check)
    return released


@pytest.mark.usefixtures("impatient")
class TestSlowClients:
    async def test_that_say_nothing_are_hung_up_on(self, port: int) -> None:
        async with connected(port) as wire:
            assert await wire.is_closed()

    async def test_that_send_a_head_byte_by_byte_are_told_and_hung_up_on(self, port: int) -> None:
        async with connected(port) as wire:
            async with asyncio.timeout(_SOON_S):
                await wire.send(b"GET /livez HT")
                status, headers, body = await wire.answer()
            assert (status, headers["connection"]) == (408, "close")
            assert b"request_timeout" in body
            assert await wire.is_closed()

    async def test_that_begin_a_second_request_and_stop_are_too(self, port: int) -> None:
        async with connected(port) as wire:
            await wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await wire.answer())[0] == 200
            await wire.send(b"GET /livez HTTP/1.1\r\nHo")
            assert (await wire.answer())[0] == 408
            assert await wire.is_closed()

    async def test_whose_body_trickles_behind_an_answer_are_hung_up_on(self, port: int) -> None:
        async with connected(port) as wire:
            await wire.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx")
            assert (await wire.answer())[0] == 404
            async with wire.trickling():
                assert await wire.is_closed()

    @pytest.mark.parametrize("length", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
    async def test_whose_body_trickles_are_told_and_hung_up_on(self, port: int, length: bytes) -> None:
        async with connected(port) as wire:
            await wire.send(_HEAD + b"Content-Type: application/json\r\n" + length + b"\r\n\r\n")
            if b"chunked" in length:
                await wire.send(b"3e8\r\n")
            async with wire.trickling():
                status, headers, body = await wire.answer()
            assert (status, headers["connection"]) == (408, "close")
            assert b"request_timeout" in body
            assert await wire.is_closed()

    async def test_whose_body_comes_in_pieces_but_in_time_are_served(self, port: int) -> None:
        async with connected(port) as wire:
            for _ in range(2):
                await wire.send(_HEAD + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n")
                await wire.send(b"[")
                await wire.send(b"]")
                assert (await wire.answer())[0] == 401

    async def test_that_send_empty_lines_after_an_answer_are_hung_up_on(self, port: int) -> None:
        async with connected(port) as wire:
            await wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await wire.answer())[0] == 200
            await wire.send(b"\r\n")
            assert await wire.is_closed()

    async def test_that_are_late_with_a_body_after_its_answer_are_hung_up_on(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_protocol, "LINGER_S", _SOON_S)
        async with connected(port) as wire:
            await wire.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
            assert (await wire.answer())[0] == 404
            await wire.send(b"x")
            assert await wire.is_closed()

    async def test_that_hang_up_in_the_middle_of_a_callback_are_no_crash(self, port: int) -> None:
        with capture_logs() as logs:
            async with connected(port) as wire:
                await wire.send(b"POST /webhooks/bank-callback HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
                assert (await wire.answer())[0] == 408
                assert await wire.is_closed()
            async with asyncio.timeout(_SOON_S):
                while not any(line.get("path") == "/webhooks/bank-callback" for line in logs):  # noqa: ASYNC110 a list has no event
                    await asyncio.sleep(0.01)
        assert "request.crashed" not in [line["event"] for line in logs]

    async def test_do_not_get_between_an_answer_and_who_waits_for_it(self, port: int, held_up: asyncio.Event) -> None:
        async with connected(port) as wire:
            await wire.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            await wire.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
            # Longer than anybody's patience here.
            await asyncio.sleep(0.5)
            held_up.set()
            assert (await wire.answer())[0] == 200
            assert (await wire.answer())[0] in (404, 408)

    async def test_others_keep_their_connection(self, port: int) -> None:
        async with connected(port) as wire:
            for _ in range(3):
                await wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await wire.answer())[0] == 200


class TestHeads:
    @pytest.mark.parametrize("endless", [b"GET /" + b"x" * 9000, b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 9000])
    async def test_that_never_end_are_refused(self, port: int, endless: bytes) -> None:
        async with connected(port) as wire:
            await wire.send(endless)
            for _ in range(16):
                await wire.send(b"x" * 9000)
            status, _, body = await wire.answer()
            assert status == 431
            assert b"headers_too_large" in body

    @pytest.mark.parametrize(
        ("head", "expected"),
        [
            (b"GET /livez?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n", (414, b"uri_too_long")),
            (
                b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(101)),
                (431, b"headers_too_large"),
            ),
        ],
        ids=["address", "headers"],
    )
    async def test_that_are_too_large_are_refused(self, port: int, head: bytes, expected: tuple[int, bytes]) -> None:
        async with connected(port) as wire:
            await wire.send(head + b"\r\n")
            status, headers, body = await wire.answer()
            assert status == expected[0]
            assert expected[1] in body
            assert headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize(
        "head",
        [
            b"nonsense\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n b\x00\r\n\r\n",
            _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            _HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
            _HEAD + b"Content-Length: -5\r\n\r\n{}",
            _HEAD + b"Content-Length: 5 5\r\n\r\n{}",
            _HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n{}",
            _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n{}",
            _HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            _HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        ],
        ids=lambda head: head.removeprefix(_HEAD)[:40].decode("latin-1").replace("\r\n", " | "),
    )
    async def test_that_two_readers_could_read_differently_are_refused(self, port: int, head: bytes) -> None:
        async with connected(port) as wire:
            await wire.send(head)
            status, headers, body = await wire.answer()
            assert (status, headers["content-type"]) == (400, "application/problem+json")
            assert b"malformed_request" in body

    async def test_no_answer_says_what_the_server_is(self, port: int) -> None:
        async with connected(port) as wire:
            await wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            _, headers, _ = await wire.answer()
            assert "server" not in headers


class TestRequestsBehindOneAnother:
    async def test_are_all_answered(self, port: int) -> None:
        """Two whole ones in one packet, and a third that comes in two."""
        async with connected(port) as wire:
            request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
            await wire.send(request + request + request[:10])
            await wire.send(request[10:])
            assert [(await wire.answer())[0] for _ in range(3)] == [200, 200, 200]

    async def test_get_their_answers_whatever_comes_behind(self, port: int) -> None:
        async with connected(port) as wire:
            await wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + b"nonsense\r\n\r\n")
            assert (await wire.answer())[0] == 200
            assert await wire.is_closed()

    async def test_are_answered_where_one_breaks_off_that_has_begun_behind_them(
        self, port: int, held_up: asyncio.Event
    ) -> None:
        ready, alive = (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"readyz", b"livez"))
        broken = b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        async with connected(port) as wire:
            await wire.send(ready + alive + broken)
            await asyncio.sleep(0.1)
            held_up.set()
            assert [(await wire.answer())[0] for _ in range(2)] == [200, 200]
            assert await wire.is_closed()

    async def test_do_not_count_towards_the_next_ones_head(self, port: int) -> None:
        body = b"x" * 40_000
        async with connected(port) as wire:
            await wire.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n" + body + b"GET /li")
            assert (await wire.answer())[0] == 404
            await wire.send(b"vez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await wire.answer())[0] == 200


class TestReaders:
    """Of an answer that is longer than what the server and the kernels keep for one connection."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http_protocol, "STALL_S", 0.5)

    @staticmethod
    def _ask(port: int) -> sockets.socket:
        asking = sockets.socket()
        asking.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        asking.connect(("127.0.0.1", port))
        asking.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: wallet.example\r\nConnection: close\r\n\r\n")
        return asking

    async def test_one_that_does_not_read_is_cut_off(self, port: int, app: FastAPI) -> None:
        # Built before, or the first answer takes as long as the reader has.
        length = len(orjson.dumps(app.openapi()))
        with self._ask(port) as asking:
            await asyncio.sleep(2)
            got = await asyncio.to_thread(_read_all, asking, 0)
        assert 0 < got < length / 2

    async def test_one_that_is_slow_gets_all_of_it(self, port: int, app: FastAPI) -> None:
        with self._ask(port) as asking:
            got = await asyncio.to_thread(_read_all, asking, 0.02)
        assert got > len(orjson.dumps(app.openapi()))


def _read_all(asking: sockets.socket, pause_s: float) -> int:
    got = 0
    with suppress(ConnectionResetError):
        while chunk := asking.recv(16_384):
            got += len(chunk)
            sleep(pause_s)
    return got
