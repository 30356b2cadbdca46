"""Tasks that live as long as what started them, and how they end."""

import asyncio
from typing import Any, Final

_AGAIN_S: Final = 0.5


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels them until all have ended; what they raise concerns nobody any more.

    Once may not be enough: where it hits a call of MongoDB's driver, that may make an outage of it, and a task that
    lives through outages lives through this one. Or nobody hears of it: the driver sends by `asyncio.wait_for`, which
    before Python 3.12 forgets a cancellation when what it waits for is done in the same moment.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=_AGAIN_S)
        for task in ended:
            if not task.cancelled():
                # Looked at, or asyncio would log it.
                task.exception()
