"""The task that replays logs against wallets: of several workers each does a slice now and then."""

import asyncio
import random
from typing import NoReturn

import structlog

from service.services.replay import LOOK_S, work_on_round
from service.startup import Resources

log = structlog.get_logger()


async def replay_for_ever(resources: Resources) -> NoReturn:
    """Like the sweep it is no job of arq's: it needs neither Redis nor a nudge."""
    structlog.contextvars.bind_contextvars(job_id="replay")
    while True:
        due_in_s = None
        try:
            due_in_s = await work_on_round(resources.databases.client, resources.ledger, resources.settings)
        except Exception:
            log.exception("replay.slice_failed")
        # Apart from the other workers' looks.
        look_s = random.uniform(LOOK_S / 2, LOOK_S)  # noqa: S311 no secret
        await asyncio.sleep(look_s if due_in_s is None else min(due_in_s, look_s))
