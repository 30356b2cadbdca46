"""The simulated bank's own journal, in its own database: the independent witness of what was paid."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import COUNT, POSITIVE_AMOUNT, TEXT, TIME


class BankOrder(Document):
    """`payments` holds one row for each time that money moved: more than one would be a double payment."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; this is our reference
    kind: str
    amount: int
    currency: str
    account: str
    state: str
    bank_reference: str
    outcome: str
    failure_code: str | None
    failure_message: str | None
    payments: list[dict[str, Any]]
    submissions: int
    attempts: int
    created_at: datetime
    executed_at: datetime | None = None
    traceparent: str | None = None
    due_at: datetime | None = None
    claim: str | None = None

    class Settings:
        name = "orders"
        indexes: ClassVar = [
            IndexModel("due_at", name="due", sparse=True),
            IndexModel("claim", name="claim", sparse=True),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "kind", "amount", "currency", "state", "payments", "submissions", "created_at"],
            "properties": {
                "_id": TEXT,
                "kind": {"enum": ["payout", "collection"]},
                "amount": POSITIVE_AMOUNT,
                "currency": TEXT,
                "state": {"enum": ["accepted", "success", "failed"]},
                "payments": {"bsonType": "array"},
                "submissions": COUNT,
                "created_at": TIME,
            },
        }
