"""A user's authenticator app: its secret, encrypted, and what of its codes is used up."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import COUNT, HASH, TEXT, TIME, validator_part
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge


class TotpEnrolment(Document):
    """`sealed_secret` opens for this user only, null without an enrolment; `recovery_hashes` are keyed hashes.

    The document outlives the enrolment: the tries counted until `tries_until` must not start anew with it.
    """

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; this is the user's id
    status: str
    secret_id: str
    sealed_secret: dict[str, Any] | None
    last_step: int
    recovery_hashes: list[str]
    tries: int
    tries_until: datetime
    created_at: datetime
    updated_at: datetime
    activated_at: datetime | None
    last_use: str = ""
    challenge: dict[str, Any] | None = None
    confirms_from: datetime | None = None
    mails: int = 0
    mails_until: datetime | None = None

    class Settings:
        name = "totp_enrolments"
        indexes: ClassVar[list[IndexModel]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": [
                "_id",
                "status",
                "secret_id",
                "sealed_secret",
                "last_step",
                "recovery_hashes",
                "tries",
                "tries_until",
            ],
            "properties": {
                "_id": TEXT,
                "status": {"enum": ["none", "pending", "active"]},
                "secret_id": {"bsonType": "string"},
                "sealed_secret": {"anyOf": [validator_part(Sealed), {"bsonType": "null"}]},
                "last_step": COUNT,
                "recovery_hashes": {"bsonType": "array", "items": HASH},
                "tries": COUNT,
                "tries_until": TIME,
                "challenge": {"anyOf": [validator_part(Challenge, tries_left=COUNT), {"bsonType": "null"}]},
                "confirms_from": {"bsonType": ["date", "null"]},
                "mails": COUNT,
                "mails_until": {"bsonType": ["date", "null"]},
            },
        }
