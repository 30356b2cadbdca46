"""Webhook endpoints with their sealed secrets, and what is on its way to them or has arrived."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import COUNT, FAILURES, TEXT, validator_of
from service.domain.webhook_deliveries import DeliveryStatus, WebhookDelivery
from service.domain.webhook_endpoints import WebhookEndpoint

# What queries have to say as well, or the indexes below are not used.
TAKEN: dict[str, Any] = {"slot": {"$gte": 0}}
WAITING: dict[str, Any] = {"due_at": {"$exists": True}}
# The server deletes what is past it.
_EXPIRY = IndexModel("expires_at", name="expiry", expireAfterSeconds=0)


class WebhookEndpointDocument(Document):
    class Settings:
        name = "webhook_endpoints"
        indexes: ClassVar = [
            # Deleted ones have no slot: of all others a user has one in each.
            IndexModel(
                [("user_id", 1), ("slot", 1)],
                name="owner_slot",
                unique=True,
                partialFilterExpression=TAKEN,
            ),
            _EXPIRY,
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(WebhookEndpoint, user_id=TEXT, url=TEXT)


class WebhookDeliveryDocument(Document):
    """`due_at` is when a worker may take it (again); it is absent once it is over."""

    class Settings:
        name = "webhook_deliveries"
        indexes: ClassVar = [
            # With whose they are, so that those of busy endpoints are passed over without being read.
            IndexModel(
                [("due_at", 1), ("endpoint_id", 1), ("user_id", 1)],
                name="due",
                partialFilterExpression=WAITING,
            ),
            IndexModel([("endpoint_id", 1), ("due_at", 1)], name="waiting", partialFilterExpression=WAITING),
            IndexModel("claim", name="claim", sparse=True),
            IndexModel([("endpoint_id", 1), ("_id", -1)], name="endpoint_newest"),
            _EXPIRY,
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(
            WebhookDelivery,
            endpoint_id=TEXT,
            user_id=TEXT,
            attempts=COUNT,
            **FAILURES,
            status={"enum": [status.value for status in DeliveryStatus]},
        )
