"""What is sent to webhook endpoints, and what is made of the answers."""

import random
from collections import Counter
from datetime import datetime, timedelta
from time import monotonic

import structlog
from limits import RateLimitItemPerHour
from standardwebhooks.webhooks import Webhook

from service.crash_points import CrashPoint, reach
from service.database import Client
from service.domain.clock import utc_now
from service.domain.sealed import SealedField
from service.domain.webhook_deliveries import (
    Outcome,
    Try,
    WebhookDelivery,
    duration_ms,
    error_of,
    excerpt,
    next_try,
    outcome_of,
    pause_asked_for,
)
from service.domain.webhook_endpoints import DisabledReason, WebhookEndpoint
from service.gateways.job_queue import Job, JobQueue
from service.gateways.rate_limits import RateLimits, claim
from service.gateways.webhook_addresses import WebhookUnanswered
from service.gateways.webhook_client import WebhookAnswer, WebhookClient
from service.metrics import delivery_attempted
from service.repositories import webhook_deliveries as delivery_repository
from service.repositories import webhook_endpoints as endpoint_repository
from service.repositories.webhook_deliveries import DeliveryFilter as DeliveryFilter  # noqa: PLC0414 controllers name it, and may not reach below
from service.repositories.webhook_deliveries import InHand, Shares
from service.services import leases
from service.services.sealing import open_sealed
from service.services.webhook_endpoints import disable_by_itself
from service.settings import Settings

log = structlog.get_logger()

# One in so many hands is for users who have nothing in hand: a few who let us wait must not take them all.
_KEPT_FOR_FIRSTS = 4
_HELD_BACK_SPREAD_S = 3600.0


class Courier:
    """One for each worker: takes what is due and sends it. It knows how much of whose it has in hand."""

    def __init__(
        self, client: Client, webhooks: WebhookClient, jobs: JobQueue, settings: Settings, rate_limits: RateLimits
    ) -> None:
        self._client, self._webhooks, self._jobs, self._settings = client, webhooks, jobs, settings
        self._rate_limits = rate_limits
        hands = settings.webhook_concurrency
        self._shares = Shares(
            settings.webhook_endpoint_concurrency,
            settings.webhook_user_concurrency,
            hands - hands // _KEPT_FOR_FIRSTS,
        )
        self._in_hand = InHand(Counter(), Counter())

    async def claim(self, limit: int) -> list[WebhookDelivery]:
        """Claims what is due, for as long as sending may take; a slow endpoint's only when its hands are free."""
        rows = await delivery_repository.claim(
            now=utc_now(),
            lease_s=leases.deliveries_s(self._settings),
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
        if await self._is_held_back(delivery):
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

    async def _is_held_back(self, delivery: WebhookDelivery) -> bool:
        """Postpones what is beyond its user's bound, and notes that where the owner reads of tries. It is no try."""
        amount = self._settings.webhook_deliveries_per_hour
        if not amount:
            return False
        limit = RateLimitItemPerHour(amount, namespace="webhook_deliveries")
        standing = await self._rate_limits.take([claim(limit, delivery.user_id)])
        if standing.is_granted:
            return False
        now = utc_now()
        # Spread out over an hour, so that not all that wait come back for the first place that is free.
        wait_s = standing.reset_in_s + random.uniform(0, _HELD_BACK_SPREAD_S)  # noqa: S311 no secret
        await delivery_repository.note_held_back(delivery, now, now + timedelta(seconds=wait_s))
        log.info("webhook.held_back", endpoint_id=delivery.endpoint_id, wait_s=round(wait_s))
        return True

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
                # By the clock of the try, so that its time tells whether that clock was ahead (clock_repair.py).
                over = attempt.at + timedelta(milliseconds=attempt.duration_ms)
                due_at = next_try(delivery, delays_s, pause, random.random(), over)  # noqa: S311 no secret
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
