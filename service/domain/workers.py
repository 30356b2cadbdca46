"""Workers as they tell of themselves, and how their queues stand."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

# A worker tells of itself every few seconds; who has been silent for so long is not there.
BEAT_S = 5.0
ALIVE_S = 20.0


class Worker(NamedTuple):
    """One process. The numbers are by queue: rows in hand now, and done and failed since it started."""

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    in_hand: Mapping[str, int]
    done: Mapping[str, int]
    failed: Mapping[str, int]
    # By itself, as it was told to.
    stopped_at: datetime | None = None
    # Its clock less MongoDB's at the last heartbeat; None while it is not known, and in rows of older releases.
    clock_difference_ms: int | None = None
    # By its own judgement, which allows for how long the measurement took; None in rows of older releases.
    clock_is_off: bool | None = None


class QueueState(NamedTuple):
    """`due` waits for hands, the oldest of it since `oldest_due_at`; the rest of `rows` is in hand or for later."""

    rows: int
    due: int
    oldest_due_at: datetime | None

    def oldest_age_s(self, now: datetime) -> float:
        return 0.0 if self.oldest_due_at is None else max(0.0, (now - self.oldest_due_at).total_seconds())


class Presence(NamedTuple):
    """How many workers there are, and how long ago the last one told of itself; None where none ever has.

    `clock_differences_s` are their clocks less MongoDB's, of those that know.
    """

    alive: int
    last_seen_age_s: float | None
    clock_differences_s: tuple[float, ...] = ()
