"""The latest time that was seen at the server, and who repairs what was written by it."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document

from service.documents.validation import TEXT, TIME


class ServerClockDocument(Document):
    """One document. All of its times are the server's."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId
    seen_at: datetime
    highest_at: datetime
    repair_claim: str | None
    repair_until: datetime | None

    class Settings:
        name = "server_clock"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "seen_at", "highest_at"],
            "properties": {
                "_id": TEXT,
                "seen_at": TIME,
                "highest_at": TIME,
                "repair_claim": TEXT,
                "repair_until": TIME,
            },
            "additionalProperties": False,
        }
