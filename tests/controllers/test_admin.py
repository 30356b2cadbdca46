"""The books over HTTP: who may see them, and what they look like."""

import httpx
import pytest

from service.controllers.admin import _EXAMPLE, TrialBalanceView, trial_balance_view
from service.controllers.answers import json_response
from service.database import Databases
from service.domain.accounts import AccountSum
from service.domain.clock import utc_now
from service.domain.money import MAX_AMOUNT_MINOR
from service.repositories.wallets import WalletTotal
from service.services.trial_balance import CurrencyBalance, TrialBalance
from service.settings import Settings
from tests.exact_numbers import parse_exactly
from tests.factories import bearer, change, make_account, make_user, withdrawal_of

TRIAL_BALANCE = "/api/v1/admin/trial-balance"


class TestTheTrialBalance:
    async def test_is_shown_to_an_admin(self, api: httpx.AsyncClient, databases: Databases, settings: Settings) -> None:
        # A currency that no other test has.
        account = await make_account(databases, balance=1_000, currency="XPF")
        await change(databases, withdrawal_of(account.wallet, 300))
        admin = await make_user(databases, roles=["user", "admin"])
        answer = await api.get(TRIAL_BALANCE, headers=bearer(admin, settings))
        assert answer.status_code == 200
        shown = answer.json()
        assert TrialBalanceView(**shown).model_dump() == shown
        (francs,) = [one for one in shown["currencies"] if one["currency"] == "XPF"]
        nothing = {"debit": 0, "credit": 0, "balance": 0}
        no_floor = {"floor": None, "headroom": None}
        assert francs == {
            "currency": "XPF",
            "accounts": [
                # What the withdrawal has set aside is no longer the bank's to give.
                {"account": "bank", "debit": 1_000, "credit": 0, "balance": -1_000, "floor": 0, "headroom": 700},
                {"account": "house:fx", **nothing, "floor": 0, "headroom": 0},
                {"account": "house:rewards", **nothing, **no_floor},
                {"account": "house:adjustments", **nothing, **no_floor},
                {"account": "house:revenue", **nothing, **no_floor},
            ],
            "between_wallets": nothing,
            "wallets": {"available": 700, "held": 300, "balance": 1_000, "wallets": 1},
            "total": 0,
            "is_balanced": True,
        }

    def test_writes_a_sum_that_readers_would_change_as_its_digits(self) -> None:
        """Of 1,100 wallets of the largest balance; a double has other digits."""
        held = 1_100 * MAX_AMOUNT_MINOR
        nothing = AccountSum("between_wallets", "CHF", 0, 0)
        francs = CurrencyBalance(
            "CHF",
            [AccountSum("bank", "CHF", held, 0)],
            nothing,
            WalletTotal("CHF", held, 1, 1_100),
            {"bank": (0, held - 1)},
        )
        balance = TrialBalance(utc_now(), None, [francs])
        body = json_response(trial_balance_view(balance)).body
        shown = parse_exactly(bytes(body))
        assert TrialBalanceView(**shown).model_dump() == shown
        (francs_shown,) = shown["currencies"]
        (bank,) = francs_shown["accounts"]
        assert (bank["debit"], bank["credit"], bank["balance"]) == (str(held), 0, str(-held))
        assert (bank["floor"], bank["headroom"]) == (0, str(held - 1))
        assert (francs_shown["wallets"]["balance"], francs_shown["total"]) == (str(held + 1), 1)

    @pytest.mark.parametrize("roles", [[], ["user"], ["user", "service"]], ids=str)
    async def test_is_shown_to_nobody_else(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, roles: list[str]
    ) -> None:
        somebody = await make_user(databases, roles=roles)
        answer = await api.get(TRIAL_BALANCE, headers=bearer(somebody, settings))
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
        assert answer.headers["content-type"] == "application/problem+json"

    async def test_takes_a_token(self, api: httpx.AsyncClient) -> None:
        answer = await api.get(TRIAL_BALANCE)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")

    def test_has_an_example_that_is_balanced_itself(self) -> None:
        assert TrialBalanceView(**_EXAMPLE).model_dump() == _EXAMPLE
        for currency in _EXAMPLE["currencies"]:
            balances = [account["balance"] for account in currency["accounts"]]
            assert sum(balances) + currency["wallets"]["balance"] == currency["total"] == 0
