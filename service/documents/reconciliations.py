"""The bank's statements as they were given out, and each day's comparison with ours."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import COUNT, POSITIVE_AMOUNT, SUM, TEXT, TIME
from service.domain.statement_lines import SetAsideReason


class StatementLineDocument(Document):
    """One line. `import_id` is that of the last import that had it; what a later one lacks is withdrawn."""

    class Settings:
        name = "statement_lines"
        indexes: ClassVar = [
            IndexModel([("day", 1), ("reference", 1)], name="day_reference"),
            IndexModel("reference", name="reference"),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": [
                "_id", "day", "reference", "flow", "amount", "currency", "bank_reference", "booked_at",
                "import_id", "is_withdrawn",
            ],
            "properties": {
                "_id": TEXT,
                "day": TEXT,
                "reference": TEXT,
                "flow": TEXT,
                "amount": POSITIVE_AMOUNT,
                "currency": TEXT,
                "bank_reference": {"bsonType": "string"},
                "booked_at": TIME,
                "import_id": TEXT,
                "is_withdrawn": {"bsonType": "bool"},
            },
            "additionalProperties": False,
        }  # fmt: skip


class SetAsideLineDocument(Document):
    """One line that could not be compared. `raw` is its text; `import_id` is as with the lines that could."""

    class Settings:
        name = "set_aside_lines"
        indexes: ClassVar = [
            IndexModel([("is_withdrawn", 1), ("day", 1)], name="current_day"),
            IndexModel([("day", 1), ("import_id", 1)], name="day_import"),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "day", "reason", "raw", "first_seen", "import_id", "is_withdrawn"],
            "properties": {
                "_id": TEXT,
                "day": TEXT,
                "reason": {"enum": [reason.value for reason in SetAsideReason]},
                "raw": {"bsonType": "string"},
                "first_seen": TIME,
                "import_id": TEXT,
                "is_withdrawn": {"bsonType": "bool"},
            },
            "additionalProperties": False,
        }


class ReconciliationDocument(Document):
    """Its id is the day, as 2026-11-20."""

    class Settings:
        name = "reconciliations"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "first_compared_at", "compared_at", "comparisons", "lines", "ours", "totals", "breaks"],
            "properties": {
                "_id": TEXT,
                "first_compared_at": TIME,
                "compared_at": TIME,
                "comparisons": COUNT,
                "lines": COUNT,
                "ours": COUNT,
                "totals": {
                    "bsonType": "array",
                    "items": {
                        "bsonType": "object",
                        "required": ["flow", "currency", "bank", "ours"],
                        "properties": {"flow": TEXT, "currency": TEXT, "bank": SUM, "ours": SUM},
                        "additionalProperties": False,
                    },
                },
                "breaks": {"bsonType": "object"},
                "set_aside": COUNT,
                "notes": {"bsonType": "object"},
            },
            "additionalProperties": False,
        }
