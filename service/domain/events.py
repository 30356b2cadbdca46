"""Events: what became of a wallet's money and of the wallet itself, told to its owner in the order in which it was.

Each change of a status is one, made where the ledger takes the change in, from how the record was and how it is. It is
written in the same transaction, with the next number of its wallet: without gaps, so that who has seen number n knows
what is missing. Nobody is told more than the API shows them: what has a recipient tells them in an event of their own.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from service.domain.adjustments import Adjustment, AdjustmentStatus
from service.domain.clock import to_rfc3339
from service.domain.conversions import Conversion, conversion_view
from service.domain.holds import Hold, HoldStatus, hold_view
from service.domain.identifiers import Prefix, first_id_at
from service.domain.operations import Operation, OperationStatus, operation_view
from service.domain.records import Record
from service.domain.returns import Return, ReturnStatus
from service.domain.reversals import Reversal
from service.domain.rewards import Reward, RewardStatus, reward_view
from service.domain.transfers import Transfer, transfer_view
from service.domain.vouchers import Redemption, redemption_view
from service.domain.wallets import Wallet, WalletStatus


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
    WITHDRAWAL_BLOCKED = "withdrawal.blocked"
    TRANSFER_REQUIRES_APPROVAL = "transfer.requires_approval"
    TRANSFER_SUCCEEDED = "transfer.succeeded"
    TRANSFER_CANCELED = "transfer.canceled"
    TRANSFER_RECEIVED = "transfer.received"
    HOLD_PLACED = "hold.placed"
    HOLD_CAPTURED = "hold.captured"
    HOLD_RELEASED = "hold.released"
    HOLD_EXPIRED = "hold.expired"
    HOLD_REDUCED = "hold.reduced"
    HOLD_TAKEN = "hold.taken"
    HOLD_RECEIVED = "hold.received"
    ADJUSTMENT_SUCCEEDED = "adjustment.succeeded"
    REVERSAL_SUCCEEDED = "reversal.succeeded"
    REVERSAL_RECEIVED = "reversal.received"
    RETURN_OWED = "return.owed"
    RETURN_SUCCEEDED = "return.succeeded"
    CONVERSION_SUCCEEDED = "conversion.succeeded"
    CONVERSION_RECEIVED = "conversion.received"
    REDEMPTION_SUCCEEDED = "redemption.succeeded"
    REWARD_EARNED = "reward.earned"
    REWARD_LAPSED = "reward.lapsed"
    WALLET_FROZEN = "wallet.frozen"
    WALLET_UNFROZEN = "wallet.unfrozen"
    WALLET_CLOSED = "wallet.closed"
    WALLET_REOPENED = "wallet.reopened"


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


class News(NamedTuple):
    """What one wallet's owner is told of a change: an event without its number."""

    wallet_id: str
    type: EventType
    data: Mapping[str, Any]


_WORDS = {OperationStatus.SUCCESS: "succeeded"}


def news_of(before: Record | None, after: Record) -> tuple[News, ...]:
    """Says whom a record's change tells what; nothing where its status stays, and for kinds that nobody is told of."""
    if isinstance(after, Hold) and isinstance(before, Hold) and before.status is after.status:
        # The one change that is told although the status stays.
        is_reduced = before.takings != after.takings
        return _to_both_sides(after, EventType.HOLD_REDUCED) if is_reduced else ()
    tell = _TELLERS.get(type(after))
    if tell is None or (before is not None and status_of(before) == status_of(after)):
        return ()
    news: tuple[News, ...] = tell(after)
    return news


def status_of(record: Record) -> str | None:
    status: str | None = getattr(record, "status", None)
    return status


