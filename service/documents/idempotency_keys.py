"""The answer that belongs to a user's idempotency key, kept until `expires_at`."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, TIME


class IdempotencyKey(Document):
    """`_id` is the user's id and the key; `fingerprint` is a keyed hash of method, route and canonical body."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId
    fingerprint: str
    status_code: int
    body: bytes
    created_at: datetime
    expires_at: datetime

    class Settings:
        name = "idempotency_keys"
        indexes: ClassVar = [IndexModel("expires_at", name="expiry", expireAfterSeconds=0)]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "fingerprint", "status_code", "body", "created_at", "expires_at"],
            "properties": {
                "_id": TEXT,
                "fingerprint": TEXT,
                "status_code": {"bsonType": ["int", "long"]},
                "body": {"bsonType": "binData"},
                "created_at": TIME,
                "expires_at": TIME,
            },
        }
