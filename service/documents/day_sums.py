"""Stores the sums that one admin, service or API key has moved alone in a day, shaped like the record."""

from typing import Any, ClassVar

from beanie import Document

from service.documents.validation import TEXT, validator_of
from service.domain.day_sums import DaySum


class DaySumDocument(Document):
    class Settings:
        name = "day_sums"
        indexes: ClassVar[list[Any]] = []
        validator: ClassVar[dict[str, Any]] = validator_of(DaySum, actor_id=TEXT)
