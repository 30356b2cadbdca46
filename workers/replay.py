"""Replays logs against wallets: of several workers each does a slice now and then."""

from functools import partial
from typing import NoReturn

from service.services.replay import LOOK_S, work_on_round
from service.startup import Resources
from workers.repeating import repeat


async def replay_for_ever(resources: Resources) -> NoReturn:
    slice_of_it = partial(work_on_round, resources.databases.client, resources.ledger, resources.settings)
    await repeat("replay", slice_of_it, LOOK_S)
