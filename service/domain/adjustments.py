"""Adjustments: money that admins and services put into a wallet or take out of it, against the house's account."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.idempotency import Tombstone


class AdjustmentType(StrEnum):
    CREDIT = "credit"
    DEBIT = "debit"


class AdjustmentStatus(StrEnum):
    REQUIRES_APPROVAL = "requires_approval"
    SUCCESS = "success"
    REJECTED = "rejected"


class Adjustment(NamedTuple):
    """`user_id` is the wallet's owner. What is decided by nobody yet has no `decided_by`; what was made at once was
    decided by who asked for it. `available_after` and `held_after` are of the moment when it moved the wallet.
    """

    id: str
    type: AdjustmentType
    user_id: str
    wallet_id: str
    amount: int
    currency: str
    status: AdjustmentStatus
    reason: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    requested_by: str
    decided_by: str | None
    decided_at: datetime | None
    rejection_reason: str | None
    available_after: int | None
    held_after: int | None
    transaction_id: str | None
    request_id: str | None
    created_at: datetime
    updated_at: datetime
    reversal_id: str | None = None
    version: int = 0
    tombstone: Tombstone | None = None
    # The API key that it was asked for with.
    api_key_id: str | None = None
    # The day sums that it counts in; none where another admin approved it.
    counted_day: str | None = None
    counted_for: tuple[str, ...] = ()


def adjustment_view(adjustment: Adjustment) -> dict[str, Any]:
    """Returns the adjustment as the API shows it."""
    decided_at = adjustment.decided_at
    return {
        "id": adjustment.id,
        "type": adjustment.type,
        "status": adjustment.status,
        "amount": adjustment.amount,
        "currency": adjustment.currency,
        "user_id": adjustment.user_id,
        "wallet_id": adjustment.wallet_id,
        "reason": adjustment.reason,
        "category": adjustment.category,
        "description": adjustment.description,
        "metadata": adjustment.metadata,
        "requested_by": adjustment.requested_by,
        "decided_by": adjustment.decided_by,
        "decided_at": None if decided_at is None else to_rfc3339(decided_at),
        "rejection_reason": adjustment.rejection_reason,
        "available_after": adjustment.available_after,
        "held_after": adjustment.held_after,
        "transaction_id": adjustment.transaction_id,
        "reversal_id": adjustment.reversal_id,
        "created_at": to_rfc3339(adjustment.created_at),
        "updated_at": to_rfc3339(adjustment.updated_at),
    }
