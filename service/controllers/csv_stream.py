"""CSV as an answer of any length: RFC 4180, harmless in a spreadsheet, a few rows in memory at a time."""

import csv
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from io import StringIO

from service.controllers.watched_stream import WatchedStream

# Frees the place of a client that takes no byte for so long. The whole file may take longer.
_STALL_LIMIT_S = 60.0
# A spreadsheet takes what begins so for a formula: OWASP, "CSV Injection", and ASVS 5.0, 1.2.10.
_BEGINNINGS_OF_FORMULAS = frozenset("=+-@\t\r\n\0＝＋－＠")  # noqa: RUF001 full-width ones count as well


def defuse(text: str) -> str:
    """Text that a spreadsheet shows instead of computing; numbers need no such thing, being ours."""
    return f"'{text}" if text[:1] in _BEGINNINGS_OF_FORMULAS else text


def to_csv(records: Iterable[Sequence[str | int]]) -> bytes:
    buffer = StringIO(newline="")
    csv.writer(buffer).writerows(records)
    return buffer.getvalue().encode()


class CsvStream(WatchedStream):
    """A CSV file under a name, from chunks; `close` is called however it ends.

    The status is sent before the first row is read: what fails after that breaks the connection off within the body.
    """

    def __init__(self, chunks: AsyncIterator[bytes], filename: str, close: Callable[[], Awaitable[None]]) -> None:
        disposition = {"Content-Disposition": f'attachment; filename="{filename}"'}
        media_type = "text/csv; charset=utf-8; header=present"
        super().__init__(chunks, media_type, disposition, close, stall_limit_s=_STALL_LIMIT_S)
