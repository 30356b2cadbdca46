"""How the simulated bank is doing, in its own database, so that every process sees the same: one document."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document

from service.documents.validation import TEXT


class BankConditions(Document):
    """`clock_offset_ms` is how far the bank's clock is ahead of ours; it is down until `down_until` of our clock."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; there is one of these
    clock_offset_ms: int = 0
    down_until: datetime | None = None
    hangs: bool = False

    class Settings:
        name = "conditions"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id"],
            "properties": {
                "_id": TEXT,
                "clock_offset_ms": {"bsonType": "long", "minimum": 0},
                "down_until": {"bsonType": ["date", "null"]},
                "hangs": {"bsonType": "bool"},
            },
        }
