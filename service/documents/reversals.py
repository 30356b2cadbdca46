"""Reversals of transfers and adjustments; the originals name them."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.reversals import Reversal


class ReversalDocument(Document):
    class Settings:
        name = "reversals"
        # Nothing is taken back twice, even if everything above were wrong.
        indexes: ClassVar = [IndexModel("original_id", name="original", unique=True)]
        validator: ClassVar[dict[str, Any]] = validator_of(Reversal, original_id=TEXT, reason=TEXT, requested_by=TEXT)
