"""A Redis that goes away just while arq takes a job: the worker looks again, with as many hands as before."""

import asyncio
from typing import Any, cast

import pytest
from arq import create_pool
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import WatchError

from service.gateways.job_queue import deserialize_job, redis_settings, serialize_job
from service.settings import Settings
from workers.outliving_redis import look, start_jobs

_QUEUE = "arq:test-outliving"
# uvloop's word for a connection that has closed in between, which the client hands on as it is.
_CLOSED = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


def _type_of(error: Exception) -> str:
    return type(error).__name__


async def _noted(context: dict[str, Any]) -> None:
    context["ran"].append(context["job_id"])


@pytest.mark.parametrize(
    "error", [WatchError("A ConnectionError occurred on while watching one or more keys"), _CLOSED], ids=_type_of
)
async def test_a_job_whose_taking_is_cut_short_is_taken_the_next_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Worker, "start_jobs", start_jobs)
    pool = await create_pool(
        redis_settings(settings, retries=1), job_serializer=serialize_job, job_deserializer=deserialize_job
    )
    ran: list[str] = []
    worker = Worker(
        [func(cast(WorkerCoroutine, _noted), name="noted", keep_result=0)],
        redis_pool=pool,
        queue_name=_QUEUE,
        job_serializer=serialize_job,
        job_deserializer=deserialize_job,
        burst=True,
        poll_delay=0.01,
        max_jobs=1,
        handle_signals=False,
        ctx={"ran": ran},
    )
    lost = [True, True]
    zscore = Pipeline.zscore

    def lose_the_first(pipeline: Pipeline, *arguments: Any) -> Any:
        if lost and lost.pop():
            raise error
        return zscore(pipeline, *arguments)

    await pool.enqueue_job("noted", _queue_name=_QUEUE, _job_id="one")
    monkeypatch.setattr(Pipeline, "zscore", lose_the_first)
    try:
        await worker.main()
    finally:
        await pool.aclose()
    assert (ran, lost) == (["one"], [])


@pytest.mark.parametrize("error", [RedisConnectionError("Connection closed by server."), _CLOSED], ids=_type_of)
async def test_a_job_that_redis_goes_away_for_ends_no_worker(settings: Settings, error: Exception) -> None:
    pool = await create_pool(redis_settings(settings, retries=1))
    worker = Worker(
        [func(cast(WorkerCoroutine, _noted), name="noted")], redis_pool=pool, queue_name=_QUEUE, handle_signals=False
    )

    async def lose_redis() -> None:
        raise error

    worker.tasks["one"] = asyncio.create_task(lose_redis())
    await asyncio.wait(worker.tasks.values())
    try:
        await look(worker)
    finally:
        await pool.aclose()
    assert worker.tasks == {}
