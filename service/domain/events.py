"""Events: what became of a wallet's money and of the wallet itself, told to its owner in the order in which it was."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339


class EventType(StrEnum):
    """`{noun}.{word}`: the word says the status that was reached, or of whose view it is."""

    DEPOSIT_PENDING = "deposit.pending"
    DEPOSIT_PROCESSING = "deposit.processing"
    DEPOSIT_SUCCEEDED = "deposit.succeeded"
    DEPOSIT_FAILED = "deposit.failed"
    DEPOSIT_REQUIRES_REVIEW = "deposit.requires_review"
    WITHDRAWAL_REQUIRES_APPROVAL = "withdrawal.requires_approval"
    WITHDRAWAL_PENDING = "withdrawal.pending"
    WITHDRAWAL_PROCESSING = "withdrawal.processing"
    WITHDRAWAL_SUCCEEDED = "withdrawal.succeeded"
    WITHDRAWAL_FAILED = "withdrawal.failed"
    WITHDRAWAL_CANCELED = "withdrawal.canceled"
    WITHDRAWAL_REQUIRES_REVIEW = "withdrawal.requires_review"
    TRANSFER_REQUIRES_APPROVAL = "transfer.requires_approval"
    TRANSFER_SUCCEEDED = "transfer.succeeded"
    TRANSFER_CANCELED = "transfer.canceled"
    TRANSFER_RECEIVED = "transfer.received"
    HOLD_PLACED = "hold.placed"
    HOLD_CAPTURED = "hold.captured"
    HOLD_RELEASED = "hold.released"
    HOLD_EXPIRED = "hold.expired"
    HOLD_RECEIVED = "hold.received"
    ADJUSTMENT_SUCCEEDED = "adjustment.succeeded"
    REVERSAL_SUCCEEDED = "reversal.succeeded"
    REVERSAL_RECEIVED = "reversal.received"
    CONVERSION_SUCCEEDED = "conversion.succeeded"
    CONVERSION_RECEIVED = "conversion.received"
    REDEMPTION_SUCCEEDED = "redemption.succeeded"
    REWARD_EARNED = "reward.earned"
    REWARD_LAPSED = "reward.lapsed"
    WALLET_FROZEN = "wallet.frozen"
    WALLET_UNFROZEN = "wallet.unfrozen"
    WALLET_CLOSED = "wallet.closed"


class Event(NamedTuple):
    """`sequence` counts from 1 within the wallet. `data` is the subject as the API showed it at that moment."""

    id: str
    type: EventType
    user_id: str
    wallet_id: str
    sequence: int
    subject_id: str
    status: str
    previous_status: str | None
    data: Mapping[str, Any]
    request_id: str | None
    created_at: datetime


def event_view(event: Event) -> dict[str, Any]:
    """The event as it is shown and sent, everywhere alike."""
    return {
        "id": event.id,
        "type": event.type,
        "wallet_id": event.wallet_id,
        "sequence": event.sequence,
        "subject_id": event.subject_id,
        "status": event.status,
        "previous_status": event.previous_status,
        "data": event.data,
        "request_id": event.request_id,
        "created_at": to_rfc3339(event.created_at),
    }
