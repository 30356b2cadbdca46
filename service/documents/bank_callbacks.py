"""The inbox: every verified callback of the bank as it was received, once for each webhook-id."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, TIME


class BankCallback(Document):
    """`due_at` is when a worker may take it (again); it is absent once the callback was applied."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; this is the webhook-id
    payload: dict[str, Any]
    request_id: str | None
    traceparent: str | None = None
    attempts: int
    received_at: datetime
    due_at: datetime | None = None
    claim: str | None = None
    applied_at: datetime | None = None
    result: str | None = None
    # The incident that it led to.
    incident_id: str | None = None
    # The webhook-id that it came with, where another body had come with that one before.
    reuses: str | None = None

    class Settings:
        name = "bank_callbacks"
        indexes: ClassVar = [
            # Applied ones have no due_at, so that the worker's index holds only what is to be done.
            IndexModel("due_at", name="due", sparse=True),
            IndexModel("claim", name="claim", sparse=True),
            IndexModel("payload.reference", name="reference"),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "payload", "received_at"],
            "properties": {"_id": TEXT, "payload": {"bsonType": "object"}, "received_at": TIME},
        }
