"""The sweep: finds by itself what a lost job, an emptied Redis or a dead worker left behind.

It is no job of arq's, so that it goes on where Redis is away or silent: the work stands in MongoDB.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

import structlog

from service.outages import outages
from service.services.dead_letters import is_outage
from workers.drain import Drain

log = structlog.get_logger()


async def sweep_for_ever(drains: Sequence[Drain[Any]], interval_s: float) -> None:
    """Each queue by itself: trouble with one must not keep the others waiting, nor one that hangs."""
    structlog.contextvars.bind_contextvars(job_id="sweep")
    await asyncio.gather(*(_sweep_one_for_ever(drain, interval_s) for drain in drains))


async def _sweep_one_for_ever(drain: Drain[Any], interval_s: float) -> NoReturn:
    while True:
        try:
            await drain.run()
        except Exception as error:
            if is_outage(error):
                outages.met("sweep", error)
            else:
                log.exception("sweep.failed", job=drain.job)
        await asyncio.sleep(interval_s)
