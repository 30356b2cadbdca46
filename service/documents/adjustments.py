"""Adjustments by admins and services."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.operations import BY_WALLET, MADE_ONCE
from service.documents.validation import TEXT, validator_of
from service.domain.adjustments import Adjustment


class AdjustmentDocument(Document):
    class Settings:
        name = "adjustments"
        # What waits for a second admin, newest first; without a status the ids themselves are the order.
        indexes: ClassVar = [IndexModel([("status", 1), ("_id", -1)], name="status_newest"), BY_WALLET, MADE_ONCE]
        validator: ClassVar[dict[str, Any]] = validator_of(Adjustment, reason=TEXT, requested_by=TEXT)
