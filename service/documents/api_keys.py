"""API keys of services: hashes of their secrets only."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import HASH, TEXT, validator_of
from service.domain.api_keys import ApiKey
from service.domain.permissions import KEY_PERMISSIONS


class ApiKeyDocument(Document):
    class Settings:
        name = "api_keys"
        indexes: ClassVar = [
            IndexModel("prefix", name="prefix", unique=True),
            IndexModel([("user_id", 1), ("_id", -1)], name="user_newest"),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(
            ApiKey,
            user_id=TEXT,
            prefix=TEXT,
            secret_hash=HASH,
            permissions={"bsonType": "array", "minItems": 1, "items": {"enum": sorted(KEY_PERMISSIONS)}},
        )
