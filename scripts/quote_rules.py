"""Checks quotes and conversions: one used quote has one conversion, at the rate that the quote named.

Written out a second time like `ledger_rules`, and for the same reason. Quotes that nobody used are forgotten; one that
was used stays, as the reason for its conversion.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

from scripts.record_rules import Row
from service.domain.money import EXPONENTS

QUOTE_FIELDS: Final = (
    "_id", "user_id", "from_currency", "to_currency", "amount", "to_amount", "rate", "margin_bp", "status",
    "conversion_id",
)  # fmt: skip
CONVERSION_FIELDS: Final = (
    "_id", "quote_id", "user_id", "currency", "to_currency", "amount", "to_amount", "rate", "margin_bp",
)  # fmt: skip
# By a conversion's name, what the quote calls it.
_SAME: Final = {
    **dict.fromkeys(("user_id", "to_currency", "amount", "to_amount", "rate", "margin_bp")),
    "currency": "from_currency",
}
# Hundredths of a per cent.
_WHOLE_BP: Final = 10_000


class QuoteRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    LINK = "quote_link"
    MISMATCH = "quote_mismatch"
    RATE = "conversion_rate"


Found = tuple[QuoteRule, str]
"""A rule that does not hold, and what stands there instead."""


def check_quote(quotes: Sequence[Row], conversions: Sequence[Row]) -> Iterator[Found]:
    """Compares one quote, if it exists, with the conversions that name it."""
    if len(conversions) > 1:
        yield QuoteRule.LINK, f"used {len(conversions)} times: {', '.join(str(one.get('_id')) for one in conversions)}"
    quote = quotes[0] if quotes else None
    for conversion in conversions:
        yield from _check_rate(conversion)
        if quote is None:
            yield QuoteRule.LINK, f"{conversion.get('_id')} names it, and it does not exist"
            continue
        known = quote.get("status"), quote.get("conversion_id")
        if known != ("used", conversion.get("_id")):
            yield QuoteRule.LINK, f"{conversion.get('_id')} used it, and it is {known[0]} by {known[1]}"
        for name, said_as in _SAME.items():
            said, done = quote.get(said_as or name), conversion.get(name)
            if said != done:
                yield QuoteRule.MISMATCH, f"{conversion.get('_id')} has {name} {done}, the quote {said}"
    if quote is not None and quote.get("status") == "used" and not conversions:
        yield QuoteRule.LINK, f"used by {quote.get('conversion_id')}, which does not exist or names another quote"


def _check_rate(conversion: Row) -> Iterator[Found]:
    """The amount that arrived is what the rate and the margin make of what left, rounded down."""
    due = _converted(conversion)
    if due != conversion.get("to_amount"):
        yield QuoteRule.RATE, f"{conversion.get('_id')} brought {conversion.get('to_amount')}, its rate makes {due}"


def _converted(conversion: Row) -> int | None:
    """Computes the amount that the conversion gives; None where a field for it is missing or malformed."""
    try:
        rate: dict[str, Any] = conversion["rate"]
        before, after = EXPONENTS[conversion["currency"]], EXPONENTS[conversion["to_currency"]]
        dividend = int(conversion["amount"]) * int(rate["numerator"]) * (_WHOLE_BP - int(conversion["margin_bp"]))
        divisor: int = int(rate["denominator"]) * _WHOLE_BP * 10**before
        return int(dividend * 10**after // divisor)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        # The caller reports it.
        return None
