"""What has to happen after a commit; a row stays until it has happened."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import COUNT, TEXT, TIME
from service.domain.outbox import OutboxTopic


class OutboxDocument(Document):
    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; topic and subject together
    topic: OutboxTopic
    subject_id: str
    attempts: int
    visits: int
    request_id: str | None
    due_at: datetime
    created_at: datetime
    traceparent: str | None = None
    claim: str | None = None
    last_outcome: str | None = None
    expected_by: datetime | None = None

    class Settings:
        name = "outbox"
        indexes: ClassVar = [
            # Each topic is a queue of its own, so that none starves behind another.
            IndexModel([("topic", 1), ("due_at", 1)], name="due_by_topic"),
            IndexModel("claim", name="claim", sparse=True),
            # Orders that the bank has accepted and not carried out when they were asked about.
            IndexModel("expected_by", name="expected_by", sparse=True),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "topic", "subject_id", "attempts", "due_at", "created_at"],
            "properties": {
                "_id": TEXT,
                "topic": {"enum": [topic.value for topic in OutboxTopic]},
                "subject_id": TEXT,
                "attempts": COUNT,
                "due_at": TIME,
                "created_at": TIME,
                "expected_by": TIME,
            },
        }
