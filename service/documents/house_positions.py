"""Portions of what the bank's and the house's accounts can still give: one document for each owner of one."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import AMOUNT, TEXT


class HousePosition(Document):
    class Settings:
        name = "house_positions"
        indexes: ClassVar = [
            IndexModel([("account", 1), ("currency", 1)], name="pair"),
            # The pools, which carry the floors.
            IndexModel("owner", name="owner"),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "account", "currency", "owner", "headroom", "version"],
            "properties": {
                "_id": TEXT,
                "account": TEXT,
                "currency": TEXT,
                "owner": TEXT,
                # Below 0 after a return of what was spent already.
                "headroom": {"bsonType": "long"},
                "version": AMOUNT,
                "floor": {"bsonType": ["long", "null"]},
                "floor_version": AMOUNT,
                # Its name in pools of earlier releases.
                "changes": AMOUNT,
            },
            "additionalProperties": False,
        }
