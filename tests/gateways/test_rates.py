"""The table of rates: exact in every direction, without a way round that gains, and refused where it makes no sense."""

from datetime import UTC, datetime
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RateUnavailable
from service.gateways.rates import TableRates
from service.settings import Settings
from service.startup import open_resources

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_TABLE = {"USD/INR": "83.2500", "EUR/USD": "1.0850", "USD/JPY": "149.5000", "KWD/USD": "3.2500"}
_CURRENCIES = ("USD", "INR", "EUR", "JPY", "KWD")
# What the pattern of a rate allows, in nines.
_LARGEST, _SMALLEST = "999999999", "0.000000001"


async def _value(rates: TableRates, ours: str, theirs: str) -> Fraction:
    rate = await rates.rate(ours, theirs)
    return Fraction(rate.numerator, rate.denominator)


class TestTheTable:
    @pytest.mark.parametrize(
        ("ours", "theirs", "value"),
        [
            ("USD", "INR", Fraction(8325, 100)),
            ("INR", "USD", Fraction(100, 8325)),
            ("USD", "EUR", Fraction(1000, 1085)),
            ("EUR", "INR", Fraction("1.085") * Fraction("83.25")),
            ("JPY", "KWD", 1 / Fraction("149.5") / Fraction("3.25")),
        ],
    )
    async def test_has_each_pair_its_inverse_and_what_goes_through_the_base(
        self, ours: str, theirs: str, value: Fraction
    ) -> None:
        rates = TableRates(_TABLE, _NOW)
        assert await _value(rates, ours, theirs) == value
        assert (await rates.rate(ours, theirs))[2:] == ("table", _NOW)

    async def test_has_no_way_round_that_gains(self) -> None:
        rates = TableRates(_TABLE, _NOW)
        for first, second, third in permutations(_CURRENCIES, 3):
            way_round = await _value(rates, first, second) * await _value(rates, second, third)
            assert way_round * await _value(rates, third, first) == 1

    @given(st.sampled_from((_LARGEST, _SMALLEST, "0.999999999", "123.456789", "1")), st.data())
    async def test_never_leaves_what_64_bits_hold(self, first: str, data: Any) -> None:
        second = data.draw(st.sampled_from((_LARGEST, _SMALLEST, "0.999999999", "7.77777777")))
        for table in ({"USD/INR": first, "USD/JPY": second}, {"INR/USD": first, "USD/JPY": second}):
            rates = TableRates(table, _NOW)
            for ours, theirs in permutations(("USD", "INR", "JPY"), 2):
                rate = await rates.rate(ours, theirs)
                assert 0 < rate.numerator < 2**63
                assert 0 < rate.denominator < 2**63

    @pytest.mark.parametrize("pair", [("USD", "CHF"), ("CHF", "USD"), ("CHF", "SEK")])
    async def test_has_nothing_for_a_currency_that_it_does_not_name(self, pair: tuple[str, str]) -> None:
        with pytest.raises(RateUnavailable):
            await TableRates(_TABLE, _NOW).rate(*pair)

    async def test_may_be_empty(self) -> None:
        with pytest.raises(RateUnavailable):
            await TableRates({}, _NOW).rate("USD", "INR")

    @pytest.mark.parametrize(
        "table",
        [
            {"USD/INR": "0"},
            {"USD/INR": "0.000"},
            {"USD/INR": "-1"},
            {"USD/INR": "+1"},
            {"USD/INR": "1e2"},
            {"USD/INR": "1/3"},
            {"USD/INR": "1,5"},
            {"USD/INR": ".5"},
            {"USD/INR": "5."},
            {"USD/INR": ""},
            {"USD/INR": " 1"},
            {"USD/INR": "1\n"},
            {"USD/INR": "NaN"},
            {"USD/INR": "٣"},
            {"USD/INR": "1_0"},
            {"USD/INR": "1234567890"},
            {"USD/INR": "12345.67890"},
            {"USD/INR": "0.0000000001"},
            {"USD/USD": "1"},
            {"USD": "1"},
            {"USD/": "1"},
            {"USD/INR/EUR": "1"},
            {"usd/inr": "1"},
            {"USD/XAU": "1"},
            {"USD/PTS": "1"},
            {"USD/INR": "83", "INR/USD": "0.012"},
            {"USD/INR": "83", "EUR/GBP": "0.85"},
            {"USD/INR": "83", "EUR/USD": "1.08", "EUR/INR": "90"},
        ],
    )
    def test_is_refused_where_it_makes_no_sense(self, table: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="WALLET_FX_RATES"):
            TableRates(table, _NOW)


class TestAtTheStart:
    async def test_the_usual_table_knows_six_currencies(self) -> None:
        rates = TableRates(Settings(_env_file=None).fx_rates, _NOW)
        for ours, theirs in permutations(("INR", "USD", "EUR", "GBP", "JPY", "KWD"), 2):
            assert await _value(rates, ours, theirs) > 0

    async def test_a_process_does_not_start_with_a_wrong_one(self, settings: Settings) -> None:
        wrong = settings.model_copy(update={"fx_rates": {"USD/INR": "0"}})
        with pytest.raises(ValueError, match="WALLET_FX_RATES: USD/INR"):
            async with open_resources(wrong):
                pass
