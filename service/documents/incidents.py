"""Incidents: what the bank said that cannot be."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.incidents import Incident


class IncidentDocument(Document):
    class Settings:
        name = "incidents"
        # Their ids are made of what was said, so that time and id together are the order.
        indexes: ClassVar = [
            IndexModel([("created_at", -1), ("_id", -1)], name="newest"),
            IndexModel([("status", 1), ("created_at", -1), ("_id", -1)], name="status_newest"),
            IndexModel([("reference", 1), ("created_at", -1), ("_id", -1)], name="reference_newest"),
        ]
        validator: ClassVar[dict[str, Any]] = validator_of(Incident, reference=TEXT)
