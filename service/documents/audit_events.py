"""What admins and services did: insert-only by database role."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.audit_events import AuditEvent


class AuditEventDocument(Document):
    class Settings:
        name = "audit_events"
        # Newest first by each filter: ids are UUIDv7, so that their order is that of creation.
        indexes: ClassVar = [
            IndexModel([("subject_id", 1), ("_id", -1)], name="subject_newest"),
            IndexModel([("actor_id", 1), ("_id", -1)], name="actor_newest"),
            IndexModel([("action", 1), ("_id", -1)], name="action_newest"),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(AuditEvent, actor_id=TEXT, subject_id=TEXT)
