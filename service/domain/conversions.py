"""Conversions: a person's own money, from their wallet in one currency into that in another."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.operations import OperationStatus
from service.domain.quotes import Rate, rate_text
from service.domain.transfers import balance_view
from service.domain.wallets import Wallet


class Conversion(NamedTuple):
    """What the quote had promised, as it was done. It is made whole, and so never changes."""

    id: str
    user_id: str
    quote_id: str
    wallet_id: str
    to_wallet_id: str
    amount: int
    currency: str
    to_amount: int
    to_currency: str
    rate: Rate
    margin_bp: int
    status: OperationStatus
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    transaction_id: str
    request_id: str | None
    created_at: datetime
    updated_at: datetime
    # Whether it counts for the limits of the wallet that gave: those of before they did count for none.
    is_counted: bool = False


def conversion_view(conversion: Conversion) -> dict[str, Any]:
    """Returns the conversion as the API shows it."""
    return {
        "id": conversion.id,
        "type": "conversion",
        "status": conversion.status,
        "quote_id": conversion.quote_id,
        "from_wallet_id": conversion.wallet_id,
        "to_wallet_id": conversion.to_wallet_id,
        "amount": conversion.amount,
        "currency": conversion.currency,
        "to_amount": conversion.to_amount,
        "to_currency": conversion.to_currency,
        "rate": rate_text(conversion.rate),
        "margin_bp": conversion.margin_bp,
        "category": conversion.category,
        "description": conversion.description,
        "metadata": conversion.metadata,
        "transaction_id": conversion.transaction_id,
        "created_at": to_rfc3339(conversion.created_at),
        "updated_at": to_rfc3339(conversion.updated_at),
    }


def conversion_receipt_view(conversion: Conversion, source: Wallet, target: Wallet) -> dict[str, Any]:
    """With what is in both wallets afterwards: they are of one owner."""
    return conversion_view(conversion) | {"from_wallet": balance_view(source), "to_wallet": balance_view(target)}
