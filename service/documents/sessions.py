"""Sessions with their refresh tokens, of which there are hashes only."""

from datetime import timedelta
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import HASH, TEXT, validator_of
from service.domain.sessions import Session

# For whoever wants to know why somebody was logged out last week.
_KEPT_FOR = timedelta(days=7)


class SessionDocument(Document):
    class Settings:
        name = "sessions"
        indexes: ClassVar = [
            IndexModel("handle_hash", name="handle", unique=True),
            IndexModel([("user_id", 1), ("revoked_at", 1), ("_id", -1)], name="user_newest"),
            IndexModel("revoked_at", name="revoked", partialFilterExpression={"revoked_at": {"$type": "date"}}),
            IndexModel("expires_at", name="expiry", expireAfterSeconds=int(_KEPT_FOR.total_seconds())),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(
            Session, user_id=TEXT, handle_hash=HASH, secret_hash=HASH, nonce={"bsonType": "binData"}
        )
