"""Rows of queues that no try has brought to an end; a person replays or discards them."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.dead_letters import DeadLetter


class DeadLetterDocument(Document):
    class Settings:
        name = "dead_letters"
        # Newest first by each filter: ids are UUIDv7, so that their order is that of creation.
        indexes: ClassVar = [
            # The first is also what counts the dead ones, by queue.
            IndexModel([("state", 1), ("queue", 1), ("_id", -1)], name="state_queue_newest"),
            IndexModel([("queue", 1), ("_id", -1)], name="queue_newest"),
            IndexModel("subject_id", name="subject"),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(DeadLetter, row_id=TEXT, subject_id=TEXT, error_type=TEXT)
