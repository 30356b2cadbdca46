"""Reversals: a settled transfer or adjustment taken back, by a record of its own that the original names."""

from datetime import datetime
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339


class Reversal(NamedTuple):
    """`from_wallet_id` is who got the money, `to_wallet_id` who gave it; None where that was the house.

    Of `amount` the first could not cover `shortfall`, which the house bears.
    """

    id: str
    original_id: str
    from_wallet_id: str | None
    to_wallet_id: str | None
    amount: int
    shortfall: int
    currency: str
    status: str
    reason: str
    is_forced: bool
    category: str | None
    requested_by: str
    transaction_id: str
    request_id: str | None
    created_at: datetime
    # The day sums that it counts in.
    counted_day: str | None = None
    counted_for: tuple[str, ...] = ()


def reversal_view(reversal: Reversal) -> dict[str, Any]:
    """Returns the reversal as the API shows it."""
    view = reversal._asdict() | {
        "force": reversal.is_forced,
        "taken": reversal.amount - reversal.shortfall,
        "created_at": to_rfc3339(reversal.created_at),
    }
    del view["is_forced"], view["request_id"], view["counted_day"], view["counted_for"]
    return view
