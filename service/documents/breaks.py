"""Breaks: where the books disagree, and what was done about it."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.breaks import Break


class BreakDocument(Document):
    """`open_key` is kind and subject while it is not resolved, so that the same is not told twice."""

    class Settings:
        name = "breaks"
        indexes: ClassVar = [
            IndexModel("open_key", name="open_key", unique=True, sparse=True),
            # Newest first by each filter: ids are UUIDv7, so that their order is that of creation.
            IndexModel([("state", 1), ("_id", -1)], name="state_newest"),
            IndexModel([("wallet_id", 1), ("_id", -1)], name="wallet_newest"),
            IndexModel([("day", 1), ("_id", -1)], name="day_newest"),
            IndexModel([("subject", 1), ("_id", -1)], name="subject_newest"),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(Break, subject=TEXT, open_key=TEXT)
