"""A Redis that goes away just while arq takes a job: the worker looks again, with as many hands as before."""

from typing import Any, cast

import pytest
from arq import create_pool
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from service.gateways.job_queue import deserialize_job, redis_settings, serialize_job
from service.settings import Settings
from workers.outliving_redis import start_jobs

_QUEUE = "arq:test-outliving"


async def _noted(context: dict[str, Any]) -> None:
    context["ran"].append(context["job_id"])


async def test_a_job_whose_taking_is_cut_short_is_taken_the_next_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
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
            raise WatchError("A ConnectionError occurred on while watching one or more keys")
        return zscore(pipeline, *arguments)

    await pool.enqueue_job("noted", _queue_name=_QUEUE, _job_id="one")
    monkeypatch.setattr(Pipeline, "zscore", lose_the_first)
    try:
        await worker.main()
    finally:
        await pool.aclose()
    assert (ran, lost) == (["one"], [])
