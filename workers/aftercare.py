"""What becomes of a queue's rows that were taken and not done: their failures are noted, the rest is given back."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from service.domain.dead_letters import Queue
from service.services.dead_letters import Claimed, give_back, note_failure
from service.startup import Resources

Row = TypeVar("Row")


class QueueAftercare(Generic[Row]):
    def __init__(self, queue: Queue, resources: Resources, claimed_of: Callable[[Row], Claimed]) -> None:
        self._queue, self._resources, self._claimed_of = queue, resources, claimed_of

    async def failed(self, row: Row, error: Exception) -> None:
        client, limit = self._resources.databases.client, self._resources.settings.worker_failure_limit
        await note_failure(self._queue, self._claimed_of(row), error, client, limit)

    async def give_back(self, rows: Sequence[Row], was_begun: bool) -> None:
        await give_back(self._queue, [self._claimed_of(row) for row in rows], was_begun=was_begun)
