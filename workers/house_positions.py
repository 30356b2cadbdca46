"""Brings a changed floor to all ledger processes where the process that changed it has died in between."""

from typing import Final, NoReturn

from service.services.house_positions import outdate_portions
from service.startup import Resources
from workers.repeating import repeat

# One query of a small collection. Until somebody looks, processes pay out by the floor before.
_LOOK_S: Final = 10.0


async def outdate_portions_for_ever(_: Resources) -> NoReturn:
    await repeat("house_positions", outdate_portions, _LOOK_S)
