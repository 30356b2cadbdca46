"""Rates of exchange as the service sees them: a protocol of one call, and a table from the settings that has it."""

import re
from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction
from typing import Protocol

from service.domain.money import is_currency
from service.domain.quotes import Rate
from service.errors import RateUnavailable

# So many for one rate. Two of them, multiplied on the way through the base, still fit into the 64-bit integers that
# a quote keeps its rate in.
_DIGITS_LIMIT = 9
_RATE = re.compile(rf"[0-9]{{1,{_DIGITS_LIMIT}}}(\.[0-9]{{1,{_DIGITS_LIMIT}}})?")
_SOURCE = "table"


class Rates(Protocol):
    async def rate(self, from_currency: str, to_currency: str) -> Rate:
        """The rate of the middle, before any margin, for one major unit.

        Raises RateUnavailable where there is none for the pair, Unavailable where the source does not answer.
        """
        ...


class TableRates:
    """From pairs such as {"USD/INR": "83.2500"}: one major unit of USD is worth 83.25 INR.

    All pairs have one currency in common, the table's base. So each currency has one value in it, from which every
    rate follows exactly: a pair as written, its inverse, and a cross rate through the base. No way round through
    several currencies can gain, which a table with a rate for each pair would have to be checked for.
    """

    def __init__(self, table: Mapping[str, str], as_of: datetime) -> None:
        """Raises ValueError for a table that makes no sense."""
        self._values = _values_in_base(table)
        self._as_of = as_of

    def rates_into(self, to_currency: str) -> dict[str, Rate]:
        """What one major unit of each currency is worth in that one, which itself is always among them."""
        theirs = self._values.get(to_currency)
        known = {to_currency: Fraction(1)}
        if theirs is not None:
            known |= {currency: ours / theirs for currency, ours in self._values.items()}
        return {
            currency: Rate(exact.numerator, exact.denominator, _SOURCE, self._as_of)
            for currency, exact in known.items()
        }

    async def rate(self, from_currency: str, to_currency: str) -> Rate:
        ours, theirs = self._values.get(from_currency), self._values.get(to_currency)
        if ours is None or theirs is None:
            raise RateUnavailable(from_currency=from_currency, to_currency=to_currency)
        exact = ours / theirs
        return Rate(exact.numerator, exact.denominator, _SOURCE, self._as_of)


def _values_in_base(table: Mapping[str, str]) -> dict[str, Fraction]:
    """What one major unit of each currency is worth in the one that all pairs share."""
    pairs = {name: _currencies_of(name) for name in table}
    if not pairs:
        return {}
    shared = set.intersection(*(set(pair) for pair in pairs.values()))
    if not shared:
        raise ValueError("WALLET_FX_RATES: all pairs need one currency in common, through which the others are reached")
    base = min(shared)
    values = {base: Fraction(1)}
    for name, (unit, priced_in) in pairs.items():
        currency = priced_in if unit == base else unit
        if currency in values:
            raise ValueError(f"WALLET_FX_RATES: {currency} is named twice, which leaves its rate open")
        rate = _rate_of(name, table[name])
        values[currency] = 1 / rate if unit == base else rate
    return values


def _currencies_of(name: str) -> tuple[str, str]:
    unit, _, priced_in = name.partition("/")
    if not is_currency(unit) or not is_currency(priced_in) or unit == priced_in:
        raise ValueError(f"WALLET_FX_RATES: {name!r} is no pair of currencies such as USD/INR")
    return unit, priced_in


def _rate_of(name: str, text: str) -> Fraction:
    digits = text.replace(".", "").lstrip("0")
    if _RATE.fullmatch(text) is None or not 1 <= len(digits) <= _DIGITS_LIMIT:
        raise ValueError(
            f"WALLET_FX_RATES: {name} needs a positive decimal number in quotes, of at most {_DIGITS_LIMIT} digits"
        )
    return Fraction(text)
