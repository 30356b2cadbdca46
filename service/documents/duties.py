"""Work that some worker has to do from time to time: one document for each duty, with where it has got to."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document

from service.documents.validation import TEXT, TIME


class DutyDocument(Document):
    """Whoever finds `due_at` past takes it by moving it on, and says so in `claim`; `progress` is the duty's own."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId
    due_at: datetime
    claim: str | None
    progress: dict[str, Any]

    class Settings:
        name = "duties"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "due_at", "progress"],
            "properties": {"_id": TEXT, "due_at": TIME, "progress": {"bsonType": "object"}},
        }
