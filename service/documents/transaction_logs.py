"""The log: one entry for each movement of a wallet, insert-only by database role, chained by hash."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import AMOUNT, HASH, OPTIONAL_TEXT, POSITIVE_AMOUNT, TEXT, TIME
from service.domain.entries import Direction, EntryType


class TransactionLog(Document):
    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; ours are prefixed UUIDv7
    wallet_id: str
    user_id: str
    seq: int
    type: EntryType
    direction: Direction
    amount: int
    currency: str
    available_before: int
    available_after: int
    held_before: int
    held_after: int
    status: str
    reference: str
    transaction_id: str
    counterparty: str
    category: str | None
    created_at: datetime
    prev_hash: str
    hash: str

    class Settings:
        name = "transaction_logs"
        indexes: ClassVar = [
            IndexModel([("wallet_id", 1), ("seq", -1)], name="wallet_seq", unique=True),
            # Where in the chain a moment lies: what was the balance then, where does a month begin.
            # With `seq`, since many entries share a millisecond: the last one is found without reading them all.
            IndexModel([("wallet_id", 1), ("created_at", -1), ("seq", -1)], name="wallet_time_seq"),
            IndexModel([("user_id", 1), ("_id", -1)], name="user_newest"),
            # All entries of one operation, for check-ledger, which would have to sort them all on disk.
            IndexModel("reference", name="reference"),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": [
                "_id", "wallet_id", "user_id", "seq", "type", "direction", "amount", "currency", "available_before",
                "available_after", "held_before", "held_after", "status", "reference", "transaction_id",
                "counterparty", "created_at", "prev_hash", "hash",
            ],
            "properties": {
                "_id": TEXT,
                "wallet_id": TEXT,
                "user_id": TEXT,
                "seq": POSITIVE_AMOUNT,
                "type": {"enum": [kind.value for kind in EntryType]},
                "direction": {"enum": [direction.value for direction in Direction]},
                "amount": POSITIVE_AMOUNT,
                "currency": TEXT,
                "available_before": AMOUNT,
                "available_after": AMOUNT,
                "held_before": AMOUNT,
                "held_after": AMOUNT,
                "status": TEXT,
                "reference": TEXT,
                "transaction_id": TEXT,
                "counterparty": TEXT,
                "category": OPTIONAL_TEXT,
                "created_at": TIME,
                "prev_hash": HASH,
                "hash": HASH,
            },
            "additionalProperties": False,
        }  # fmt: skip