def life_news_of(before: Wallet, after: Wallet) -> EventType | None:
    """Says what became of the wallet itself. One that is frozen in another way is frozen anew."""
    if (before.status, before.freeze) == (after.status, after.freeze):
        return None
    match after.status:
        case WalletStatus.FROZEN:
            return EventType.WALLET_FROZEN
        case WalletStatus.CLOSED:
            return EventType.WALLET_CLOSED
        case WalletStatus.ACTIVE if before.status is WalletStatus.CLOSED:
            return EventType.WALLET_REOPENED
        case WalletStatus.ACTIVE:
            return EventType.WALLET_UNFROZEN


def event_of(
    wallet: Wallet,
    event_type: EventType,
    subject_id: str,
    status: str,
    previous_status: str | None,
    data: Mapping[str, Any],
    request_id: str | None,
    now: datetime,
) -> Event:
    """Returns the wallet's next event."""
    sequence = wallet.event_sequence + 1
    at = max(now, wallet.updated_at)
    return Event(
        id=event_id(wallet.id, sequence, at),
        type=event_type,
        user_id=wallet.user_id,
        wallet_id=wallet.id,
        sequence=sequence,
        subject_id=subject_id,
        status=status,
        previous_status=previous_status,
        data=data,
        request_id=request_id,
        created_at=at,
    )


_HASH_DIGITS = 20


def event_id(wallet_id: str, sequence: int, at: datetime) -> str:
    """Sorts by time as other ids do. Derived, because what is decided twice has to come to the same."""
    digest = sha256(f"{wallet_id}:{sequence}".encode()).hexdigest()
    return first_id_at(Prefix.EVENT, at) + digest[:_HASH_DIGITS]


def event_view(event: Event) -> dict[str, Any]:
    """Returns the event as it is shown and sent, everywhere alike."""
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


def _of_operation(operation: Operation) -> tuple[News, ...]:
    word = _WORDS.get(operation.status, operation.status.value)
    return (News(operation.wallet_id, EventType(f"{operation.type}.{word}"), operation_view(operation)),)


def _of_transfer(transfer: Transfer) -> tuple[News, ...]:
    word = _WORDS.get(transfer.status, transfer.status.value)
    view = transfer_view(transfer)
    sent = News(transfer.wallet_id, EventType(f"transfer.{word}"), view)
    if transfer.status is not OperationStatus.SUCCESS:
        return (sent,)
    return sent, News(transfer.to_wallet_id, EventType.TRANSFER_RECEIVED, view)


_HOLDS = {
    HoldStatus.HELD: EventType.HOLD_PLACED,
    HoldStatus.CAPTURED: EventType.HOLD_CAPTURED,
    HoldStatus.RELEASED: EventType.HOLD_RELEASED,
    HoldStatus.EXPIRED: EventType.HOLD_EXPIRED,
}


def _to_both_sides(hold: Hold, event_type: EventType) -> tuple[News, ...]:
    view = hold_view(hold)
    sides = (hold.wallet_id, hold.to_wallet_id)
    return tuple(News(wallet_id, event_type, view) for wallet_id in sides if wallet_id is not None)


def _of_hold(hold: Hold) -> tuple[News, ...]:
    """The payee hears of it when the money comes: until then nothing happens in their wallet. They also hear of what a
    return takes away, since they have been promised it.
    """
    if hold.status is HoldStatus.TAKEN:
        return _to_both_sides(hold, EventType.HOLD_TAKEN)
    view = hold_view(hold)
    told = News(hold.wallet_id, _HOLDS[hold.status], view)
    if hold.status is not HoldStatus.CAPTURED or hold.to_wallet_id is None:
        return (told,)
    return told, News(hold.to_wallet_id, EventType.HOLD_RECEIVED, view)


