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
        # In major units, where none that is named has as many digits.
        assert policy(step_up_above={"USD": 250_000}).step_up_above["BHD"] == 2_500_000

    def test_have_none_where_the_settings_say_so(self) -> None:
        none = policy(limits={}, step_up_above={}, step_up_day_above={}, adjustment_approval_above={})
        assert none.limits_in("CHF") == Limits()
        assert not none.needs_step_up(_FORTUNE, "CHF")
        assert not none.needs_second_admin(_FORTUNE, "CHF")

    def test_of_a_table_are_currencies(self) -> None:
        with pytest.raises(ValueError, match="WALLET_STEP_UP_ABOVE names ABC"):
            policy(step_up_above={"ABC": 1})
