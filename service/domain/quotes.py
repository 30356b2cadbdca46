"""Quotes: what an amount in one currency would bring in another, by a rate that holds for a short time.

All of it is arithmetic on whole numbers, so that nothing is rounded but the result, and that once: down.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.money import EXPONENTS

# Basis points: hundredths of a per cent.
WHOLE_BP = 10_000
# What a table can say, also through its base, ends within as many (gateways/rates.py); only a rate that is read
# backwards may go on beyond them.
_SHOWN_DECIMALS = 18


class Rate(NamedTuple):
    """Exact: one major unit of a currency is worth numerator / denominator major units of the other."""

    numerator: int
    denominator: int
    source: str
    as_of: datetime


class QuoteStatus(StrEnum):
    OPEN = "open"
    USED = "used"
    # Only ever shown, never stored: nothing has to happen for a quote to expire.
    EXPIRED = "expired"


class Quote(NamedTuple):
    """`amount` is in minor units of the one currency and `to_amount` in those of the other, the margin taken off."""

    id: str
    user_id: str
    from_currency: str
    to_currency: str
    amount: int
    to_amount: int
    rate: Rate
    margin_bp: int
    status: QuoteStatus
    conversion_id: str | None
    request_id: str | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int = 0

    def status_at(self, now: datetime) -> QuoteStatus:
        is_expired = self.status is QuoteStatus.OPEN and now >= self.expires_at
        return QuoteStatus.EXPIRED if is_expired else self.status


def converted(amount: int, from_currency: str, to_currency: str, rate: Rate, margin_bp: int) -> int:
    """Minor units of the other currency: amount * rate * 10^(its exponent - ours) * (1 - margin), rounded down.

    Down is in the house's favour: never more than the exact value, and less than one minor unit below it. So nobody
    gains by going there and back, however small the steps.
    """
    dividend: int = amount * rate.numerator * 10 ** EXPONENTS[to_currency] * (WHOLE_BP - margin_bp)
    divisor: int = rate.denominator * 10 ** EXPONENTS[from_currency] * WHOLE_BP
    return dividend // divisor


def rate_text(rate: Rate) -> str:
    """As a decimal number: '83.25'. Exact up to 18 decimals, cut off after them."""
    whole, decimals = divmod(rate.numerator * 10**_SHOWN_DECIMALS // rate.denominator, 10**_SHOWN_DECIMALS)
    return f"{whole}.{decimals:0{_SHOWN_DECIMALS}d}".rstrip("0").rstrip(".")


def quote_view(quote: Quote, now: datetime) -> dict[str, Any]:
    """Returns the quote as the API shows it."""
    return {
        "id": quote.id,
        "status": quote.status_at(now),
        "from_currency": quote.from_currency,
        "to_currency": quote.to_currency,
        "amount": quote.amount,
        "to_amount": quote.to_amount,
        "rate": rate_text(quote.rate),
        "rate_source": quote.rate.source,
        "rate_as_of": to_rfc3339(quote.rate.as_of),
        "margin_bp": quote.margin_bp,
        "conversion_id": quote.conversion_id,
        "expires_at": to_rfc3339(quote.expires_at),
        "created_at": to_rfc3339(quote.created_at),
    }
