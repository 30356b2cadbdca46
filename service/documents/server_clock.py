"""The latest time that was seen at the server, times that its clock was set back from, and who repairs what was
written by them.
"""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document

from service.documents.validation import TEXT, TIME


class ServerClockDocument(Document):
    """One document. All of its times are the server's.

    `leaps` are the last times by which the clock was ahead for more than a minute, and when a process noticed that it
    was set back. For check-ledger, since the server's logical clock tells `highest_at` until that time comes again.
    """

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId
    seen_at: datetime
    highest_at: datetime
    repair_claim: str | None
    repair_until: datetime | None
    leaps: list[dict[str, datetime]]

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
                "leaps": {
                    "bsonType": "array",
                    "items": {
                        "bsonType": "object",
                        "required": ["noticed_at", "highest_at"],
                        "properties": {"noticed_at": TIME, "highest_at": TIME},
                        "additionalProperties": False,
                    },
                },
            },
            "additionalProperties": False,
        }
