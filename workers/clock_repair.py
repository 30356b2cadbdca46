"""Watches for a server's clock that was set back: of several workers one repairs what was written before."""

from functools import partial
from typing import Final, NoReturn

from service.services.clock_repair import repair_if_set_back
from service.startup import Resources
from workers.repeating import repeat

# Looks at what the watch over the clock knows already: it costs nothing until something is to be done.
_LOOK_S: Final = 2.0


async def repair_for_ever(resources: Resources) -> NoReturn:
    look = partial(_look, resources)
    await repeat("clock_repair", look, _LOOK_S)


async def _look(resources: Resources) -> None:
    await repair_if_set_back(resources.clock_watch, resources.settings, resources.jobs)
