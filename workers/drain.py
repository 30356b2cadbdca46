"""Working a queue down: round after round until nothing is due or the time of one job is up."""

from collections.abc import Awaitable, Callable
from time import monotonic

from service.gateways.job_queue import Job, JobQueue

# Half of a job's time, since a round that starts last may take long when the bank or the ledger is in trouble.
_ROUNDS_END_S = 30.0


async def drain(take_round: Callable[[], Awaitable[int]], job: Job, jobs: JobQueue) -> None:
    """Where work is left when the time is up, the job calls itself again."""
    end = monotonic() + _ROUNDS_END_S
    while await take_round():
        if monotonic() >= end:
            jobs.wake(job)
            return
