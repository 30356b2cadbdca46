"""Workers as they tell of themselves, every few seconds."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.workers import Worker

# Longer than anybody asks which workers there were.
_KEPT_S = 7 * 24 * 3600


class WorkerDocument(Document):
    class Settings:
        name = "workers"
        indexes: ClassVar = [IndexModel("seen_at", name="seen", expireAfterSeconds=_KEPT_S)]
        validator: ClassVar[dict[str, Any]] = validator_of(
            Worker, host=TEXT, version=TEXT, clock_difference_ms={"bsonType": ["long", "null"]}
        )
