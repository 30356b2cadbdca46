"""What becomes of a queue's rows that were taken and not done: their failures are noted, the rest is given back."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from service.domain.dead_letters import Queue
from service.services.dead_letters import Claimed, give_back, note_failure
from service.startup import Resources

Row = TypeVar("Row")


class QueueAftercare(Generic[Row]):
    """What a drain takes for a row may be several of the queue's."""

    def __init__(self, queue: Queue, resources: Resources, claimed_of: Callable[[Row], Sequence[Claimed]]) -> None:
        self._queue, self._resources, self._claimed_of = queue, resources, claimed_of

    async def failed(self, row: Row, error: Exception) -> None:
        client, settings = self._resources.databases.client, self._resources.settings
        limit, mail_retry_for_s = settings.worker_failure_limit, settings.mail_retry_for_s
        # Of a batch each by itself: they come back apart, and the one that is broken is left alone in the end.
        for claimed in self._claimed_of(row):
            await note_failure(self._queue, claimed, error, client, limit, mail_retry_for_s)

    async def give_back(self, rows: Sequence[Row], was_begun: bool) -> None:
        await give_back(
            self._queue, [claimed for row in rows for claimed in self._claimed_of(row)], was_begun=was_begun
        )
