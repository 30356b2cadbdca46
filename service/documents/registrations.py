"""Registrations whose address is not proven yet."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import HASH, TEXT, validator_of
from service.domain.registrations import Registration


class RegistrationDocument(Document):
    class Settings:
        name = "registrations"
        indexes: ClassVar = [
            IndexModel("token_hash", name="token", unique=True),
            IndexModel("email", name="email"),
            IndexModel("expires_at", name="expiry", expireAfterSeconds=0),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(Registration, email=TEXT, token_hash=HASH)
