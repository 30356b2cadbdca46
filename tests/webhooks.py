"""Endpoints, events and workers for tests of webhooks."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from service.database import Databases
from service.documents import User
from service.domain.clock import utc_now
from service.domain.events import Event, EventType, event_id
from service.domain.identifiers import Prefix, new_id
from service.domain.webhook_deliveries import WebhookDelivery
from service.domain.webhook_endpoints import WebhookEndpoint
from service.gateways.webhook_addresses import WebhookAddresses
from service.gateways.webhook_client import WebhookClient
from service.repositories import webhook_deliveries as delivery_repository
from service.repositories.webhook_deliveries import DeliveryFilter
from service.services.webhook_courier import Courier
from service.services.webhook_deliveries import Sender, enqueue
from service.services.webhook_endpoints import EndpointOrder, IssuedEndpoint, Registrar, register
from service.startup import Resources

# Long enough for all that tests queue.
_ROUNDS = 1000


def make_event(user: User, sequence: int = 1, **overrides: Any) -> Event:
    """Of a wallet of its own, unless it is given one."""
    wallet_id, now = overrides.pop("wallet_id", new_id(Prefix.WALLET)), utc_now()
    subject_id = new_id(Prefix.WITHDRAWAL)
    event = Event(
        id=event_id(wallet_id, sequence, now),
        type=EventType.WITHDRAWAL_SUCCEEDED,
        user_id=user.id,
        wallet_id=wallet_id,
        sequence=sequence,
        subject_id=subject_id,
        status="success",
        previous_status="processing",
        data={"id": subject_id, "status": "success", "amount": 1000},
        request_id="a-request",
        created_at=now,
    )
    return event._replace(**overrides)


async def make_endpoint(resources: Resources, user: User, url: str, *event_types: EventType) -> IssuedEndpoint:
    """For all types, unless some are named."""
    registrar = Registrar(resources.databases.client, resources.settings, resources.webhook_addresses)
    return await register(registrar, user.id, EndpointOrder(url, event_types or None, None), None)


def make_courier(resources: Resources, client: WebhookClient | None = None, **settings: Any) -> Courier:
    """One that has a client of the same settings, unless it is given one."""
    changed = resources.settings.model_copy(update=settings)
    webhooks = client or WebhookClient(WebhookAddresses(changed), changed.webhook_timeout_s)
    return Courier(resources.databases.client, webhooks, resources.jobs, changed, resources.rate_limits)


def sender_of(resources: Resources) -> Sender:
    return Sender(resources.jobs, resources.settings, resources.rate_limits)


async def queue(resources: Resources, *events: Event) -> None:
    await enqueue(events, resources.jobs, resources.settings)


async def deliver_due(courier: Courier) -> None:
    """One after the other, until nothing is due; what others have left behind too."""
    for _ in range(_ROUNDS):
        rows = await courier.claim(10)
        if not rows:
            return
        for row in rows:
            await courier.deliver(row)
    raise AssertionError("there is no end of it")


async def deliveries_of(endpoint: WebhookEndpoint) -> list[WebhookDelivery]:
    """Oldest first."""
    found = await delivery_repository.find_newest(endpoint.id, DeliveryFilter(), before_id=None, limit=1000)
    return found[::-1]


async def change_delivery(databases: Databases, delivery_id: str, **fields: Any) -> None:
    await databases.wallet["webhook_deliveries"].update_one({"_id": delivery_id}, {"$set": fields})


async def change_endpoint(databases: Databases, endpoint_id: str, **fields: Any) -> None:
    await databases.wallet["webhook_endpoints"].update_one({"_id": endpoint_id}, {"$set": fields})


async def make_due(databases: Databases, deliveries: Sequence[WebhookDelivery], now: datetime | None = None) -> None:
    """As if the wait were over."""
    moment = (now or utc_now()) - timedelta(seconds=1)
    for delivery in deliveries:
        await change_delivery(databases, delivery.id, due_at=moment)
