"""The sweep: finds by itself what a lost job, an emptied Redis or a dead worker left behind.

It is no job of arq's, so that it goes on where Redis is away or silent: the work stands in MongoDB.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

import structlog

from workers.drain import Drain

log = structlog.get_logger()


async def sweep_for_ever(drains: Sequence[Drain[Any]], interval_s: float) -> NoReturn:
    """Each queue by itself: trouble with one must not keep the others waiting."""
    structlog.contextvars.bind_contextvars(job_id="sweep")
    while True:
        for drain, outcome in zip(
            drains, await asyncio.gather(*(drain.run() for drain in drains), return_exceptions=True), strict=True
        ):
            if isinstance(outcome, Exception):
                log.error("sweep.failed", job=drain.job, error=repr(outcome))
        await asyncio.sleep(interval_s)
