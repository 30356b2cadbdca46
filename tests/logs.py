"""What a test's own calls say in the log, without what others in the process say meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from structlog import DropEvent
from structlog.testing import capture_logs
from structlog.typing import EventDict

_who: ContextVar[object | None] = ContextVar("who", default=None)


@contextmanager
def own_logs() -> Iterator[list[EventDict]]:
    """Lines of the block and of what it begins.

    What was begun before, as the background work of the API that all tests share, is not heard: it may have its own
    word to say at any moment, and did.
    """
    me = object()

    def drop_others(_logger: Any, _method: str, line: EventDict) -> EventDict:
        if _who.get() is not me:
            raise DropEvent
        return line

    with capture_logs([drop_others]) as lines:
        before = _who.set(me)
        try:
            yield lines
        finally:
            _who.reset(before)
