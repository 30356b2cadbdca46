"""Webhook deliveries: events that are queued for endpoints, by the service itself or once more by their owners."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import structlog
from limits import RateLimitItemPerHour

from service.domain.clock import utc_now
from service.domain.events import Event
from service.domain.identifiers import Prefix, new_id
from service.domain.webhook_deliveries import (
    TEST_EVENT,
    WebhookDelivery,
    message_of,
    new_delivery,
    test_message,
)
from service.domain.webhook_endpoints import EndpointStatus, WebhookEndpoint
from service.errors import NotFound, RateLimitExceeded, WebhookEndpointDisabled, WebhookTestPending
from service.gateways.job_queue import Job, JobQueue
from service.gateways.rate_limits import RateLimits, claim
from service.metrics import rate_limited
from service.repositories import webhook_deliveries as delivery_repository
from service.repositories import webhook_endpoints as endpoint_repository
from service.repositories.webhook_deliveries import DeliveryFilter as DeliveryFilter  # noqa: PLC0414 controllers name it, and may not reach below
from service.services.webhook_endpoints import get_endpoint
from service.settings import Settings

log = structlog.get_logger()

_ON_DEMAND = "webhook_sends"


async def enqueue(events: Sequence[Event], jobs: JobQueue, settings: Settings) -> None:
    """A delivery for each event and each endpoint that wants it; the same events again change nothing.

    Of a user who may not act, and of an endpoint that is disabled, nothing is queued: it is in the events.
    """
    if not events:
        return
    listening: dict[str, list[WebhookEndpoint]] = {}
    for endpoint in await endpoint_repository.find_listening(list({event.user_id for event in events})):
        listening.setdefault(endpoint.user_id, []).append(endpoint)
    if not listening:
        return
    now, keep = utc_now(), timedelta(days=settings.webhook_retention_days)
    deliveries = []
    for event in events:
        wanting = [endpoint for endpoint in listening.get(event.user_id, ()) if endpoint.takes(event.type)]
        if wanting:
            message = message_of(event)
            deliveries += [new_delivery(message, endpoint, now, keep) for endpoint in wanting]
    if deliveries and await delivery_repository.ensure_many(deliveries):
        jobs.wake(Job.DELIVER_WEBHOOKS)


class Sender(NamedTuple):
    """What sending on demand takes."""

    jobs: JobQueue
    settings: Settings
    rate_limits: RateLimits


async def send_test(user_id: str, endpoint_id: str, sender: Sender, request_id: str | None) -> WebhookDelivery:
    """Queues an event that is none; it is tried once, and one waits at a time.

    Raises NotFound, WebhookEndpointDisabled, WebhookTestPending, RateLimitExceeded.
    """
    endpoint = await _active(user_id, endpoint_id)
    if await delivery_repository.has_waiting(endpoint.id, TEST_EVENT):
        raise WebhookTestPending
    await _charge(user_id, sender)
    now = utc_now()
    message = test_message(endpoint, new_id(Prefix.EVENT), request_id, now)
    delivery = new_delivery(message, endpoint, now, timedelta(days=sender.settings.webhook_retention_days))
    await delivery_repository.ensure_many([delivery])
    sender.jobs.wake(Job.DELIVER_WEBHOOKS)
    return delivery


async def redeliver(user_id: str, endpoint_id: str, delivery_id: str, sender: Sender) -> WebhookDelivery:
    """The same once more, and from the beginning, whatever became of it.

    Raises NotFound, WebhookEndpointDisabled, RateLimitExceeded.
    """
    endpoint = await _active(user_id, endpoint_id)
    delivery = await _find(delivery_id, endpoint.id)
    await _charge(user_id, sender)
    now = utc_now()
    keep = timedelta(days=sender.settings.webhook_retention_days)
    queued = await delivery_repository.queue_again(delivery, now, now + keep)
    if queued is None:
        raise NotFound(f"There is no delivery {delivery_id}")
    sender.jobs.wake(Job.DELIVER_WEBHOOKS)
    log.info("webhook.redelivery_asked_for", endpoint_id=endpoint_id, delivery_id=delivery_id)
    return queued


async def _charge(user_id: str, sender: Sender) -> None:
    """Counts what is sent on demand for a limit of its own: requests could flood somebody else's door."""
    amount = sender.settings.webhook_sends_per_hour
    if not amount:
        return
    standing = await sender.rate_limits.take([claim(RateLimitItemPerHour(amount, namespace=_ON_DEMAND), user_id)])
    if not standing.is_granted:
        rate_limited(standing.name)
        raise RateLimitExceeded(retry_after_s=standing.retry_after_s)


async def get_delivery(user_id: str, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
    """Raises NotFound."""
    endpoint = await get_endpoint(user_id, endpoint_id)
    return await _find(delivery_id, endpoint.id)


async def list_deliveries(
    user_id: str, endpoint_id: str, wanted: DeliveryFilter, *, before_id: str | None, limit: int
) -> list[WebhookDelivery]:
    """Newest first. Raises NotFound."""
    endpoint = await get_endpoint(user_id, endpoint_id)
    return await delivery_repository.find_newest(endpoint.id, wanted, before_id=before_id, limit=limit)


async def _active(user_id: str, endpoint_id: str) -> WebhookEndpoint:
    endpoint = await get_endpoint(user_id, endpoint_id)
    if endpoint.status is not EndpointStatus.ACTIVE:
        raise WebhookEndpointDisabled(reason=endpoint.disabled_reason)
    return endpoint


async def _find(delivery_id: str, endpoint_id: str) -> WebhookDelivery:
    delivery = await delivery_repository.find(delivery_id, endpoint_id)
    if delivery is None:
        raise NotFound(f"There is no delivery {delivery_id}")
    return delivery
