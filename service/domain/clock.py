"""Time as the service keeps it: UTC with milliseconds, which is what BSON can hold, by MongoDB's clock.

A process that watches its clock (services/clock_watch.py) sets it by `set_clock`. From then on the time goes on by the
monotonic clock, which nobody sets: a machine's clock that is wrong, or that is moved, changes nothing in leases, claims
and due times. Others (scripts, tests of single rules) have the machine's own time.
"""

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple


class _Reading(NamedTuple):
    """What time it was at a moment of the monotonic clock."""

    moment: datetime
    monotonic_s: float

    def now(self) -> datetime:
        return self.moment + timedelta(seconds=monotonic() - self.monotonic_s)


_reading: _Reading | None = None


def utc_now() -> datetime:
    now = machine_now() if _reading is None else _reading.now()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def machine_now() -> datetime:
    """By the machine's own clock, right or wrong."""
    return datetime.now(UTC)


def set_clock(moment: datetime, monotonic_s: float) -> None:
    """Sets the clock of this process: at `monotonic_s` of the monotonic clock it was this time."""
    global _reading  # noqa: PLW0603 a process has one clock
    _reading = _Reading(moment, monotonic_s)


def forget_clock() -> None:
    """Back to the machine's own clock."""
    global _reading  # noqa: PLW0603 as above
    _reading = None


def to_rfc3339(moment: datetime) -> str:
    """RFC 3339 with milliseconds and Z: 2026-02-24T12:34:56.789Z."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
