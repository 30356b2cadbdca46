"""A person who can log in."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pydantic import BaseModel, Field
from pymongo import IndexModel


class Lockdown(BaseModel):
    """Stands until two admins lift it. `event_id` is the id of the audit event that it began with.

    `was_active`: a user who was deactivated before stays deactivated when the lockdown is lifted.
    """

    event_id: str
    locked_by: str
    reason: str
    locked_at: datetime
    was_active: bool
    lift_proposed_by: str | None = None
    lift_reason: str | None = None
    lift_proposed_at: datetime | None = None
    lift_approved_by: str | None = None
    lift_approved_at: datetime | None = None


class User(Document):
    """`email` is case-folded; `password_hash` is argon2id in PHC format."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; ours are prefixed UUIDv7
    first_name: str
    last_name: str
    email: str
    password_hash: str
    roles: list[str]
    is_active: bool
    token_version: int
    created_at: datetime
    updated_at: datetime
    # When whoever has the account proved to read its mails. Until then it may be somebody else's address.
    email_verified_at: datetime | None = None
    # When `token_version` was raised last.
    tokens_ended_at: datetime | None = None
    # The audit event of the deactivation that stands. A release of a withdrawal overrides that one and no later one.
    deactivation_event_id: str | None = None
    # Who asked for or confirmed a role of theirs: these and they do not approve what the other asks for.
    role_givers: list[str] = Field(default_factory=list)
    lockdown: Lockdown | None = None
    # Since a lockdown was lifted: the password from before may be the thief's. A reset by mail ends it.
    must_reset_password: bool = False
    # What this admin did to other users: a guard that two who demote each other at once both write.
    admin_deeds: int = 0

    @property
    def takes_notices(self) -> bool:
        """Nobody is told of an account that somebody else has opened in their name."""
        return self.is_active and self.email_verified_at is not None

    class Settings:
        name = "users"
        indexes: ClassVar = [
            IndexModel("email", name="email", unique=True),
            IndexModel(
                "tokens_ended_at",
                name="tokens_ended",
                partialFilterExpression={"tokens_ended_at": {"$type": "date"}},
            ),
            IndexModel("role_givers", name="role_givers", sparse=True),
            IndexModel([("roles", 1), ("_id", -1)], name="role_newest"),
            IndexModel([("is_active", 1), ("_id", -1)], name="active_newest"),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "email", "password_hash", "roles", "is_active", "token_version"],
            "properties": {
                "_id": {"bsonType": "string"},
                "email": {"bsonType": "string"},
                "password_hash": {"bsonType": "string"},
                "roles": {"bsonType": "array", "items": {"enum": ["user", "service", "admin"]}},
                "role_givers": {"bsonType": "array", "items": {"bsonType": "string"}},
                "is_active": {"bsonType": "bool"},
                "token_version": {"bsonType": ["int", "long"]},
                "lockdown": {"bsonType": ["object", "null"]},
            },
        }
