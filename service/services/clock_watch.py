"""Holds a process's clock against MongoDB's, and says when it is too far off to take money or rows.

MongoDB's clock is the one that all processes share: each compares with it, so none has to ask its peers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, NamedTuple

import pymongo
import structlog
from pymongo.errors import PyMongoError

from service.background import end
from service.database import Client
from service.domain.clock import machine_now, set_clock, utc_now
from service.domain.server_clock import ServerTime
from service.errors import ClockOff
from service.repositories import server_clock

log = structlog.get_logger()

_INTERVAL_S: Final = 2.0
# Until the first measurement nothing is taken.
_FIRST_INTERVAL_S: Final = 0.2
_PATIENCE_S: Final = 1.0
# This process's time is set anew only if it differs from the server's by more than this. Smaller differences come from
# the measurement itself, and correcting them would make the time jump back and forth.
_TOLERANCE: Final = timedelta(milliseconds=250)
# The clock is looked at every 2 s.
_RETRY_AFTER_S: Final = 5


class Measured(NamedTuple):
    """One comparison: the machine's clock less the server's, right to within `error`; positive is ahead."""

    difference: timedelta
    error: timedelta


class ClockWatch:
    """One for each process. While MongoDB is away, what was known last holds."""

    def __init__(
        self,
        read_server: Callable[[], Awaitable[datetime]],
        bound_s: float,
        read_machine: Callable[[], datetime] = machine_now,
        note_server_time: Callable[[], Awaitable[ServerTime]] | None = None,
    ) -> None:
        """`read_server` says what time it is at the server, `read_machine` what it is by the machine's own clock.

        `note_server_time` keeps the latest time that the server has told anybody.
        """
        self._read_server = read_server
        self._note_server_time = note_server_time
        self._server_time: ServerTime | None = None
        self._read_machine = read_machine
        self._bound = timedelta(seconds=bound_s)
        self._task: asyncio.Task[None] | None = None
        self.measured: Measured | None = None
        self.is_off = False

    def is_wrong(self) -> bool:
        """Tells whether to refuse work: yes until the first measurement, as MongoDB may be back before that."""
        return self.is_off or self.measured is None

    @property
    def was_set_back(self) -> bool:
        """Whether the server's clock has been ahead of its present time by more than the bound, and not been repaired
        since.
        """
        return self._server_time is not None and self._server_time.set_back_by > self._bound

    @property
    def bound_s(self) -> float:
        return self._bound.total_seconds()

    @property
    def difference_s(self) -> float | None:
        """None where it was never measured."""
        return None if self.measured is None else self.measured.difference.total_seconds()

    async def start(self) -> None:
        """Measures once before anything is done, where the server answers; then again and again."""
        await self.look()
        self._task = asyncio.create_task(self._watch(), name="clock")

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)

    def require_right(self) -> None:
        """Raises ClockOff."""
        if self.is_wrong():
            raise ClockOff(retry_after_s=_RETRY_AFTER_S)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_FIRST_INTERVAL_S if self.measured is None else _INTERVAL_S)
            await self.look()
            await self.note_server_time()

    async def note_server_time(self) -> None:
        if self._note_server_time is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE_S):
                with pymongo.timeout(_PATIENCE_S):
                    self._server_time = await self._note_server_time()
        except (PyMongoError, OSError, TimeoutError) as error:
            # As in `look`: the next one comes in 2 s.
            log.debug("clock.time_not_noted", error=type(error).__name__)

    async def look(self) -> None:
        began = monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                with pymongo.timeout(_PATIENCE_S):
                    server_at = await self._read_server()
        except (PyMongoError, OSError, TimeoutError) as error:
            # The code that needs MongoDB logs the outage. It does not make a right clock wrong.
            log.debug("clock.not_measured", error=type(error).__name__)
            return
        ended = monotonic()
        # Somewhere between the question and the answer the server looked at its clock.
        half = timedelta(seconds=(ended - began) / 2)
        self._note(server_at + half, half, ended)

    def _note(self, server_now: datetime, error: timedelta, at_s: float) -> None:
        is_first = self.measured is None
        self.measured = Measured(self._read_machine() - server_now, error)
        if abs(utc_now() - server_now) > _TOLERANCE + error:
            set_clock(server_now, at_s)
        elif is_first:
            # From here on by the monotonic clock: what the machine's is set to between two looks does not matter.
            set_clock(machine_now(), monotonic())
        self._judge(self.measured)

    def _judge(self, measured: Measured) -> None:
        """Changes the state only if the measurement is certain either way: a slow answer changes nothing."""
        was_off, size = self.is_off, abs(measured.difference)
        if size - measured.error > self._bound:
            self.is_off = True
        elif size + measured.error <= self._bound:
            self.is_off = False
        if self.is_off == was_off:
            return
        facts = {"difference_s": round(measured.difference.total_seconds(), 3), "bound_s": self.bound_s}
        if self.is_off:
            # Once, not for each command that is refused.
            log.error("clock.off", **facts)
        else:
            log.warning("clock.right_again", **facts)


def watch_of(client: Client, bound_s: float) -> ClockWatch:
    """Against the primary's clock, to the millisecond."""

    async def read() -> datetime:
        hello = await client.admin.command("hello", codec_options=client.codec_options)
        local_time: datetime = hello["localTime"]
        return local_time

    return ClockWatch(read, bound_s, note_server_time=server_clock.note_time)
