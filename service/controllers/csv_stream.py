"""CSV as an answer of any length: RFC 4180, harmless in a spreadsheet, a few rows in memory at a time."""

import asyncio
import csv
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from io import StringIO

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

# A spreadsheet takes what begins so for a formula: OWASP, "CSV Injection", and ASVS 5.0, 1.2.10.
_BEGINNINGS_OF_FORMULAS = frozenset("=+-@\t\r\n\0＝＋－＠")  # noqa: RUF001 full-width ones count as well


def defuse(text: str) -> str:
    """Text that a spreadsheet shows instead of computing; numbers need no such thing, being ours."""
    return f"'{text}" if text[:1] in _BEGINNINGS_OF_FORMULAS else text


def to_csv(records: Iterable[Sequence[str | int]]) -> bytes:
    buffer = StringIO(newline="")
    csv.writer(buffer).writerows(records)
    return buffer.getvalue().encode()


class CsvStream(StreamingResponse):
    """A CSV file under a name, from chunks; `close` is called however it ends.

    The status is sent before the first row is read. What fails after that breaks the connection off within the body,
    which no client takes for its end: the last chunk, of length zero, never comes.

    Starlette's own way watches for a client that hangs up by anyio, whose backend takes 7 MB for it.
    """

    def __init__(self, chunks: AsyncIterator[bytes], filename: str, close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(
            chunks,
            media_type="text/csv; charset=utf-8; header=present",
            headers={"Content-Disposition": f'attachment; filename="{filename}"'},
        )
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 ASGI
        sending = asyncio.ensure_future(self.stream_response(send))
        hanging_up = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((sending, hanging_up), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            sending.cancel()
            hanging_up.cancel()
            try:
                # Whom these failures would concern has hung up.
                await asyncio.gather(sending, hanging_up, return_exceptions=True)
            finally:
                # Here, and not where the chunks are made: those were cancelled, and could not tell the database.
                await self._close()
