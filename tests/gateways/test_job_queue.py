"""Nudges: at most one job for each moment, and a Redis that is away harms nobody."""

import asyncio
import time

import redis.asyncio

from service.gateways.job_queue import Job, JobQueue
from service.settings import Settings
from tests.servers import Servers, make_settings


async def _queued(settings: Settings) -> int:
    client = redis.asyncio.Redis.from_url(settings.redis_url.get_secret_value())
    try:
        return int(await client.zcard("arq:queue"))
    finally:
        await client.aclose()


class TestWake:
    async def test_many_nudges_in_a_moment_are_one_job(self, settings: Settings) -> None:
        before = await _queued(settings)
        jobs = JobQueue(settings)
        for _ in range(1000):
            jobs.wake(Job.DRAIN_OUTBOX)
        await asyncio.sleep(0.2)
        await jobs.close()
        # Two where the thousand fell on both sides of a moment's end.
        assert 1 <= await _queued(settings) - before <= 2

    async def test_two_processes_share_the_job_of_a_moment(self, settings: Settings) -> None:
        before = await _queued(settings)
        first, second = JobQueue(settings), JobQueue(settings)
        await first.ping()
        await second.ping()
        first.wake(Job.RUN_BANK, delay_s=60)
        second.wake(Job.RUN_BANK, delay_s=60)
        await first.close()
        await second.close()
        assert 1 <= await _queued(settings) - before <= 2

    async def test_without_redis_nobody_waits_and_nothing_is_raised(self, servers: Servers) -> None:
        jobs = JobQueue(make_settings(servers, redis_url="redis://127.0.0.1:1/0"))
        started_s = time.monotonic()
        jobs.wake(Job.DRAIN_OUTBOX)
        assert time.monotonic() - started_s < 1, "a nudge is given in passing"
        await jobs.close()
