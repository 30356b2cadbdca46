"""A receiver of webhooks as somebody else would run it: a real server on loopback that answers what it is told."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

LOOPBACK = "127.0.0.1"
LOOPBACK_6 = "::1"


class Received(NamedTuple):
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Reply(NamedTuple):
    code: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Receiver:
    """`answer` may be set to anything; without it, everything is taken."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.requests: list[Received] = []
        self._news = asyncio.Condition()
        self._serving: set[asyncio.Task[Any]] = set()
        self.at_once = 0
        self.most_at_once = 0
        # Without a word, as soon as somebody calls.
        self.hangs_up = False
        self.answer: Callable[[Received], Awaitable[Reply | bytes]] = self._take

    @staticmethod
    async def _take(_received: Received) -> Reply:
        return Reply()

    def answers(self, *replies: Reply) -> None:
        """One after the other; the last one from then on."""
        waiting = list(replies)

        async def answer(_received: Received) -> Reply:
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

        self.answer = answer

    async def wait_for(self, count: int) -> None:
        """Until so many requests have come."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)

    def url(self, path: str = "/events") -> str:
        return f"http://{LOOPBACK}:{self.port}{path}"

    async def close(self) -> None:
        """Ends what is still being answered."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.hangs_up:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            # Cancelled at the end, which asyncio's own server would take for a defect.
            with suppress(OSError, asyncio.IncompleteReadError, IndexError, ValueError, asyncio.CancelledError):
                await self._serve_one(reader, writer)
        finally:
            self.at_once -= 1
            writer.close()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
            self._serving.discard(task)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        received = Received(method, target, headers, body)
        self.requests.append(received)
        async with self._news:
            self._news.notify_all()
        reply = await self.answer(received)
        writer.write(reply if isinstance(reply, bytes) else _rendered(reply))
        await writer.drain()


def _rendered(reply: Reply) -> bytes:
    headers = {"content-length": str(len(reply.body)), "connection": "close", **reply.headers}
    lines = [f"HTTP/1.1 {reply.code} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + reply.body


@asynccontextmanager
async def running_receiver(tls: ssl.SSLContext | None = None, *, on_both: bool = False) -> AsyncIterator[Receiver]:
    """On a free port of 127.0.0.1; `on_both`: on that of ::1 too."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, LOOPBACK, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    servers = [server]
    if on_both:
        servers.append(await asyncio.start_server(receiver.serve, LOOPBACK_6, receiver.port, ssl=tls))
    try:
        yield receiver
    finally:
        for one in servers:
            one.close()
        await receiver.close()
