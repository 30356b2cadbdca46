"""Webhook deliveries: one event on its way to one endpoint, with every try and what came of it.

As Standard Webhooks 1.0.0 has it: the id stays the same however often it is sent, time and signatures are of the try.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

import orjson

from service.domain.clock import to_rfc3339
from service.domain.events import Event
from service.domain.identifiers import Prefix
from service.domain.webhook_endpoints import WebhookEndpoint

# What an endpoint is sent to try it out; it is of no wallet, and has no number.
TEST_EVENT: Final = "webhook.test"
# Stands in place of a try's error where a delivery waits, because its user has had as many in the hour as they may.
HELD_BACK: Final = "held_back"
# More than the usual schedule has, so that a delivery that was sent again shows its former tries for a while.
TRIES_KEPT: Final = 30
_EXCERPT_LIMIT: Final = 1024
# A delay drawn up to so much shorter or longer: what failed together must not come back together.
_JITTER: Final = 0.2
# An endpoint may ask for a pause, but not for being forgotten.
_LONGEST_PAUSE: Final = timedelta(days=1)
_HAS_RETRY_AFTER: Final = frozenset({429, 503})
_GONE: Final = 410
_REDIRECTS: Final = range(300, 400)
_SUCCESSES: Final = range(200, 300)
_HASH_DIGITS: Final = 20
_TIME_DIGITS: Final = 12


class DeliveryStatus(StrEnum):
    """`canceled`: the endpoint was disabled or deleted, or its owner deactivated, before it arrived."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"


class Outcome(StrEnum):
    """What a try came to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    GONE = "gone"


class Try(NamedTuple):
    """`code` is what was answered, `error` why that is no success or why there is none; `response` is its beginning."""

    at: datetime
    duration_ms: int
    code: int | None
    error: str | None
    response: str | None


class WebhookDelivery(NamedTuple):
    """`attempts` counts since `queued_at`: once more from the beginning where it is sent again. `due_at` while pending.

    `body` is what is sent, to the byte, each time.
    """

    id: str
    endpoint_id: str
    user_id: str
    event_id: str
    event_type: str
    body: bytes
    status: DeliveryStatus
    attempts: int
    tries: Sequence[Mapping[str, Any]]
    request_id: str | None
    queued_at: datetime
    created_at: datetime
    expires_at: datetime
    due_at: datetime | None = None
    claim: str | None = None
    delivered_at: datetime | None = None


def delivery_id(event_id: str, endpoint_id: str) -> str:
    """The same for the same two, so that queueing it twice is queueing it once; sorts as its event does."""
    event_time = event_id.partition("_")[2][:_TIME_DIGITS]
    digest = sha256(f"{event_id}:{endpoint_id}".encode()).hexdigest()
    return f"{Prefix.WEBHOOK_DELIVERY}_{event_time}{digest[:_HASH_DIGITS]}"


class Message(NamedTuple):
    """What goes to each endpoint that wants it; the body to the byte."""

    event_id: str
    event_type: str
    body: bytes
    request_id: str | None


def message_of(event: Event) -> Message:
    return Message(event.id, event.type, orjson.dumps(payload_of(event)), event.request_id)


def test_message(endpoint: WebhookEndpoint, event_id: str, request_id: str | None, now: datetime) -> Message:
    payload = {
        "type": TEST_EVENT,
        "timestamp": to_rfc3339(now),
        "data": {
            "event_id": event_id,
            "wallet_id": None,
            "sequence": None,
            "subject_id": endpoint.id,
            "status": "test",
            "previous_status": None,
            "subject": {},
        },
    }
    return Message(event_id, TEST_EVENT, orjson.dumps(payload), request_id)


def payload_of(event: Event) -> dict[str, Any]:
    """Says whom it is about, and by `event_id` and `sequence` what is double and what is missing."""
    return {
        "type": event.type,
        "timestamp": to_rfc3339(event.created_at),
        "data": {
            "event_id": event.id,
            "wallet_id": event.wallet_id,
            "sequence": event.sequence,
            "subject_id": event.subject_id,
            "status": event.status,
            "previous_status": event.previous_status,
            "subject": event.data,
        },
    }


def new_delivery(message: Message, endpoint: WebhookEndpoint, now: datetime, keep: timedelta) -> WebhookDelivery:
    return WebhookDelivery(
        id=delivery_id(message.event_id, endpoint.id),
        endpoint_id=endpoint.id,
        user_id=endpoint.user_id,
        status=DeliveryStatus.PENDING,
        attempts=0,
        tries=(),
        queued_at=now,
        created_at=now,
        expires_at=now + keep,
        due_at=now,
        **message._asdict(),
    )


def error_of(code: int) -> str | None:
    """None for a success. Only 2xx is one: who redirects has not taken it."""
    if code in _SUCCESSES:
        return None
    return "redirect_refused" if code in _REDIRECTS else "status_not_2xx"


def outcome_of(code: int | None, delivery: WebhookDelivery, delays_s: Sequence[int]) -> Outcome:
    if code is not None and error_of(code) is None:
        return Outcome.DELIVERED
    if code == _GONE:
        return Outcome.GONE
    # Who tries an endpoint out does not want to hear of it again in ten hours.
    has_another = delivery.event_type != TEST_EVENT and delivery.attempts <= len(delays_s)
    return Outcome.RETRY if has_another else Outcome.FAILED


def next_try(
    delivery: WebhookDelivery, delays_s: Sequence[int], pause: timedelta | None, drawn: float, now: datetime
) -> datetime:
    """Returns when to try again; `drawn` is from 0 to 1. A pause that was asked for is kept, within bounds."""
    usual = timedelta(seconds=delays_s[delivery.attempts - 1] * (1 - _JITTER + 2 * _JITTER * drawn))
    return now + max(usual, min(pause or usual, _LONGEST_PAUSE))


def pause_asked_for(code: int | None, retry_after: str | None, now: datetime) -> timedelta | None:
    """Retry-After (RFC 9110, section 10.2.3) in seconds or as a date, where the status makes sense of it."""
    if code not in _HAS_RETRY_AFTER or retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # Beyond this nobody looks, and timedelta overflows.
        return timedelta(seconds=int(text[:9]))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(timedelta(0), moment - now)


def excerpt(body: bytes) -> str:
    """The beginning of an answer, for people: whatever is not plainly visible is written out, so that a log's or a
    terminal's line stays one line. The limit is of what is shown: one byte may become six characters.
    """
    shown, length = [], 0
    for one in body[:_EXCERPT_LIMIT].decode("utf-8", "replace"):
        written = one if one.isprintable() else json.dumps(one)[1:-1]
        length += len(written)
        if length > _EXCERPT_LIMIT:
            break
        shown.append(written)
    return "".join(shown)


def webhook_delivery_view(delivery: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "endpoint_id": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "tries": [{**one, "at": to_rfc3339(one["at"])} for one in delivery.tries],
        "next_try_at": _shown(delivery.due_at),
        "delivered_at": _shown(delivery.delivered_at),
        "created_at": to_rfc3339(delivery.created_at),
    }


def listed_delivery_view(delivery: WebhookDelivery) -> dict[str, Any]:
    """As one among many: what was answered only in its last try, or a page would be megabytes."""
    view = webhook_delivery_view(delivery)
    return view | {"tries": [one | {"response": None} for one in view["tries"][:-1]] + view["tries"][-1:]}


def duration_ms(began_s: float, ended_s: float) -> int:
    return math.ceil((ended_s - began_s) * 1000)


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)
