"""The drain that dispatches events. A row of it is a whole batch: of a thousand a second each counts."""

from collections.abc import Sequence

from service.domain.dead_letters import Queue
from service.domain.events import Event
from service.services.dead_letters import Claimed
from service.services.event_dispatch import claim_events, dispatch
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain

# One after the other, so that a worker's events leave in the order of their numbers.
_HANDS = 1


def events_drain(resources: Resources) -> Drain[Sequence[Event]]:
    async def claim_batch(_limit: int) -> list[Sequence[Event]]:
        events = await claim_events()
        return [events] if events else []

    return Drain(
        Queue.EVENTS,
        resources.jobs,
        claim_batch,
        lambda events: dispatch(events, resources.event_channel, resources.jobs, resources.settings),
        _HANDS,
        QueueAftercare(Queue.EVENTS, resources, lambda events: [Claimed(event.id, None) for event in events]),
        resources.clock_watch.is_wrong,
    )
