"""Tickets for WebSockets that were used, by their hash; MongoDB removes them once they have expired anyway."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import HASH, TIME


class UsedTicket(Document):
    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; this is the ticket's SHA-256
    expires_at: datetime

    class Settings:
        name = "used_tickets"
        indexes: ClassVar = [IndexModel("expires_at", name="expiry", expireAfterSeconds=0)]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "expires_at"],
            "properties": {"_id": HASH, "expires_at": TIME},
            "additionalProperties": False,
        }
