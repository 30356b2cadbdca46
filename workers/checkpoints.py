"""Checkpoints by themselves: each worker looks whether one is due, and of several that find so, one makes it."""

from typing import NoReturn

import structlog

from service.domain.clock import utc_now
from service.gateways.checkpoint_places import CheckpointFile, PlaceDiffers
from service.services.checkpoints import take_checkpoint_if_due
from service.startup import Resources
from workers.repeating import repeat

log = structlog.get_logger()

# A look is a few reads of one document.
_LOOK_S = 10.0


async def take_checkpoints_for_ever(resources: Resources) -> NoReturn:
    place = CheckpointFile(resources.settings)

    async def look() -> None:
        try:
            await take_checkpoint_if_due(resources.databases.client, resources.settings, utc_now(), place)
        except PlaceDiffers as error:
            # Nothing is signed until somebody has looked (README, Proofs).
            log.critical("checkpoint.place_differs", path=resources.settings.checkpoint_path, detail=str(error))

    await repeat("checkpoints", look, min(_LOOK_S, resources.settings.checkpoint_interval_s))
