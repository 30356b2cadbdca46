"""Returns of settled operations; the operations name them."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.operations import BY_WALLET
from service.documents.validation import TEXT, validator_of
from service.domain.returns import Return, ReturnStatus


class ReturnDocument(Document):
    class Settings:
        name = "returns"
        indexes: ClassVar = [
            # Nothing comes back twice, even if everything above were wrong.
            IndexModel("operation_id", name="operation", unique=True),
            IndexModel([("status", 1), ("_id", -1)], name="status_newest"),
            BY_WALLET,
            # Those that wait for a person: whether one waits to take from a wallet is asked before it is unfrozen.
            IndexModel(
                [("wallet_id", 1), ("type", 1)],
                name="waiting",
                partialFilterExpression={"status": ReturnStatus.REQUIRES_REVIEW.value},
            ),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(Return, operation_id=TEXT)
