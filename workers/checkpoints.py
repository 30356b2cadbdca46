"""Checkpoints by themselves: each worker looks whether one is due, and of several that find so, one makes it."""

import asyncio
import random
from typing import NoReturn

import structlog

from service.domain.clock import utc_now
from service.services.checkpoints import take_checkpoint_if_due
from service.startup import Resources

log = structlog.get_logger()

# A look is one read of one document.
_LOOK_S = 10.0


async def take_checkpoints_for_ever(resources: Resources) -> NoReturn:
    structlog.contextvars.bind_contextvars(job_id="checkpoints")
    pause_s = min(_LOOK_S, resources.settings.checkpoint_interval_s)
    while True:
        try:
            await take_checkpoint_if_due(resources.databases.client, resources.settings, utc_now())
        except Exception:
            log.exception("checkpoint.failed")
        # Apart from the other workers' looks, or all would do the work of which one's counts.
        await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 no secret
