"""Events out: to whoever is connected, and to the endpoints that users have named. Done by a worker, in batches."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

import orjson

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.events import Event, event_view
from service.gateways.event_channel import EventChannel
from service.gateways.job_queue import JobQueue
from service.repositories import events as event_repository
from service.services import leases, webhook_deliveries
from service.settings import Settings

# A round trip or three for each batch, whatever its size.
BATCH_LIMIT = 500


async def claim_events(limit: int = BATCH_LIMIT) -> list[Event]:
    """Events that are due, those of each wallet in order."""
    return await event_repository.claim(now=utc_now(), lease_s=leases.EVENTS_S, limit=limit)


async def dispatch(events: Sequence[Event], channel: EventChannel, jobs: JobQueue, settings: Settings) -> None:
    """Safe to repeat at any point: who has had an event knows its number."""
    reach(CrashPoint.EVENT_CLAIMED)
    await channel.publish(_messages_of(events))
    reach(CrashPoint.EVENT_PUBLISHED)
    # Before the mark below, so that no event counts as dispatched whose deliveries are not kept; what raises leaves all
    # of them due.
    await webhook_deliveries.enqueue(events, jobs, settings)
    retention = timedelta(seconds=settings.event_retention_s)
    await event_repository.mark_dispatched([event.id for event in events], retention)


def _messages_of(events: Sequence[Event]) -> dict[str, bytes]:
    """By user, all of the batch in one message."""
    by_user: dict[str, list[dict[str, object]]] = defaultdict(list)
    for event in events:
        by_user[event.user_id].append(event_view(event))
    return {user_id: orjson.dumps(views) for user_id, views in by_user.items()}