def _of_adjustment(adjustment: Adjustment) -> tuple[News, ...]:
    """Once it has moved money, and what the wallet's log shows of it: why and by whom is the house's matter."""
    if adjustment.status is not AdjustmentStatus.SUCCESS:
        return ()
    data = {
        "id": adjustment.id,
        "type": adjustment.type,
        "status": adjustment.status,
        "amount": adjustment.amount,
        "currency": adjustment.currency,
        "wallet_id": adjustment.wallet_id,
        "category": adjustment.category,
        "transaction_id": adjustment.transaction_id,
        "created_at": to_rfc3339(adjustment.created_at),
        "updated_at": to_rfc3339(adjustment.updated_at),
    }
    return (News(adjustment.wallet_id, EventType.ADJUSTMENT_SUCCEEDED, data),)


def _of_reversal(reversal: Reversal) -> tuple[News, ...]:
    """To each side what moved in its own wallet, as the log shows it."""
    sides = (
        (reversal.from_wallet_id, EventType.REVERSAL_SUCCEEDED, reversal.amount - reversal.shortfall),
        (reversal.to_wallet_id, EventType.REVERSAL_RECEIVED, reversal.amount),
    )
    return tuple(
        News(wallet_id, event_type, _reversal_data(reversal, wallet_id, amount))
        for wallet_id, event_type, amount in sides
        if wallet_id is not None and amount
    )


def _reversal_data(reversal: Reversal, wallet_id: str, amount: int) -> dict[str, Any]:
    return {
        "id": reversal.id,
        "type": "reversal",
        "status": reversal.status,
        "original_id": reversal.original_id,
        "amount": amount,
        "currency": reversal.currency,
        "wallet_id": wallet_id,
        "category": reversal.category,
        "transaction_id": reversal.transaction_id,
        "created_at": to_rfc3339(reversal.created_at),
    }


def _of_return(returned: Return) -> tuple[News, ...]:
    """Once it has moved money or is owed, and what the wallet's log shows of it; else it is a matter of the house."""
    if returned.status is ReturnStatus.REQUIRES_REVIEW:
        return ()
    data = {
        "id": returned.id,
        "type": "return",
        "status": returned.status,
        "operation_id": returned.operation_id,
        "amount": returned.amount,
        "collected": returned.collected,
        "owed": returned.owed,
        "currency": returned.currency,
        "wallet_id": returned.wallet_id,
        "category": returned.category,
        "return_code": returned.return_code,
        "transaction_id": returned.transaction_id,
        "created_at": to_rfc3339(returned.created_at),
        "updated_at": to_rfc3339(returned.updated_at),
    }
    is_owed = returned.status is ReturnStatus.OWED
    return (News(returned.wallet_id, EventType.RETURN_OWED if is_owed else EventType.RETURN_SUCCEEDED, data),)


def _of_conversion(conversion: Conversion) -> tuple[News, ...]:
    view = conversion_view(conversion)
    return (
        News(conversion.wallet_id, EventType.CONVERSION_SUCCEEDED, view),
        News(conversion.to_wallet_id, EventType.CONVERSION_RECEIVED, view),
    )


def _of_redemption(redemption: Redemption) -> tuple[News, ...]:
    """Without the code, which is shown to its owner only, and never kept in clear."""
    return (News(redemption.wallet_id, EventType.REDEMPTION_SUCCEEDED, redemption_view(redemption, code=None)),)


def _of_reward(reward: Reward) -> tuple[News, ...]:
    event_type = EventType.REWARD_EARNED if reward.status is RewardStatus.SUCCESS else EventType.REWARD_LAPSED
    return (News(reward.wallet_id, event_type, reward_view(reward)),)


# One line for each kind of record that somebody is told of. The wallets that it names have to be among those that the
# commands which make or change it have named as needed.
_TELLERS: dict[type, Callable[[Any], tuple[News, ...]]] = {
    Operation: _of_operation,
    Transfer: _of_transfer,
    Hold: _of_hold,
    Adjustment: _of_adjustment,
    Reversal: _of_reversal,
    Return: _of_return,
    Conversion: _of_conversion,
    Redemption: _of_redemption,
    Reward: _of_reward,
}
TOLD_OF = frozenset(_TELLERS)
