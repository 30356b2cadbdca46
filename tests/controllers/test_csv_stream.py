"""CSV: what a spreadsheet would compute is defused, what a reader reads is what was written."""

import asyncio
import csv
import sys
from collections.abc import AsyncIterator
from io import StringIO
from subprocess import run

import pytest
from starlette.types import Message

from service.controllers.csv_stream import CsvStream, defuse, to_csv


class TestDefusing:
    @pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠"])  # noqa: RUF001 these are meant
    def test_puts_an_apostrophe_before_what_begins_a_formula(self, beginning: str) -> None:
        assert defuse(f"{beginning}cmd|' /C calc'!A0") == f"'{beginning}cmd|' /C calc'!A0"

    @pytest.mark.parametrize("text", ["", "rent", "a=b", "'quoted", "1-1", "é", " "])
    def test_leaves_other_text_as_it_is(self, text: str) -> None:
        assert defuse(text) == text


class TestRecords:
    @pytest.mark.parametrize("text", ["a,b", 'say "hi"', "two\r\nlines", "one\nline", "", "ünïcödé ₹", ";", "'=1"])
    def test_are_read_as_they_were_written(self, text: str) -> None:
        written = to_csv([(text, -5, "0.05"), ("next", 2, "")])
        assert list(csv.reader(StringIO(written.decode(), newline=""), strict=True)) == [
            [text, "-5", "0.05"],
            ["next", "2", ""],
        ]
        assert written.endswith(b"\r\n")


class Exchange:
    """One request as a server plays it, and what the answer did to it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.has_closed = False
        self.was_cut_off = False
        self.hung_up = asyncio.Event()

    async def play(self, chunks: AsyncIterator[bytes]) -> None:
        await CsvStream(chunks, "statement.csv", self._close)({"type": "http"}, self._receive, self._send)

    async def endless(self, *, hangs_up: bool) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"1\r\n"
                await asyncio.sleep(0)
                if len(self.sent) > 3 and hangs_up:
                    self.hung_up.set()
        except asyncio.CancelledError:
            self.was_cut_off = True
            raise

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def _receive(self) -> Message:
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def _close(self) -> None:
        # Whoever is being cancelled does not get through this.
        await asyncio.sleep(0)
        self.has_closed = True


async def _rows() -> AsyncIterator[bytes]:
    yield b"1\r\n"
    yield b"2\r\n"


async def _failing_rows() -> AsyncIterator[bytes]:
    yield b"1\r\n"
    raise OSError("the database is gone")


class TestStream:
    async def test_ends_with_the_last_chunk_and_closes(self) -> None:
        exchange = Exchange()
        await exchange.play(_rows())
        assert [message.get("body") for message in exchange.sent] == [None, b"1\r\n", b"2\r\n", b""]
        assert exchange.sent[-1]["more_body"] is False
        assert exchange.has_closed

    async def test_stops_and_closes_when_the_client_hangs_up(self) -> None:
        exchange = Exchange()
        await asyncio.wait_for(exchange.play(exchange.endless(hangs_up=True)), 5)
        assert (exchange.was_cut_off, exchange.has_closed) == (True, True)

    async def test_breaks_off_without_an_end_where_the_rows_fail_and_closes(self) -> None:
        exchange = Exchange()
        with pytest.raises(OSError, match="the database is gone"):
            await exchange.play(_failing_rows())
        assert all(message.get("more_body", True) for message in exchange.sent)
        assert exchange.has_closed

    async def test_closes_when_the_server_stops_it(self) -> None:
        exchange = Exchange()
        playing = asyncio.ensure_future(exchange.play(exchange.endless(hangs_up=False)))
        await asyncio.sleep(0.01)
        assert exchange.sent
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert (exchange.was_cut_off, exchange.has_closed) == (True, True)

    def test_does_without_the_backend_of_anyio(self) -> None:
        """Seven megabytes for good, in a process that has less than a hundred."""
        code = """
import asyncio, sys
from service.controllers.csv_stream import CsvStream
async def rows():
    yield b""
async def nothing(*_):
    await asyncio.sleep(0)
    return {"type": "http.request"}
asyncio.run(CsvStream(rows(), "a.csv", nothing)({"type": "http"}, nothing, nothing))
sys.exit("anyio._backends._asyncio" in sys.modules)
"""
        assert run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 our own code
