"""Long work in short turns of the event loop, so that nobody else waits for the whole of it."""

import asyncio
from time import perf_counter
from typing import Final

# A third of what one turn may take at most (docs/security.md): a piece of work that follows is not cut in two.
TURN_S: Final = 0.003


class Turns:
    """Counts the time from its making on, which is when the turn began."""

    def __init__(self) -> None:
        self._began_s = perf_counter()

    async def rest(self) -> None:
        """Lets everybody else have a turn where this one has been long enough."""
        if perf_counter() - self._began_s >= TURN_S:
            await asyncio.sleep(0)
            self._began_s = perf_counter()
