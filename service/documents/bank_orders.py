"""The simulated bank's own journal, in its own database: the independent witness of what was paid."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import COUNT, POSITIVE_AMOUNT, TEXT, TIME


class BankOrder(Document):
    """`payments` and `returns` hold one row for each time that money moved, there and back: more than one payment would
    be a double one. `reports` is what the bank has still to say, when, and under which webhook-id; `said` has the
    ids of what was said and taken.
    """

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; this is our reference
    kind: str
    amount: int
    currency: str
    account: str
    behaviour: str
    state: str
    bank_reference: str
    outcome: str
    failure_code: str | None
    failure_message: str | None
    payments: list[dict[str, Any]]
    returns: list[dict[str, Any]]
    reports: list[dict[str, Any]]
    said: list[str] | None = None
    submissions: int
    attempts: int
    created_at: datetime
    execute_at: datetime
    executed_at: datetime | None = None
    traceparent: str | None = None
    return_at: datetime | None = None
    return_reference: str | None = None
    due_at: datetime | None = None
    claim: str | None = None

    class Settings:
        name = "orders"
        indexes: ClassVar = [
            IndexModel("due_at", name="due", sparse=True),
            IndexModel("claim", name="claim", sparse=True),
            # For statements.
            IndexModel("payments.at", name="paid", sparse=True),
            IndexModel("returns.at", name="returned", sparse=True),
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
                "returns": {"bsonType": "array"},
                "reports": {"bsonType": "array"},
                "submissions": COUNT,
                "created_at": TIME,
            },
        }
