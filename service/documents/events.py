"""What owners of wallets are told; one document for each event, shaped like the record of that name in the domain."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import FAILURES, POSITIVE_AMOUNT, TEXT, TIME, validator_of
from service.domain.events import Event


class EventDocument(Document):
    """Until it is dispatched it has `due_at`, when a worker may take it (again), and only then it gets `expires_at`:
    nothing is forgotten that has not been sent.
    """

    class Settings:
        name = "events"
        indexes: ClassVar = [
            # No number twice; and what came after a number, in order.
            IndexModel([("wallet_id", 1), ("sequence", 1)], name="wallet_sequence", unique=True),
            IndexModel([("user_id", 1), ("_id", -1)], name="user_newest"),
            # Dispatched ones have no due_at, so that the worker's index holds only what is to be done.
            IndexModel("due_at", name="due", sparse=True),
            # Nothing of it has to be written before the dispatch.
            IndexModel("expires_at", name="expiry", expireAfterSeconds=0, sparse=True),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(
            Event, sequence=POSITIVE_AMOUNT, due_at=TIME, claim=TEXT, expires_at=TIME, **FAILURES
        )
