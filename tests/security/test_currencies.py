"""Every currency that wallets may be opened in has limits, step-up and a second admin by default."""

from typing import Any

import pytest

from service.domain.limits import Limits
from service.domain.money import EXPONENTS, ORDINARY_CURRENCIES, POINTS
from service.domain.policy import Policy
from service.settings import Settings
from service.startup import policy_of

# In major units: more than a household moves in a month, whatever the currency is worth.
_FORTUNE = 10**12


def policy(**settings: Any) -> Policy:
    return policy_of(Settings(_env_file=None, **settings))


class TestAllCurrencies:
    def test_have_a_ceiling_of_each_kind(self) -> None:
        usual = policy()
        assert usual.currencies == ORDINARY_CURRENCIES
        # Wallets in the others may be there from before.
        for currency in EXPONENTS.keys() - {POINTS}:
            fortune = _FORTUNE * 10 ** EXPONENTS[currency]
            assert usual.needs_step_up(fortune, currency), currency
            assert usual.needs_second_admin(fortune, currency), currency
            limits, day = usual.limits_in(currency), usual.step_up_day_above[currency]
            assert usual.step_up_above[currency] < day < (limits.per_day or 0) < (limits.per_month or 0), currency
        assert usual.needs_second_admin(_FORTUNE, POINTS)

    def test_go_by_the_rate_where_there_is_one(self) -> None:
        rated = policy(fx_rates={"USD/CHF": "0.8", "USD/VND": "25000"})
        assert rated.step_up_above["CHF"] == 200_000
        assert rated.step_up_above["VND"] == 62_500_000
        assert rated.limits_in("CHF") == Limits(0, 2_000_000, 20_000_000, 0)

    def test_are_held_strictly_where_there_is_none(self) -> None:
        usual = policy()
        assert (usual.step_up_above["CHF"], usual.step_up_above["BHD"]) == (200_000, 750_000)
        # As the dearest of as many digits that is named or has a rate: the Kuwaiti dinar.
        assert policy(step_up_above={"USD": 250_000}).step_up_above["BHD"] == 769_230
        # As a quarter of the lowest in major units, where there is none of three digits.
        assert policy(step_up_above={"USD": 250_000}, fx_rates={"USD/INR": "80"}).step_up_above["BHD"] == 625_000

    def test_are_never_dearer_than_what_a_table_names(self) -> None:
        """A ceiling of rupees is no ceiling of as many dinars."""
        worths = {"INR": 0.012, "USD": 1, "EUR": 1.1, "GBP": 1.3, "CHF": 1.25, "KYD": 1.2, "JPY": 0.0067, "KWD": 3.3,
                  "BHD": 2.66, "OMR": 2.6, "JOD": 1.41}  # fmt: skip
        of_rupees = policy(step_up_above={"INR": 2_000_000}).step_up_above
        bound = 20_000 * worths["INR"] * 1.05
        for currency in ORDINARY_CURRENCIES:
            worth = worths.get(currency, 0.0067 if EXPONENTS[currency] == 0 else 1)
            in_dollars = of_rupees[currency] / 10 ** EXPONENTS[currency] * worth
            assert 0 < in_dollars < bound, currency

    def test_never_have_a_ceiling_of_0_which_would_be_none(self) -> None:
        tiny = policy(limits={"JPY": {"per_day": 1}}, fx_rates={"USD/JPY": "150", "KWD/USD": "3.25"})
        assert all(tiny.limits_in(currency).per_day for currency in ORDINARY_CURRENCIES)

    @pytest.mark.parametrize("table", ["limits", "step_up_above", "step_up_day_above", "adjustment_approval_above"])
    def test_are_named_or_have_a_rate_or_no_process_starts(self, table: str) -> None:
        ceilings: dict[str, Any] = {"INR": {"per_day": 2_000_000} if table == "limits" else 2_000_000}
        rateless: dict[str, Any] = {"fx_rates": {}, "user_limits": {"currency": "INR", "count_per_hour": 5}}
        others: dict[str, Any] = {
            one: {} for one in ("limits", "step_up_above", "step_up_day_above", "adjustment_approval_above")
        }
        wrong = {**rateless, **others, table: ceilings}
        with pytest.raises(ValueError, match=f"WALLET_{table.upper()} names no currency that WALLET_FX_RATES has"):
            policy(**wrong)
        assert policy(**wrong, currencies=("INR",))

    def test_have_none_where_the_settings_say_so(self) -> None:
        none = policy(limits={}, step_up_above={}, step_up_day_above={}, adjustment_approval_above={})
        assert none.limits_in("CHF") == Limits()
        assert not none.needs_step_up(_FORTUNE, "CHF")
        assert not none.needs_second_admin(_FORTUNE, "CHF")

    def test_of_a_table_are_currencies(self) -> None:
        with pytest.raises(ValueError, match="WALLET_STEP_UP_ABOVE names ABC"):
            policy(step_up_above={"ABC": 1})
