"""Waking the workers: jobs in Redis are only a nudge, the work itself stands in MongoDB."""

import asyncio
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import orjson
import structlog
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Deserializer, Serializer
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.settings import Settings

log = structlog.get_logger()

# Nudges within one such span of time are one job, whoever gives them.
_BUCKET_S = 0.05
# A Redis that stalls must not gather waiting nudges; the sweep finds what they were for.
_PATIENCE_S = 2.0
_RETRIES = 1


class Job(StrEnum):
    """Names of the functions that workers register."""

    DRAIN_OUTBOX = "drain_outbox"
    APPLY_CALLBACKS = "apply_callbacks"
    RUN_BANK = "run_bank"
    DISPATCH_EVENTS = "dispatch_events"
    DELIVER_WEBHOOKS = "deliver_webhooks"


# Which of them works a queue down.
JOBS: Final[Mapping[Queue, Job]] = {
    Queue.OUTBOX: Job.DRAIN_OUTBOX,
    Queue.CALLBACKS: Job.APPLY_CALLBACKS,
    Queue.EVENTS: Job.DISPATCH_EVENTS,
    Queue.DELIVERIES: Job.DELIVER_WEBHOOKS,
    Queue.BANK: Job.RUN_BANK,
}


serialize_job: Serializer = orjson.dumps
deserialize_job: Deserializer = orjson.loads


def redis_settings(settings: Settings, *, retries: int) -> RedisSettings:
    """`retries` of each command, up to a second apart. arq's main loop ends when one fails for good."""
    parsed = RedisSettings.from_dsn(settings.redis_url.get_secret_value())
    parsed.conn_timeout = 1
    parsed.conn_retries = 1
    parsed.retry = Retry(ExponentialBackoff(cap=1, base=0.05), retries)
    # Named, or the client repeats no transaction for them.
    parsed.retry_on_error = [OSError, ConnectionError, RedisConnectionError, RedisTimeoutError]
    parsed.retry_on_timeout = True
    return parsed


class JobQueue:
    """Gives nudges without ever making anyone wait for Redis; what gets lost, the sweep finds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: ArqRedis | None = None
        self._connecting = asyncio.Lock()
        self._tasks: dict[tuple[Job, int], asyncio.Task[None]] = {}

    def wake(self, job: Job, delay_s: float = 0.0) -> None:
        """Lets a worker run the job at the end of the span of time that `delay_s` from now falls in."""
        bucket = math.floor((utc_now().timestamp() + delay_s) / _BUCKET_S) + 1
        if (job, bucket) in self._tasks:
            return
        task = asyncio.create_task(self._enqueue(job, bucket))
        self._tasks[job, bucket] = task
        task.add_done_callback(lambda _: self._tasks.pop((job, bucket), None))

    async def _enqueue(self, job: Job, bucket: int) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                pool = await self._connected()
                delay_s = max(0.0, bucket * _BUCKET_S - utc_now().timestamp())
                await pool.enqueue_job(job.value, _job_id=f"{job.value}:{bucket}", _defer_by=delay_s or None)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("jobs.wake_failed", job=job.value, error=repr(error))

    async def _connected(self) -> ArqRedis:
        async with self._connecting:
            if self._pool is None:
                self._pool = await create_pool(
                    redis_settings(self._settings, retries=_RETRIES),
                    job_serializer=serialize_job,
                    job_deserializer=deserialize_job,
                )
            return self._pool

    async def ping(self) -> None:
        """Raises what the client raises where Redis does not answer."""
        await (await self._connected()).ping()

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=1)
        if self._pool is not None:
            await self._pool.aclose()
