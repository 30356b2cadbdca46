"""Conversions: one document for each, shaped like the record of that name in the domain."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.operations import BY_WALLET, USER_NEWEST
from service.documents.validation import POSITIVE_AMOUNT, validator_of
from service.domain.conversions import Conversion


class ConversionDocument(Document):
    class Settings:
        name = "conversions"
        # By its quote: which has one, that it names.
        indexes: ClassVar = [USER_NEWEST, BY_WALLET, IndexModel("quote_id", name="quote")]
        validator: ClassVar[dict[str, Any]] = validator_of(Conversion, to_amount=POSITIVE_AMOUNT)
