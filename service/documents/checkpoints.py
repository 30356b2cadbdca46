"""Checkpoints of all wallets' heads, the tiles of the trees under them, and the refused ones: insert-only by role."""

from datetime import datetime
from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import AMOUNT, HASH, POSITIVE_AMOUNT, TEXT, TIME
from service.domain.checkpoints import TILE_LEAVES


class CheckpointDocument(Document):
    """The number is the id, so that of several workers one makes it. `tiles` names the tree's tiles in order.

    Those of the first version have no `version`, and their tiles no `separator`. Those from the third on seal the audit
    events that `audit_ids` names, in the order of ids.
    A tile's name takes some 170 bytes, so that MongoDB's 16 MB for a document are enough for 22 million wallets.
    """

    id: int  # type: ignore[assignment]  # beanie's own default is an ObjectId
    created_at: datetime
    wallets: int
    root: str
    prev_hash: str
    key_id: str
    signature: str
    tiles: list[dict[str, str]]
    version: int = 1
    audit_events: int | None = None
    audit_root: str | None = None
    audit_ids: list[str] | None = None

    class Settings:
        name = "checkpoints"
        indexes: ClassVar = [
            # Which one was the first after an entry.
            IndexModel([("created_at", 1), ("_id", 1)], name="time"),
        ]
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "created_at", "wallets", "root", "prev_hash", "key_id", "signature", "tiles"],
            "properties": {
                "_id": POSITIVE_AMOUNT,
                "created_at": TIME,
                "wallets": AMOUNT,
                "root": HASH,
                "prev_hash": HASH,
                "key_id": TEXT,
                "signature": TEXT,
                "version": POSITIVE_AMOUNT,
                "audit_events": AMOUNT,
                "audit_root": HASH,
                "audit_ids": {"bsonType": "array", "items": TEXT},
                "tiles": {
                    "bsonType": "array",
                    "items": {
                        "bsonType": "object",
                        "required": ["id", "first_wallet_id"],
                        "properties": {"id": HASH, "first_wallet_id": TEXT, "separator": TEXT},
                        "additionalProperties": False,
                    },
                },
            },
            "additionalProperties": False,
        }


class CheckpointTile(Document):
    """Up to 256 leaves in three columns; the id is the root of the tree over them. Checkpoints share it."""

    id: str  # type: ignore[assignment]  # beanie's own default is an ObjectId; this is a hash
    wallet_ids: list[str]
    seqs: list[int]
    # 32 bytes each: half of what they take as text.
    head_hashes: bytes

    class Settings:
        name = "checkpoint_tiles"
        indexes: ClassVar[list[IndexModel]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "wallet_ids", "seqs", "head_hashes"],
            "properties": {
                "_id": HASH,
                "wallet_ids": {"bsonType": "array", "minItems": 1, "maxItems": TILE_LEAVES, "items": TEXT},
                "seqs": {"bsonType": "array", "minItems": 1, "maxItems": TILE_LEAVES, "items": AMOUNT},
                "head_hashes": {"bsonType": "binData"},
            },
            "additionalProperties": False,
        }


class RefusedCheckpoint(Document):
    """A row of `checkpoints` that the signer found to be none: the id is that row's number. Insert-only.

    Nobody deletes a checkpoint, so the row stays where it is. Readers leave out what is named here.
    """

    id: int  # type: ignore[assignment]  # beanie's own default is an ObjectId
    reason: str
    refused_at: datetime

    class Settings:
        name = "refused_checkpoints"
        indexes: ClassVar[list[IndexModel]] = []
        validator: ClassVar[dict[str, Any]] = {
            "bsonType": "object",
            "required": ["_id", "reason", "refused_at"],
            "properties": {"_id": {"bsonType": "long"}, "reason": TEXT, "refused_at": TIME},
            "additionalProperties": False,
        }
