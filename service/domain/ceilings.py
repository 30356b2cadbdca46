"""Ceilings for currencies that the settings' tables do not name: no currency is without one by mistake."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from service.domain.money import EXPONENTS
from service.domain.quotes import Rate

# What JSON carries exactly: a refusal names the ceiling.
_LARGEST = 2**53 - 1


def complete(
    table: Mapping[str, int], currencies: Iterable[str], rates: Mapping[str, Rate], reference: str
) -> dict[str, int]:
    """Returns the table, in minor units, with a ceiling for each of the currencies. An empty table stays empty.

    `rates` has what one major unit is worth in `reference`. A currency with a rate gets what the reference has, at that
    rate. One without gets the table's lowest number among the currencies with as many digits, or else the lowest of
    all in major units: too strict rather than none.
    """
    if not table:
        return {}
    return {currency: _derived(table, currency, rates, reference) for currency in currencies} | dict(table)


def _derived(table: Mapping[str, int], currency: str, rates: Mapping[str, Rate], reference: str) -> int:
    rate, digits = rates.get(currency), EXPONENTS[currency]
    if rate is not None and reference in table:
        major = Fraction(table[reference], 10 ** EXPONENTS[reference]) * rate.denominator / rate.numerator
        return min(int(major * 10**digits), _LARGEST)
    alike = [ceiling for named, ceiling in table.items() if EXPONENTS[named] == digits]
    if alike:
        return min(alike)
    lowest = min(Fraction(ceiling, 10 ** EXPONENTS[named]) for named, ceiling in table.items())
    return min(int(lowest * 10**digits), _LARGEST)
