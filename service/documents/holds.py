"""Holds: one document for each, shaped like the record of that name in the domain."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.operations import BY_WALLET, COUNTED, MADE_ONCE, USER_NEWEST
from service.documents.validation import validator_of
from service.domain.holds import Hold, HoldStatus


class HoldDocument(Document):
    class Settings:
        name = "holds"
        indexes: ClassVar = [
            USER_NEWEST,
            MADE_ONCE,
            BY_WALLET,
            # Those of one wallet that have not ended, which are few: a return looks for them each time.
            IndexModel(
                [("wallet_id", 1), ("_id", -1)],
                name="open_by_wallet",
                partialFilterExpression={"status": HoldStatus.HELD.value},
            ),
            COUNTED,
            # The same for who is to be paid.
            IndexModel([("to_user_id", 1), ("_id", -1)], name="payee_newest"),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(Hold)
