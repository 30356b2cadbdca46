"""Quotes: open until they are used, or forgotten."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import POSITIVE_AMOUNT, validator_of
from service.domain.quotes import Quote, QuoteStatus

# Long enough to look one up that was let go by. Anybody may ask for as many as they like, so they cannot all be kept;
# those that were used stay, as the reason for a conversion.
_KEPT_UNUSED_S = 24 * 3600


class QuoteDocument(Document):
    class Settings:
        name = "quotes"
        indexes: ClassVar = [
            IndexModel(
                "expires_at",
                name="unused",
                expireAfterSeconds=_KEPT_UNUSED_S,
                partialFilterExpression={"status": QuoteStatus.OPEN.value},
            )
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(Quote, to_amount=POSITIVE_AMOUNT)
