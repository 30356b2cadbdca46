"""People over HTTP: oneself, one's balances, one's history; nobody else's."""

import httpx
import pytest

from service.controllers.schemas import BalancesView, EntryView, PageView
from service.controllers.users import MeView
from service.database import Databases
from service.settings import Settings
from tests.factories import bearer, change, fund_wallet, make_account, make_user, make_wallet, withdrawal_of
from tests.servers import Admin

API = "/api/v1"


class TestMe:
    async def test_is_oneself_without_anything_secret(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases, first_name="Zoë")
        answer = await api.get(f"{API}/me", headers=bearer(user, settings))
        assert answer.status_code == 200
        me = answer.json()
        assert (me["id"], me["email"], me["first_name"]) == (user.id, user.email, "Zoë")
        assert MeView(**me).model_dump() == me
        assert "argon2" not in answer.text

    async def test_a_deactivated_user_is_told(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases, is_active=False)
        answer = await api.get(f"{API}/me", headers=bearer(user, settings))
        assert (answer.status_code, answer.json()["error"]) == (403, "account_deactivated")

    async def test_a_token_of_an_older_version_no_longer_holds(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases, token_version=2)
        older = user.model_copy(update={"token_version": 1})
        answer = await api.get(f"{API}/me", headers=bearer(older, settings))
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")

    async def test_a_user_that_is_gone_has_no_valid_token(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, admin: Admin
    ) -> None:
        user = await make_user(databases)
        admin[settings.database]["users"].delete_one({"_id": user.id})
        answer = await api.get(f"{API}/me", headers=bearer(user, settings))
        assert answer.status_code == 401


class TestBalance:
    async def test_is_told_wallet_by_wallet(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user, rupees = await make_account(databases, balance=10_000)
        dollars = await make_wallet(databases, user, currency="USD")
        await change(databases, withdrawal_of(rupees, 1_000))
        answer = await api.get(f"{API}/users/{user.id}/balance", headers=bearer(user, settings))
        assert answer.status_code == 200
        assert answer.json() == {
            "user_id": user.id,
            "balances": [
                {"wallet_id": dollars.id, "currency": "USD", "available": 0, "held": 0, "balance": 0, "owed": 0},
                {
                    "wallet_id": rupees.id,
                    "currency": "INR",
                    "available": 9_000,
                    "held": 1_000,
                    "balance": 10_000,
                    "owed": 0,
                },
            ],
        }
        assert BalancesView(**answer.json()).model_dump() == answer.json()


class TestHistory:
    async def test_tells_the_entries_of_all_wallets_page_by_page(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user, rupees = await make_account(databases)
        dollars = await make_wallet(databases, user, currency="USD")
        for amount in (1, 3, 5):
            await fund_wallet(databases, rupees, amount)
            await fund_wallet(databases, dollars, amount + 1)
        path, headers = f"{API}/users/{user.id}/transactions", bearer(user, settings)
        whole = (await api.get(path, headers=headers)).json()
        assert [(row["amount"], row["currency"]) for row in whole["data"]] == [
            (6, "USD"),
            (5, "INR"),
            (4, "USD"),
            (3, "INR"),
            (2, "USD"),
            (1, "INR"),
        ]
        assert PageView[EntryView](**whole).model_dump(mode="json") == whole
        first = (await api.get(path, params={"limit": 4}, headers=headers)).json()
        query = {"limit": 4, "cursor": first["next_cursor"]}
        second = (await api.get(path, params=query, headers=headers)).json()
        assert (first["has_more"], second["has_more"]) == (True, False)
        assert first["data"] + second["data"] == whole["data"]

    async def test_can_be_narrowed_to_a_currency_and_a_type(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user, rupees = await make_account(databases, balance=100)
        await fund_wallet(databases, await make_wallet(databases, user, currency="USD"), 50)
        await change(databases, withdrawal_of(rupees, 7))
        path, headers = f"{API}/users/{user.id}/transactions", bearer(user, settings)
        query = {"currency": "INR", "type": "DEPOSIT"}
        rows = (await api.get(path, params=query, headers=headers)).json()["data"]
        assert [(row["type"], row["amount"], row["currency"]) for row in rows] == [("DEPOSIT", 100, "INR")]
        refused = await api.get(path, params={"currency": "rupee"}, headers=headers)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/currency")


class TestSomebodyElse:
    @pytest.mark.parametrize("what", ["balance", "transactions"])
    async def test_is_not_found_whether_they_exist_or_not(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, what: str
    ) -> None:
        user, other = await make_user(databases), (await make_account(databases, balance=777_123_456_789_012)).user
        for user_id in (other.id, "usr_nobody", "$ne", "%00"):
            answer = await api.get(f"{API}/users/{user_id}/{what}", headers=bearer(user, settings))
            assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
            assert "777123456789012" not in answer.text

    @pytest.mark.parametrize("what", ["balance", "transactions"])
    async def test_is_refused_without_a_token_first(self, api: httpx.AsyncClient, what: str) -> None:
        answer = await api.get(f"{API}/users/usr_nobody/{what}")
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")
