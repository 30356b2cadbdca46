"""Working a queue down: rows that are due are taken as hands get free, until nothing is due."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Generic, TypeVar

import structlog

from service.gateways.job_queue import Job, JobQueue
from service.metrics import rows_done, rows_taken

log = structlog.get_logger()

Row = TypeVar("Row")

# Half of a job's time: what is due after that is for the next job, which this one calls itself.
_TAKING_ENDS_S = 30.0
# Longer than a visit to a silent bank; what is not done by then falls due again elsewhere.
_CLOSING_ENDS_S = 10.0
# What metrics call the queue that a job works down.
QUEUE_NAMES = {Job.DRAIN_OUTBOX: "outbox", Job.APPLY_CALLBACKS: "callbacks", Job.RUN_BANK: "bank"}


class Drain(Generic[Row]):
    """One for each queue and process. A row that takes long keeps one hand busy, not the others."""

    def __init__(
        self,
        job: Job,
        jobs: JobQueue,
        claim: Callable[[int], Awaitable[Sequence[Row]]],
        work: Callable[[Row], Awaitable[None]],
        hands: int,
    ) -> None:
        """`claim` takes up to so many rows that are due; `work` does one, and may leave it to fall due again."""
        self.job, self._jobs, self._claim, self._work, self._hands = job, jobs, claim, work, hands
        self._queue = QUEUE_NAMES.get(job, job.value)
        self._in_hand: set[asyncio.Task[None]] = set()
        self._is_running = False
        self._has_news = False

    async def run(self) -> None:
        """Returns when nothing more is due; a second call meanwhile makes the first one look once more."""
        self._has_news = True
        if self._is_running:
            return
        self._is_running = True
        try:
            end = monotonic() + _TAKING_ENDS_S
            while self._has_news:
                if monotonic() >= end:
                    self._jobs.wake(self.job)
                    return
                self._has_news = False
                await self._take_what_is_due()
        finally:
            self._is_running = False

    async def _take_what_is_due(self) -> None:
        if len(self._in_hand) >= self._hands:
            await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED)
        rows = await self._claim(self._hands - len(self._in_hand))
        for row in rows:
            task = asyncio.create_task(self._work_on(row))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)
        self._has_news = self._has_news or bool(rows)

    async def _work_on(self, row: Row) -> None:
        rows_taken(self._queue, 1)
        outcome = "failed"
        try:
            await self._work(row)
            outcome = "done"
        except Exception:
            log.exception("job.row_failed", job=self.job)
        finally:
            rows_done(self._queue, outcome)

    async def close(self) -> None:
        """Waits for what is in hand."""
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=_CLOSING_ENDS_S)
