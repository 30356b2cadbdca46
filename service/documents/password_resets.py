"""Who asked for a new password lately: hashes of the tokens that they were sent."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, TIME, validator_part
from service.domain.password_resets import ResetToken


class PasswordReset(Document):
    """One for each user, so that a single compare-and-set counts mails and uses tokens up; oldest token first.

    It outlives its tokens by as long as their mails count.
    """

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; this is the user's id
    tokens: list[dict[str, Any]]
    expires_at: datetime

    class Settings:
        name = "password_resets"
        indexes: ClassVar = [
            IndexModel("tokens.token_hash", name="token"),
            IndexModel("expires_at", name="expiry", expireAfterSeconds=0),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "tokens", "expires_at"],
            "properties": {
                "_id": TEXT,
                "tokens": {"bsonType": "array", "items": validator_part(ResetToken)},
                "expires_at": TIME,
            },
        }
