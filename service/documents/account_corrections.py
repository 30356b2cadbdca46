"""What was wrong with stored sums of accounts: insert-only, like the sums themselves."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document

from service.documents.account_sums import BookedSum
from service.documents.validation import TEXT, TIME


class AccountCorrection(Document):
    """Its id is its number, from 1 on: two who correct at once cannot both have it."""

    id: int  # type: ignore[assignment]  # beanie's own default is an ObjectId
    through: datetime
    sums: list[BookedSum]
    reason: str
    corrected_by: str
    created_at: datetime

    class Settings:
        name = "account_corrections"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "through", "sums", "reason", "corrected_by", "created_at"],
            "properties": {
                "_id": {"bsonType": "long", "minimum": 1},
                "through": TIME,
                "sums": {
                    "bsonType": "array",
                    "minItems": 1,
                    "items": {
                        "bsonType": "object",
                        "required": ["account", "currency", "debit", "credit"],
                        # Negative where the stored sums have too much.
                        "properties": {
                            "account": TEXT,
                            "currency": TEXT,
                            "debit": {"bsonType": "decimal"},
                            "credit": {"bsonType": "decimal"},
                        },
                        "additionalProperties": False,
                    },
                },
                "reason": TEXT,
                "corrected_by": TEXT,
                "created_at": TIME,
            },
            "additionalProperties": False,
        }
