"""Working a queue down: rows that are due are taken as hands get free, until nothing is due."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Generic, Protocol, TypeVar

import structlog

from service.domain.dead_letters import Queue
from service.gateways.job_queue import JOBS, Job, JobQueue
from service.metrics import rows_done, rows_taken
from service.outages import outages
from service.services.dead_letters import is_outage

log = structlog.get_logger()

Row = TypeVar("Row")
Row_contra = TypeVar("Row_contra", contravariant=True)


class Aftercare(Protocol[Row_contra]):
    """What becomes of rows that were taken and not done."""

    async def failed(self, row: Row_contra, error: Exception) -> None: ...

    async def give_back(self, rows: Sequence[Row_contra], was_begun: bool) -> None: ...


# Half of a job's time: what is due after that is for the next job, which this one calls itself.
_TAKING_ENDS_S = 30.0
# Rows come to their ends in groups, since they share transactions; the rest of a group is behind its first by less.
_MOMENT_S = 0.005
_BREAKING_OFF_ENDS_S = 1.0
_ENDED_BY_THEN_S = 1.0


def _size_of(row: object) -> int:
    """Some drains take several together as one."""
    return len(row) if isinstance(row, list) else 1


class Drain(Generic[Row]):
    """One for each queue and process. A row that takes long keeps one hand busy, not the others. Counted are rows,
    however many of them a hand takes as one.
    """

    def __init__(
        self,
        queue: Queue,
        jobs: JobQueue,
        claim: Callable[[int], Awaitable[Sequence[Row]]],
        work: Callable[[Row], Awaitable[None]],
        hands: int | Callable[[], int],
        aftercare: Aftercare[Row],
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        """`claim` takes up to so many rows that are due; `work` does one, and may leave it to fall due again.

        Where `hands` may be fewer at times, or none, it is asked for them before each look. While it is paused it takes
        nothing; the next sweep after that finds what is due.
        """
        self.queue, self.job = queue, JOBS[queue]
        self._jobs, self._claim, self._work = jobs, claim, work
        self._hands = hands if callable(hands) else lambda: hands
        self._aftercare = aftercare
        self._is_paused = is_paused
        self.done = self.failed = 0
        self._in_hand: dict[asyncio.Task[None], Row] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._has_news = False

    async def run(self) -> None:
        """Returns when nothing more is due; a second call meanwhile makes the first one look once more."""
        self._has_news = True
        if self._stopping.is_set():
            # The nudge is for somebody else.
            self._jobs.wake(self.job, _ENDED_BY_THEN_S)
            return
        if not self._idle.is_set():
            return
        self._idle.clear()
        try:
            end = monotonic() + _TAKING_ENDS_S
            while self._has_news and not self._stopping.is_set():
                if monotonic() >= end:
                    self._jobs.wake(self.job)
                    return
                self._has_news = False
                await self._take_what_is_due()
        finally:
            self._idle.set()

    async def _take_what_is_due(self) -> None:
        free = await self._free_hands()
        if free == 0 or self._stopping.is_set() or self._is_paused():
            return
        rows = await self._claim(free)
        if self._stopping.is_set():
            await self._give_back(rows, was_begun=False)
            return
        for row in rows:
            task = asyncio.create_task(self._work_on(row))
            self._in_hand[task] = row
            task.add_done_callback(self._in_hand.pop)
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
        size = _size_of(row)
        rows_taken(self.queue.value, size)
        outcome = "failed"
        try:
            await self._work(row)
        except Exception as error:
            if is_outage(error):
                outcome = "put_back"
                outages.met(self.job, error, rows_put_back=size)
            else:
                self.failed += size
                log.exception("job.row_failed", job=self.job)
            await self._note_failure(row, error)
        else:
            outcome = "done"
            self.done += size
        finally:
            rows_done(self.queue.value, outcome, size)

    async def _note_failure(self, row: Row, error: Exception) -> None:
        try:
            await self._aftercare.failed(row, error)
        except Exception as trouble:  # noqa: BLE001 whatever it is, the row comes back when its claim ends
            if is_outage(trouble):
                outages.met(self.job, trouble)
                return
            log.error("job.failure_not_noted", job=self.job, error=repr(trouble))  # noqa: TRY400 the failure itself has its traceback

    @property
    def in_hand(self) -> int:
        return sum(map(_size_of, self._in_hand.values()))

    def stop(self) -> None:
        """Takes nothing more, whoever asks. What is in hand goes on."""
        self._stopping.set()

    async def close(self, grace_s: float) -> None:
        """Waits for what is in hand; what is not done in time is broken off. What could not be done is given back."""
        self.stop()
        end = monotonic() + grace_s
        with suppress(TimeoutError):
            # A look that has begun: what it has taken it gives back itself.
            await asyncio.wait_for(self._idle.wait(), grace_s)
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=max(0.0, end - monotonic()))
        left = dict(self._in_hand)
        if left:
            log.warning("job.rows_broken_off", job=self.job, rows=self.in_hand)
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_BREAKING_OFF_ENDS_S)
            await self._give_back([row for task, row in left.items() if task.cancelled()], was_begun=True)

    async def _give_back(self, rows: Sequence[Row], *, was_begun: bool) -> None:
        if not rows:
            return
        try:
            await self._aftercare.give_back(rows, was_begun)
        except Exception as trouble:  # noqa: BLE001 whatever it is, they come back when their claim ends
            log.error("job.rows_not_given_back", job=self.job, error=repr(trouble))  # noqa: TRY400 an outage needs no traceback


class _Runs(Protocol):
    async def run(self) -> None: ...


async def run_drains(drains: Sequence[_Runs], job: Job) -> None:
    """All of one queue. An outage ends it without an error: the rows are where they were, and the sweep looks again."""
    try:
        await asyncio.gather(*(drain.run() for drain in drains))
    except Exception as error:
        if not is_outage(error):
            raise
        outages.met(job, error)
