"""What each worker does again and again beside its queues. No job of arq's: it needs neither Redis nor a nudge."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from service.outages import outages
from service.services.dead_letters import is_outage

log = structlog.get_logger()


async def repeat(name: str, work: Callable[[], Awaitable[float | None]], pause_s: float) -> NoReturn:
    """For ever, whatever it raises. `work` says in how many seconds it would be called again, if sooner than usual."""
    structlog.contextvars.bind_contextvars(job_id=name)
    while True:
        sooner_s = None
        try:
            sooner_s = await work()
        except Exception as error:  # whatever it is, told below: without these tasks nobody would do the work
            if is_outage(error):
                outages.met(name, error)
            else:
                log.exception("worker.round_failed")
        # Apart from the other workers, or all would do the work of which one's counts.
        usual_s = random.uniform(pause_s / 2, pause_s)  # noqa: S311 no secret
        await asyncio.sleep(usual_s if sooner_s is None else min(sooner_s, usual_s))
