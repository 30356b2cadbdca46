"""Checkpoints by themselves: each worker looks whether one is due, and of several that find so, one makes it."""

from typing import NoReturn

from service.domain.clock import utc_now
from service.services.checkpoints import take_checkpoint_if_due
from service.startup import Resources
from workers.repeating import repeat

# A look is one read of one document.
_LOOK_S = 10.0


async def take_checkpoints_for_ever(resources: Resources) -> NoReturn:
    async def look() -> None:
        await take_checkpoint_if_due(resources.databases.client, resources.settings, utc_now())

    await repeat("checkpoints", look, min(_LOOK_S, resources.settings.checkpoint_interval_s))
