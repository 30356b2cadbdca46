"""Working a queue down: rows that are due are taken as hands get free, until nothing is due."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Generic, TypeVar

import structlog

from service.gateways.job_queue import Job, JobQueue

log = structlog.get_logger()

Row = TypeVar("Row")

# Half of a job's time: what is due after that is for the next job, which this one calls itself.
_TAKING_ENDS_S = 30.0
# Rows come to their ends in groups, since they share transactions; the rest of a group is behind its first by less.
_MOMENT_S = 0.005
# Longer than a visit to a silent bank; what is not done by then falls due again elsewhere.
_CLOSING_ENDS_S = 10.0


class Drain(Generic[Row]):
    """One for each queue and process. A row that takes long keeps one hand busy, not the others."""

    def __init__(
        self,
        job: Job,
        jobs: JobQueue,
        claim: Callable[[int], Awaitable[Sequence[Row]]],
        work: Callable[[Row], Awaitable[None]],
        hands: int | Callable[[], int],
    ) -> None:
        """`claim` takes up to so many rows that are due; `work` does one, and may leave it to fall due again.

        Where `hands` may be fewer at times, or none, it is asked for them before each look.
        """
        self.job, self._jobs, self._claim, self._work = job, jobs, claim, work
        self._hands = hands if callable(hands) else lambda: hands
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
        free = await self._free_hands()
        if free == 0:
            return
        rows = await self._claim(free)
        for row in rows:
            task = asyncio.create_task(self._work_on(row))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)
        self._has_news = self._has_news or bool(rows)

    async def _free_hands(self) -> int:
        """Waits for one that is free, and a moment for others: rows share round trips if they are taken together.

        None while there are no hands at all, as there is no telling when there will be.
        """
        if len(self._in_hand) >= self._hands() > 0:
            await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(_MOMENT_S)
        free = self._hands() - len(self._in_hand)
        if free <= 0:
            # There were more just now; those that are busy still make for news.
            self._has_news = self._has_news or self._hands() > 0
            return 0
        return free

    async def _work_on(self, row: Row) -> None:
        try:
            await self._work(row)
        except Exception:
            log.exception("job.row_failed", job=self.job)

    async def close(self) -> None:
        """Waits for what is in hand."""
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=_CLOSING_ENDS_S)
