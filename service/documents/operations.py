"""Deposits and withdrawals: one document for each operation, alike but for the collection."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import COUNT, OPTIONAL_TEXT, POSITIVE_AMOUNT, TEXT, TIME
from service.domain.operations import OPEN_STATUSES, OperationStatus, OperationType

_INDEXES = [
    # Newest first for its owner: ids are UUIDv7, so that their order is that of creation.
    IndexModel([("user_id", 1), ("_id", -1)], name="user_newest"),
    # Open ones are few; closed ones need no room in this index.
    IndexModel(
        [("wallet_id", 1), ("status", 1)],
        name="wallet_open",
        partialFilterExpression={"status": {"$in": sorted(OPEN_STATUSES)}},
    ),
]
_VALIDATOR: dict[str, Any] = {
    "bsonType": "object",
    "required": ["_id", "type", "user_id", "wallet_id", "amount", "currency", "status", "account", "created_at"],
    "properties": {
        "_id": TEXT,
        "type": {"enum": [kind.value for kind in OperationType]},
        "user_id": TEXT,
        "wallet_id": TEXT,
        "amount": POSITIVE_AMOUNT,
        "currency": TEXT,
        "status": {"enum": [status.value for status in OperationStatus]},
        "account": TEXT,
        "category": OPTIONAL_TEXT,
        "description": OPTIONAL_TEXT,
        "metadata": {"bsonType": "object"},
        "failure_code": OPTIONAL_TEXT,
        "failure_message": OPTIONAL_TEXT,
        "bank_reference": OPTIONAL_TEXT,
        "attempts": COUNT,
        "created_at": TIME,
        "updated_at": TIME,
    },
}


class _OperationDocument(Document):
    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; ours are prefixed UUIDv7
    type: OperationType
    user_id: str
    wallet_id: str
    amount: int
    currency: str
    status: OperationStatus
    account: str
    category: str | None
    description: str | None
    metadata: dict[str, str]
    failure_code: str | None
    failure_message: str | None
    bank_reference: str | None
    attempts: int
    request_id: str | None
    created_at: datetime
    updated_at: datetime


class Deposit(_OperationDocument):
    class Settings:
        name = "deposits"
        indexes: ClassVar = _INDEXES
        validator: ClassVar = _VALIDATOR


class Withdrawal(_OperationDocument):
    class Settings:
        name = "withdrawals"
        indexes: ClassVar = _INDEXES
        validator: ClassVar = _VALIDATOR
