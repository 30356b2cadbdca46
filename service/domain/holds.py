"""Holds: money set aside for somebody in its payer's wallet, until it is captured, released or expires."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.idempotency import Tombstone
from service.domain.transfers import balance_view
from service.domain.user_limits import LimitCharge
from service.domain.wallets import Wallet


class HoldStatus(StrEnum):
    """Every one but the first is final."""

    HELD = "held"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"
    # All of it went back to the bank, with a deposit of the payer's that was taken back.
    TAKEN = "taken"


class Taking(NamedTuple):
    """Part of a hold that went to a return."""

    return_id: str
    amount: int


class Hold(NamedTuple):
    """`user_id` and `wallet_id` are the payer's. A hold without a recipient is for the house, unless its capture names
    one; `transaction_id` is that of the end. `takings` are the parts that are no longer held for anybody.
    """

    id: str
    user_id: str
    wallet_id: str
    to_user_id: str | None
    to_wallet_id: str | None
    amount: int
    captured_amount: int
    currency: str
    status: HoldStatus
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    transaction_id: str | None
    request_id: str | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int = 0
    tombstone: Tombstone | None = None
    takings: tuple[Taking, ...] = ()
    # Who captured or released it. None while it is held, where its time ended it, and of holds of earlier releases.
    ended_by: str | None = None
    # For the limits of its payer over all wallets.
    counted: LimitCharge | None = None

    @property
    def taken_amount(self) -> int:
        return sum(taking.amount for taking in self.takings)

    @property
    def left(self) -> int:
        """Returns what may be captured or comes back; once it has ended, what was."""
        return self.amount - self.taken_amount


def hold_view(hold: Hold) -> dict[str, Any]:
    """Returns the hold as the API shows it, to both sides alike."""
    return {
        "id": hold.id,
        "type": "hold",
        "status": hold.status,
        "amount": hold.amount,
        "captured_amount": hold.captured_amount,
        "taken_amount": hold.taken_amount,
        "currency": hold.currency,
        "wallet_id": hold.wallet_id,
        "to_wallet_id": hold.to_wallet_id,
        "category": hold.category,
        "description": hold.description,
        "metadata": hold.metadata,
        "expires_at": to_rfc3339(hold.expires_at),
        "created_at": to_rfc3339(hold.created_at),
        "updated_at": to_rfc3339(hold.updated_at),
        "transaction_id": hold.transaction_id,
    }


def hold_receipt_view(hold: Hold, viewer_id: str, payer: Wallet | None, recipient: Wallet | None) -> dict[str, Any]:
    """For who asked: what is in the wallet that is theirs, and never what is in the other side's."""
    sides = {"wallet": payer, "to_wallet": recipient}
    return hold_view(hold) | {
        name: balance_view(wallet)
        for name, wallet in sides.items()
        if wallet is not None and wallet.user_id == viewer_id
    }
