"""What time it is at the simulated bank, and whether it is up: read by every process, so asked for once in a while."""

import asyncio
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple

from service.domain.clock import utc_now
from service.repositories import bank_conditions
from service.settings import Settings

# For so long a process goes by what it knows.
KNOWN_FOR_S = 0.2
_NO_OFFSET = timedelta()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Outage(NamedTuple):
    """The bank is down until then. One that hangs answers nothing at all; otherwise everything gets a 503 at once."""

    until: datetime
    hangs: bool


class BankConditions:
    def __init__(self, settings: Settings) -> None:
        self._every = timedelta(seconds=settings.bank_outage_every_s)
        self._length = timedelta(seconds=settings.bank_outage_length_s)
        self._hangs = settings.bank_outage_hangs
        self._offset = _NO_OFFSET
        self._switched: Outage | None = None
        self._known_until = 0.0
        # Of a crowd that finds it is out of date, one looks.
        self._looking = asyncio.Lock()

    async def now(self) -> datetime:
        """By the bank's own clock."""
        await self._look()
        return utc_now() + self._offset

    async def outage(self) -> Outage | None:
        """By the switch, or by the schedule: the first WALLET_BANK_OUTAGE_LENGTH_S of every _EVERY_S since 1970."""
        await self._look()
        now = utc_now()
        if self._switched is not None and now < self._switched.until:
            return self._switched
        if not self._every or not self._length:
            return None
        began = now - (now - _EPOCH) % self._every
        return Outage(began + self._length, self._hangs) if now < began + self._length else None

    def forget(self) -> None:
        """Whoever has changed something wants to see it at once."""
        self._known_until = 0.0

    async def _look(self) -> None:
        if monotonic() < self._known_until:
            return
        async with self._looking:
            if monotonic() >= self._known_until:
                await self._read()

    async def _read(self) -> None:
        found = await bank_conditions.find() or {}
        self._offset = timedelta(milliseconds=int(found.get("clock_offset_ms", 0)))
        until = found.get("down_until")
        self._switched = None if until is None else Outage(until, found.get("hangs", False))
        self._known_until = monotonic() + KNOWN_FOR_S
