"""One wallet: the balance of one user in one currency."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import AMOUNT, HASH, OPTIONAL_TEXT, TEXT, TIME, validator_part
from service.domain.limits import Limits, Usage
from service.domain.wallets import MAX_DEBTS, Freeze, WalletStatus


class WalletDocument(Document):
    """`available` and `held` are minor units; `seq` counts the log entries and `head_hash` is the last one's hash."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; ours are prefixed UUIDv7
    user_id: str
    currency: str
    available: int
    held: int
    status: WalletStatus
    seq: int
    head_hash: str
    created_at: datetime
    updated_at: datetime
    freeze: Freeze | None = None
    open_operations: int = 0
    usage: dict[str, Any] = {}  # noqa: RUF012 pydantic copies defaults
    limits: dict[str, Any] | None = None
    event_sequence: int = 0
    owed: int = 0
    debts: list[str] = []  # noqa: RUF012 pydantic copies defaults
    time_zone: str | None = None
    freeze_event_id: str | None = None
    owner_time_zone: str | None = None
    counts_for_owner: bool = False

    class Settings:
        name = "wallets"
        indexes: ClassVar = [
            IndexModel([("user_id", 1), ("currency", 1)], name="user_currency", unique=True),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": [
                "_id", "user_id", "currency", "available", "held", "status", "seq", "head_hash",
                "created_at", "updated_at",
            ],
            "properties": {
                "_id": TEXT,
                "user_id": TEXT,
                "currency": TEXT,
                "available": AMOUNT,
                "held": AMOUNT,
                "status": {"enum": [status.value for status in WalletStatus]},
                "seq": AMOUNT,
                "head_hash": HASH,
                "created_at": TIME,
                "updated_at": TIME,
                "freeze": {"enum": [None, *(freeze.value for freeze in Freeze)]},
                "open_operations": AMOUNT,
                "usage": validator_part(Usage),
                "limits": {"anyOf": [{"bsonType": "null"}, validator_part(Limits)]},
                "event_sequence": AMOUNT,
                "owed": AMOUNT,
                "debts": {"bsonType": "array", "maxItems": MAX_DEBTS, "items": TEXT},
                # Of transactions that had to lock it first (repositories/wallets.py); shown nowhere.
                "turns": AMOUNT,
                "time_zone": OPTIONAL_TEXT,
                "freeze_event_id": OPTIONAL_TEXT,
                "owner_time_zone": OPTIONAL_TEXT,
                "counts_for_owner": {"bsonType": "bool"},
            },
        }  # fmt: skip
