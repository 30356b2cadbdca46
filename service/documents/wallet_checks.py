"""How far each wallet's entries were replayed and found good."""

from typing import Any, ClassVar

from beanie import Document

from service.documents.validation import AMOUNT, HASH, TEXT, TIME, validator_part
from service.domain.breaks import Finding

_POINT: dict[str, Any] = {
    "bsonType": "object",
    "required": ["seq", "available", "held", "hash"],
    "properties": {"seq": AMOUNT, "available": AMOUNT, "held": AMOUNT, "hash": HASH},
    "additionalProperties": False,
}


class WalletCheckDocument(Document):
    """Beside the wallets and not in them: what is paid must not wait for what is checked."""

    class Settings:
        name = "wallet_checks"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "verified", "walked", "full_due_at"],
            "properties": {
                "_id": TEXT,
                "verified": _POINT,
                "walked": {"anyOf": [{"bsonType": "null"}, _POINT]},
                "full_due_at": TIME,
                "faults": {"bsonType": "array", "items": validator_part(Finding)},
            },
            "additionalProperties": False,
        }
