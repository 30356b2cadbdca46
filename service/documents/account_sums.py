"""What was booked on each account up to the end of an hour: one document for each closed hour, insert-only."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import DecimalAnnotation, Document
from pydantic import BaseModel

from service.documents.validation import SUM, TEXT, TIME


class BookedSum(BaseModel):
    """All from the first entry on, not the hour's own; DECIMAL128 is exact far beyond 64 bits."""

    account: str
    currency: str
    debit: DecimalAnnotation
    credit: DecimalAnnotation


class AccountSumsDocument(Document):
    """Its id is the hour's end: entries whose ids were made before it are in the sums."""

    id: datetime  # type: ignore[assignment]  # beanie's own default is an ObjectId; unique, so that an hour closes once
    sums: list[BookedSum]
    created_at: datetime

    class Settings:
        name = "account_sums"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "sums", "created_at"],
            "properties": {
                "_id": TIME,
                "sums": {
                    "bsonType": "array",
                    "items": {
                        "bsonType": "object",
                        "required": ["account", "currency", "debit", "credit"],
                        "properties": {"account": TEXT, "currency": TEXT, "debit": SUM, "credit": SUM},
                        "additionalProperties": False,
                    },
                },
                "created_at": TIME,
            },
            "additionalProperties": False,
        }
