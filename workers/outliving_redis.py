"""arq's own way of taking a job ends the whole worker where Redis goes away in the middle of it.

It watches a key and reads two more (arq 0.28, `Worker.start_jobs`); a connection that is lost in between cannot be
repeated by the client, and nothing catches what it raises instead. Here it costs one look at the queue.
"""

import structlog
from arq.worker import Worker
from redis.exceptions import WatchError

log = structlog.get_logger()

_start_jobs = Worker.start_jobs


async def start_jobs(worker: Worker, job_ids: list[bytes]) -> None:
    """One by one, so that it is known what arq had counted when it stopped."""
    for job_id in job_ids:
        try:
            await _start_jobs(worker, [job_id])
        except WatchError as error:
            worker._release_sem_dec_counter_on_complete()  # noqa: SLF001 what arq does for a job that it does not start
            log.warning("worker.redis_lost", error=repr(error))
            return


def outlive_redis() -> None:
    Worker.start_jobs = start_jobs  # type: ignore[method-assign,assignment]  # mypy binds it twice
