"""The arithmetic of a conversion, held against fractions: never too much, and less than one minor unit too little."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.money import EXPONENTS, MAX_AMOUNT_MINOR
from service.domain.quotes import WHOLE_BP, Rate, converted, rate_text

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
# One currency for each number of decimals that there is: JPY 0, KWD 3 and so on.
_BY_EXPONENT = {exponent: code for code, exponent in sorted(EXPONENTS.items(), reverse=True)}
_CURRENCIES = st.sampled_from(sorted(_BY_EXPONENT.values()))
_AMOUNTS = st.one_of(st.integers(1, 1_000), st.integers(1, MAX_AMOUNT_MINOR))
_PARTS = st.one_of(st.integers(1, 1_000), st.integers(1, 10**18))
_MARGINS = st.one_of(st.just(0), st.just(50), st.integers(0, WHOLE_BP - 1))


def make_rate(numerator: int, denominator: int = 1) -> Rate:
    return Rate(numerator, denominator, "table", _NOW)


class TestConverted:
    def test_there_are_currencies_of_at_least_four_exponents(self) -> None:
        assert {0, 2, 3, 4} <= set(_BY_EXPONENT)

    @given(_AMOUNTS, _CURRENCIES, _CURRENCIES, _PARTS, _PARTS, _MARGINS)
    def test_is_never_more_than_the_exact_value_and_less_than_one_minor_unit_below_it(
        self, amount: int, ours: str, theirs: str, numerator: int, denominator: int, margin_bp: int
    ) -> None:
        major = Fraction(amount, 10 ** EXPONENTS[ours]) * Fraction(numerator, denominator)
        exact = major * (1 - Fraction(margin_bp, WHOLE_BP)) * 10 ** EXPONENTS[theirs]
        result = converted(amount, ours, theirs, make_rate(numerator, denominator), margin_bp)
        assert type(result) is int
        assert exact - 1 < result <= exact

    @given(_AMOUNTS, _CURRENCIES, _CURRENCIES, _PARTS, _PARTS, _MARGINS)
    def test_there_and_back_never_gains(
        self, amount: int, ours: str, theirs: str, numerator: int, denominator: int, margin_bp: int
    ) -> None:
        there = converted(amount, ours, theirs, make_rate(numerator, denominator), margin_bp)
        back = converted(there, theirs, ours, make_rate(denominator, numerator), margin_bp)
        assert back <= amount
        if margin_bp:
            assert back < amount

    @given(st.lists(_AMOUNTS, min_size=2, max_size=5), _CURRENCIES, _CURRENCIES, _PARTS, _PARTS)
    def test_many_small_steps_never_bring_more_than_a_large_one(
        self, amounts: list[int], ours: str, theirs: str, numerator: int, denominator: int
    ) -> None:
        rate = make_rate(numerator, denominator)
        steps = sum(converted(amount, ours, theirs, rate, 50) for amount in amounts)
        assert steps <= converted(sum(amounts), ours, theirs, rate, 50)

    @pytest.mark.parametrize("ours", sorted(_BY_EXPONENT))
    @pytest.mark.parametrize("theirs", sorted(_BY_EXPONENT))
    def test_one_major_unit_at_par_is_one_major_unit_whatever_the_exponents(self, ours: int, theirs: int) -> None:
        result = converted(10**ours, _BY_EXPONENT[ours], _BY_EXPONENT[theirs], make_rate(1), 0)
        assert result == 10**theirs

    @pytest.mark.parametrize(
        ("amount", "ours", "theirs", "rate", "margin_bp", "to_amount"),
        [
            # 100.00 USD * 149.5 = 14,950 JPY, less 0.5 % = 14,875.25 JPY
            (10_000, "USD", "JPY", make_rate(1495, 10), 50, 14_875),
            # 10,000 JPY / 149.5 / 3.25 = 20.581... KWD, less 0.5 % = 20.4785... KWD
            (10_000, "JPY", "KWD", make_rate(40, 19_435), 50, 20_478),
            # 1.000 KWD * 3.25 = 3.25 USD
            (1_000, "KWD", "USD", make_rate(325, 100), 0, 325),
            # 0.01 INR is less than a yen
            (1, "INR", "JPY", make_rate(1495, 832), 0, 0),
            # The largest amount, where a double would be off by 1.
            (MAX_AMOUNT_MINOR, "USD", "EUR", make_rate(1), 0, MAX_AMOUNT_MINOR),
            (MAX_AMOUNT_MINOR, "JPY", "KWD", make_rate(1, 3), 0, MAX_AMOUNT_MINOR * 1_000 // 3),
        ],
    )
    def test_by_example(self, amount: int, ours: str, theirs: str, rate: Rate, margin_bp: int, to_amount: int) -> None:
        assert converted(amount, ours, theirs, rate, margin_bp) == to_amount


class TestRateText:
    @pytest.mark.parametrize(
        ("rate", "text"),
        [
            (make_rate(8325, 100), "83.25"),
            (make_rate(3), "3"),
            (make_rate(100), "100"),
            (make_rate(1, 3), "0." + "3" * 18),
            (make_rate(2, 3), "0." + "6" * 18),
            (make_rate(1, 10**18), "0.000000000000000001"),
            (make_rate(10**18), "1000000000000000000"),
        ],
    )
    def test_is_a_plain_decimal_number_cut_off_after_18_decimals(self, rate: Rate, text: str) -> None:
        assert rate_text(rate) == text

    @given(_PARTS, _PARTS)
    def test_is_never_above_the_rate(self, numerator: int, denominator: int) -> None:
        exact = Fraction(numerator, denominator)
        assert exact - Fraction(1, 10**18) < Fraction(Decimal(rate_text(make_rate(numerator, denominator)))) <= exact
