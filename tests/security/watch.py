"""Whether anything in the database has changed while attacks were refused."""

from collections.abc import Collection
from typing import Self

from tests.security.findings import Finding
from tests.security.world import World

# What a refusal may well leave behind; and what goes by itself a minute after it was used.
_EVENTS = frozenset({"audit_events", "used_tickets"})


class Watch:
    """Of all collections' sizes, and of what the world's people have."""

    def __init__(self, world: World, counts: dict[str, int], state: dict[str, str], ignored: Collection[str]) -> None:
        self._world, self._counts, self._state, self._ignored = world, counts, state, ignored

    @classmethod
    async def begin(cls, world: World, *, ignored: Collection[str] = _EVENTS) -> Self:
        """What people own has to be made before."""
        return cls(world, await world.counts(), await world.state(), ignored)

    async def end(self, attack: str) -> list[Finding]:
        counts, state = await self._world.counts(), await self._world.state()
        grown = [
            f"{name} had {self._counts[name]}, has {count}"
            for name, count in counts.items()
            if name not in self._ignored and count != self._counts[name]
        ]
        changed = [
            f"somebody's documents in {name} changed"
            for name, digest in self._state.items()
            if name not in self._ignored and digest != state[name]
        ]
        return [Finding("(all routes)", attack, what) for what in (*grown, *changed)]
