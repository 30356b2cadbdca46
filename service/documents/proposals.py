"""What one admin has asked for and another confirms."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.proposals import AccessProposal


class AccessProposalDocument(Document):
    class Settings:
        name = "access_proposals"
        # What waits for a second admin, newest first; without a status the ids themselves are the order.
        indexes: ClassVar = [
            IndexModel([("status", 1), ("_id", -1)], name="status_newest"),
            IndexModel([("user_id", 1), ("status", 1)], name="user_status"),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(AccessProposal, user_id=TEXT, requested_by=TEXT)
