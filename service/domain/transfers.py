"""Transfers: money from one wallet to another, at once or after a one-time code."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.idempotency import Tombstone
from service.domain.operations import OperationStatus
from service.domain.step_up import Challenge
from service.domain.user_limits import LimitCharge
from service.domain.wallets import Wallet


class Transfer(NamedTuple):
    """`user_id` and `wallet_id` are the sender's."""

    id: str
    user_id: str
    wallet_id: str
    to_user_id: str
    to_wallet_id: str
    amount: int
    currency: str
    status: OperationStatus
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    failure_code: str | None
    failure_message: str | None
    transaction_id: str
    request_id: str | None
    created_at: datetime
    updated_at: datetime
    batch_id: str | None = None
    reversal_id: str | None = None
    challenge: Challenge | None = None
    version: int = 0
    tombstone: Tombstone | None = None
    # For the limits of its sender over all wallets.
    counted: LimitCharge | None = None
    # As an operation's.
    keeps_count: bool = False


def transfer_view(transfer: Transfer) -> dict[str, Any]:
    """Returns the transfer as the API shows it, to both sides alike."""
    return {
        "id": transfer.id,
        "type": "transfer",
        "status": transfer.status,
        "amount": transfer.amount,
        "currency": transfer.currency,
        "from_wallet_id": transfer.wallet_id,
        "to_wallet_id": transfer.to_wallet_id,
        "category": transfer.category,
        "description": transfer.description,
        "metadata": transfer.metadata,
        "failure_code": transfer.failure_code,
        "failure_message": transfer.failure_message,
        "transaction_id": transfer.transaction_id,
        "batch_id": transfer.batch_id,
        "reversal_id": transfer.reversal_id,
        "created_at": to_rfc3339(transfer.created_at),
        "updated_at": to_rfc3339(transfer.updated_at),
    }


def balance_view(wallet: Wallet) -> dict[str, Any]:
    """Shows what is in one wallet, for those who may know."""
    return {
        "wallet_id": wallet.id,
        "currency": wallet.currency,
        "available": wallet.available,
        "held": wallet.held,
        "balance": wallet.available + wallet.held,
        "owed": wallet.owed,
    }


def receipt_view(transfer: Transfer, sender: Wallet | None, recipient: Wallet | None) -> dict[str, Any]:
    """For the sender: what they have left. What the other side has, only where that is themselves too."""
    sides = {"from_wallet": sender, "to_wallet": recipient}
    return transfer_view(transfer) | {
        name: balance_view(wallet)
        for name, wallet in sides.items()
        if wallet is not None and wallet.user_id == transfer.user_id
    }
