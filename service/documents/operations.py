"""Deposits, withdrawals and transfers: one document for each, shaped like the record of that name in the domain."""

from typing import Any, ClassVar

from beanie import Document
from pymongo import IndexModel

from service.documents.validation import TEXT, validator_of
from service.domain.operations import Operation, OperationStatus
from service.domain.transfers import Transfer

# Newest first for its owner: ids are UUIDv7, so that their order is that of creation.
USER_NEWEST = IndexModel([("user_id", 1), ("_id", -1)], name="user_newest")
# A key of a user makes one, for ever. What was made without a key is not in it.
MADE_ONCE = IndexModel(
    "tombstone.key_hashes",
    name="made_once",
    unique=True,
    partialFilterExpression={"tombstone.key_hashes": {"$exists": True}},
)
# All of one wallet, for check-ledger, which would have to sort them all on disk.
BY_WALLET = IndexModel("wallet_id", name="wallet")
_OPERATION: dict[str, Any] = validator_of(Operation, account_masked=TEXT)


# What counts for its owner's limits over all wallets, for check-ledger. Where there is no such limit, nothing is in it.
COUNTED = IndexModel("user_id", name="counted", partialFilterExpression={"counted.at": {"$exists": True}})

# What waits for a person, oldest first. Whatever passes review by is not in it, and costs nothing to keep out.
_IN_REVIEW = IndexModel(
    [("status", 1), ("_id", 1)],
    name="in_review",
    partialFilterExpression={"status": OperationStatus.REQUIRES_REVIEW.value},
)

_BLOCKED = IndexModel(
    [("status", 1), ("_id", 1)],
    name="blocked",
    partialFilterExpression={"status": OperationStatus.BLOCKED.value},
)


class Deposit(Document):
    class Settings:
        name = "deposits"
        indexes: ClassVar = [USER_NEWEST, BY_WALLET, MADE_ONCE, _IN_REVIEW]
        validator: ClassVar = _OPERATION


class Withdrawal(Document):
    class Settings:
        name = "withdrawals"
        indexes: ClassVar = [USER_NEWEST, BY_WALLET, MADE_ONCE, COUNTED, _IN_REVIEW, _BLOCKED]
        validator: ClassVar = _OPERATION


class TransferDocument(Document):
    class Settings:
        name = "transfers"
        indexes: ClassVar = [USER_NEWEST, BY_WALLET, MADE_ONCE, COUNTED]
        validator: ClassVar[dict[str, Any]] = validator_of(Transfer)
