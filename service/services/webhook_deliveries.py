"""Webhook deliveries: events that are queued for endpoints, sent to them, and sent again until they have arrived."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import NamedTuple

import structlog
from limits import RateLimitItemPerHour
from standardwebhooks.webhooks import Webhook

from service.crash_points import CrashPoint, reach
from service.database import Client
from service.domain.clock import utc_now
from service.domain.events import Event
from service.domain.identifiers import Prefix, new_id
from service.domain.sealed import SealedField
from service.domain.webhook_deliveries import (
    TEST_EVENT,
    Outcome,
    Try,
    WebhookDelivery,
    duration_ms,
    error_of,
    excerpt,
    message_of,
    new_delivery,
    next_try,
    outcome_of,
    pause_asked_for,
    test_message,
)
from service.domain.webhook_endpoints import DisabledReason, EndpointStatus, WebhookEndpoint
from service.errors import NotFound, RateLimitExceeded, WebhookEndpointDisabled, WebhookTestPending
from service.gateways.job_queue import Job, JobQueue
from service.gateways.rate_limits import RateLimits, claim
from service.gateways.webhook_client import WebhookAnswer, WebhookClient, WebhookUnanswered
from service.metrics import delivery_attempted, rate_limited
from service.repositories import webhook_deliveries as delivery_repository
from service.repositories import webhook_endpoints as endpoint_repository
from service.repositories.webhook_deliveries import DeliveryFilter as DeliveryFilter  # noqa: PLC0414 controllers name it, and may not reach below
from service.repositories.webhook_deliveries import InHand, Shares
from service.services.sealing import open_sealed
from service.services.webhook_endpoints import disable_by_itself, get_endpoint
from service.settings import Settings

log = structlog.get_logger()

# Beside the sending itself: a few round trips to the database, on a bad day.
_NOTING_LIMIT_S = 15.0
# One in so many hands is for users who have nothing in hand: a few who let us wait must not take them all.
_KEPT_FOR_FIRSTS = 4
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


class Courier:
    """One for each worker: takes what is due and sends it. It knows how much of whose it has in hand."""

    def __init__(self, client: Client, webhooks: WebhookClient, jobs: JobQueue, settings: Settings) -> None:
        self._client, self._webhooks, self._jobs, self._settings = client, webhooks, jobs, settings
        hands = settings.webhook_concurrency
        self._shares = Shares(
            settings.webhook_endpoint_concurrency,
            settings.webhook_user_concurrency,
            hands - hands // _KEPT_FOR_FIRSTS,
        )
        self._in_hand = InHand(Counter(), Counter())

    async def claim(self, limit: int) -> list[WebhookDelivery]:
        """What is due, for as long as sending it may take. A slow endpoint's are left for when its hands are free."""
        rows = await delivery_repository.claim(
            now=utc_now(),
            lease_s=self._settings.webhook_timeout_s + _NOTING_LIMIT_S,
            limit=limit,
            shares=self._shares,
            in_hand=self._in_hand,
        )
        self._in_hand.by_endpoint.update(row.endpoint_id for row in rows)
        self._in_hand.by_user.update(row.user_id for row in rows)
        return rows

    async def deliver(self, delivery: WebhookDelivery) -> None:
        """One try; what it came to is noted with the delivery."""
        reach(CrashPoint.DELIVERY_CLAIMED)
        structlog.contextvars.bind_contextvars(request_id=delivery.request_id, delivery_id=delivery.id)
        try:
            await self._try(delivery)
        finally:
            self._let_go(delivery)

    def _let_go(self, delivery: WebhookDelivery) -> None:
        was_full = (
            self._in_hand.by_endpoint[delivery.endpoint_id] >= self._shares.of_endpoint
            or self._in_hand.by_user[delivery.user_id] >= self._shares.of_user
            or self._in_hand.by_user.total() >= self._shares.of_seconds
        )
        for counts, one in (
            (self._in_hand.by_endpoint, delivery.endpoint_id),
            (self._in_hand.by_user, delivery.user_id),
        ):
            counts[one] -= 1
            if not counts[one]:
                del counts[one]
        if was_full:
            # More of the same may wait that was passed over.
            self._jobs.wake(Job.DELIVER_WEBHOOKS)

    async def _try(self, delivery: WebhookDelivery) -> None:
        endpoint = await endpoint_repository.find_live(delivery.endpoint_id)
        if endpoint is None:
            await delivery_repository.cancel(delivery)
            return
        at, began_s = utc_now(), monotonic()
        headers = signed_headers(delivery, endpoint, self._settings, at)
        answer: WebhookAnswer | None = None
        try:
            answer = await self._webhooks.post(endpoint.url, headers, delivery.body, delivery.user_id)
        except WebhookUnanswered as unanswered:
            error: str | None = unanswered.failure.value
        else:
            error = error_of(answer.code)
        reach(CrashPoint.DELIVERY_ANSWERED)
        attempt = Try(
            at=at,
            duration_ms=duration_ms(began_s, monotonic()),
            code=None if answer is None else answer.code,
            error=error,
            response=None if answer is None else excerpt(answer.body),
        )
        outcome = outcome_of(attempt.code, delivery, self._settings.webhook_retry_delays_s)
        delivery_attempted(outcome.value)
        log.info(
            "webhook.tried",
            endpoint_id=endpoint.id,
            outcome=outcome.value,
            code=attempt.code,
            error=error,
            attempts=delivery.attempts,
            duration_ms=attempt.duration_ms,
        )
        pause = pause_asked_for(attempt.code, None if answer is None else answer.retry_after, utc_now())
        await self._note(delivery, endpoint, attempt, outcome, pause)

    async def _note(
        self,
        delivery: WebhookDelivery,
        tried: WebhookEndpoint,
        attempt: Try,
        outcome: Outcome,
        pause: timedelta | None,
    ) -> None:
        match outcome:
            case Outcome.DELIVERED:
                # First, so that nobody disables an endpoint whose success is not noted yet.
                await endpoint_repository.note_delivery(delivery.endpoint_id, attempt.at)
                await delivery_repository.note_delivered(delivery, attempt)
            case Outcome.RETRY:
                delays_s = self._settings.webhook_retry_delays_s
                due_at = next_try(delivery, delays_s, pause, random.random(), utc_now())  # noqa: S311 no secret
                await delivery_repository.note_retry(delivery, attempt, due_at)
            case Outcome.FAILED:
                is_ours = await delivery_repository.note_failed(delivery, attempt)
                if is_ours and delivery.attempts > len(self._settings.webhook_retry_delays_s):
                    await self._disable(delivery, tried, DisabledReason.FAILING)
            case Outcome.GONE:
                await delivery_repository.note_failed(delivery, attempt)
                await self._disable(delivery, tried, DisabledReason.GONE)

    async def _disable(self, delivery: WebhookDelivery, tried: WebhookEndpoint, reason: DisabledReason) -> None:
        if await disable_by_itself(self._client, tried, reason, delivery.queued_at, delivery.request_id):
            self._jobs.wake(Job.DRAIN_OUTBOX)


def signed_headers(
    delivery: WebhookDelivery, endpoint: WebhookEndpoint, settings: Settings, at: datetime
) -> dict[str, str]:
    """Standard Webhooks 1.0.0; while a secret is on its way out, a signature by each, the new one's first.

    Raises Unreadable.
    """
    body = delivery.body.decode()
    signatures = [
        Webhook(open_sealed(settings, sealed, SealedField.WEBHOOK_SECRET, endpoint.id)).sign(delivery.id, at, body)
        for sealed in endpoint.sealed_secrets(at)
    ]
    return {
        "content-type": "application/json",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


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
    """What is sent on demand has its own limit: the requests would let each be a flood at somebody else's door."""
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
