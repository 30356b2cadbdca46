"""Ceilings for currencies that the settings' tables do not name: no currency is without one by mistake."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from service.domain.money import EXPONENTS
from service.domain.quotes import Rate

# The largest number that JSON carries exactly: a refusal names the ceiling.
_LARGEST = 2**53 - 1
# Elsewhere 0 means "no limit".
_SMALLEST = 1
_DINAR_DIGITS = 3
# A Kuwaiti dinar is worth some 3.3 dollars. No currency of two digits is worth more than 1.5.
_DINAR_WORTH = 4


def complete(
    table: Mapping[str, int], currencies: Iterable[str], rates: Mapping[str, Rate], reference: str
) -> dict[str, int]:
    """Returns the table, in minor units, with a ceiling for each of the currencies. An empty table stays empty.

    `rates` has what one major unit is worth in `reference`. A currency with a rate gets what the reference has, at that
    rate. One without a rate counts as the dearest: it gets the lowest number among the currencies with as many digits
    that are named or have a rate, or else the lowest of all in major units. A ceiling is at least one minor unit.
    """
    if not table:
        return {}
    ceiling = table.get(reference)
    at_rates = {} if ceiling is None else {to: _at_rate(ceiling, rate, reference, to) for to, rate in rates.items()}
    known = at_rates | dict(table)
    return {currency: known.get(currency) or _lowest(known, currency) for currency in currencies} | dict(table)


def _at_rate(ceiling: int, rate: Rate, reference: str, currency: str) -> int:
    return _minor(Fraction(ceiling, 10 ** EXPONENTS[reference]) * rate.denominator / rate.numerator, currency)


def _lowest(known: Mapping[str, int], currency: str) -> int:
    digits = EXPONENTS[currency]
    alike = [ceiling for named, ceiling in known.items() if EXPONENTS[named] == digits]
    if alike:
        return min(alike)
    lowest = min(Fraction(ceiling, 10 ** EXPONENTS[named]) for named, ceiling in known.items())
    return _minor(lowest / _DINAR_WORTH if digits == _DINAR_DIGITS else lowest, currency)


def _minor(major: Fraction, currency: str) -> int:
    return max(_SMALLEST, min(int(major * 10 ** EXPONENTS[currency]), _LARGEST))
