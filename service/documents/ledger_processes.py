"""Processes that commit transactions, with the sessions that others may end once they are dead."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.ledger_processes import LedgerProcess

# MongoDB forgets a session after 30 minutes, and ends its transaction long before.
_KEPT_S = 3600


class LedgerProcessDocument(Document):
    class Settings:
        name = "ledger_processes"
        indexes: ClassVar = [IndexModel("seen_at", name="seen", expireAfterSeconds=_KEPT_S)]
        validator: ClassVar[dict[str, Any]] = validator_of(LedgerProcess, host=TEXT)
