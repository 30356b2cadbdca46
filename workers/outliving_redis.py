"""arq's own main loop ends the worker where Redis goes away at the wrong moment; here it costs one look at the queue.

To take a job it watches a key and reads two more, and what it does around a job it does in transactions (arq 0.28,
`Worker.start_jobs` and `run_job`). What is lost in the middle of those is not always repeated by the client, and
nothing catches what it raises.
"""

import structlog
from arq.worker import Worker
from redis.exceptions import RedisError

log = structlog.get_logger()

# RuntimeError is what uvloop says of a connection that has closed in between.
_AWAY = (RedisError, OSError, RuntimeError)

_start_jobs = Worker.start_jobs
_look = Worker._poll_iteration  # noqa: SLF001 arq has no other place for it


async def start_jobs(worker: Worker, job_ids: list[bytes]) -> None:
    """One by one, so that it is known what arq had counted when it stopped."""
    for job_id in job_ids:
        try:
            await _start_jobs(worker, [job_id])
        except _AWAY as error:
            worker._release_sem_dec_counter_on_complete()  # noqa: SLF001 what arq does for a job that it does not start
            log.warning("worker.redis_lost", error=repr(error))
            return


async def look(worker: Worker) -> None:
    """A job that Redis was away for is over: what it was to do stands in MongoDB, and the sweep finds it."""
    try:
        await _look(worker)
    except _AWAY as error:
        log.warning("worker.redis_lost", error=repr(error))


def outlive_redis() -> None:
    Worker.start_jobs = start_jobs  # type: ignore[method-assign,assignment]  # mypy binds it twice
    Worker._poll_iteration = look  # type: ignore[method-assign,assignment]  # noqa: SLF001
