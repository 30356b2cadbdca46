"""What a worker tells of itself: a heartbeat in MongoDB for those who ask, and a line in the log for those who read."""

import asyncio
import os
import random
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, Final, NoReturn

import structlog

from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.domain.identifiers import Prefix, new_id
from service.domain.workers import BEAT_S, Worker
from service.outages import outages
from service.services.clock_watch import ClockWatch
from service.services.dead_letters import is_outage
from service.services.workers import Backlog, beat, look_at_queues
from service.startup import Resources
from service.version import project_version
from workers.drain import Drain

log = structlog.get_logger()

# Work that nobody takes for so long has to be looked at: a sweep takes at most half a minute.
_LATE_S: Final = 60.0
# What is wrong and stays as it is is told so much less often.
_AGAIN_FACTOR: Final = 6


class Presence:
    """One for each worker. The numbers are those of its drains."""

    def __init__(self, drains: Sequence[Drain[Any]], clock: ClockWatch) -> None:
        self._drains = drains
        self._clock = clock
        self._id, self._started_at = new_id(Prefix.WORKER), utc_now()

    @property
    def now(self) -> Worker:
        return Worker(
            id=self._id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=project_version(),
            started_at=self._started_at,
            seen_at=utc_now(),
            in_hand=self._sums("in_hand"),
            done=self._sums("done"),
            failed=self._sums("failed"),
            clock_difference_ms=None if (off_s := self._clock.difference_s) is None else round(off_s * 1000),
            clock_is_off=self._clock.is_off,
        )

    def _sums(self, name: str) -> dict[str, int]:
        sums = dict.fromkeys((queue.value for queue in Queue), 0)
        for drain in self._drains:
            sums[drain.queue.value] += getattr(drain, name)
        return sums

    async def beat_for_ever(self) -> NoReturn:
        structlog.contextvars.bind_contextvars(job_id="presence")
        while True:
            try:
                await beat(self.now)
            except Exception as error:  # noqa: BLE001 whatever it is, the next one tells again
                if is_outage(error):
                    outages.met("presence", error)
                else:
                    log.warning("worker.not_told", error=repr(error))
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """Nobody waits for it to be silent long enough."""
        now = self.now
        await beat(now._replace(stopped_at=now.seen_at))


async def tell_status_for_ever(presence: Presence, resources: Resources) -> NoReturn:
    """`worker.status`: where something has changed, and where something is wrong, a warning."""
    structlog.contextvars.bind_contextvars(job_id="status")
    interval_s = resources.settings.worker_status_s
    told = _Told()
    while True:
        await asyncio.sleep(interval_s * random.uniform(0.9, 1.1))  # noqa: S311 no secret
        try:
            now = utc_now()
            told.tell(presence.now, await look_at_queues(now), resources.breaker.state_now.value, now, interval_s)
        except Exception as error:  # noqa: BLE001 whatever it is, the next round looks again
            if is_outage(error):
                outages.met("status", error)
            else:
                log.warning("worker.status_unknown", error=repr(error))


class _Told:
    """What was said last, so that a line has news."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._last_at = 0.0
        self._done: dict[str, int] = {}
        self._failed: dict[str, int] = {}

    def tell(self, worker: Worker, backlog: Backlog, breaker: str, now: datetime, interval_s: float) -> None:
        done = {queue: number - self._done.get(queue, 0) for queue, number in worker.done.items()}
        failed = {queue: number - self._failed.get(queue, 0) for queue, number in worker.failed.items()}
        line = status_line(worker, backlog, breaker, now) | {"done": sum(done.values()), "failed": sum(failed.values())}
        is_wrong = is_wrong_in(line)
        # Ages grow by themselves.
        news = {name: value for name, value in line.items() if not name.endswith("_age_s")}
        is_news = news != self._last
        if not is_news and not (is_wrong and monotonic() - self._last_at >= _AGAIN_FACTOR * interval_s):
            return
        self._last, self._last_at = news, monotonic()
        self._done, self._failed = dict(worker.done), dict(worker.failed)
        (log.warning if is_wrong else log.info)("worker.status", **line)


def status_line(worker: Worker, backlog: Backlog, breaker: str, now: datetime) -> dict[str, Any]:
    """The queues of all, and this worker's hands."""
    line: dict[str, Any] = {}
    for queue, state in backlog.queues.items():
        line |= {f"{queue.value}_due": state.due, f"{queue.value}_oldest_age_s": round(state.oldest_age_s(now), 1)}
    return line | {
        "waiting": sum(state.rows for state in backlog.queues.values()),
        "in_hand": sum(worker.in_hand.values()),
        "dead_letters": sum(backlog.dead_letters.values()),
        "breaker": breaker,
    }


def is_wrong_in(line: Mapping[str, Any]) -> bool:
    """Whether somebody should look: work that fails or waits, dead letters, a bank that is down."""
    is_late = any(value > _LATE_S for name, value in line.items() if name.endswith("_age_s"))
    return is_late or line["failed"] > 0 or line["dead_letters"] > 0 or line["breaker"] != "closed"
