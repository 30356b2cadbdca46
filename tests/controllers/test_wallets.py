"""Wallets over HTTP: opening, reading, their history."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from service.controllers.schemas import EntryView, PageView, WalletView
from service.database import Databases
from service.domain.clock import to_rfc3339, utc_now
from service.domain.entries import GENESIS_HASH
from service.domain.policy import Policy
from service.domain.wallets import wallet_view
from service.settings import Settings
from service.startup import Resources
from tests.factories import (
    Account,
    bearer,
    change,
    current,
    deposit_of,
    failure_of,
    fund_wallet,
    make_account,
    make_user,
    make_wallet,
    settlement_of,
    withdrawal_of,
)

WALLETS = "/api/v1/wallets"


class Client:
    """The API with somebody's token."""

    def __init__(self, api: httpx.AsyncClient, account: Account, settings: Settings) -> None:
        self.api = api
        self.user, self.wallet = account
        self.headers = bearer(account.user, settings)

    async def get(self, path: str = "", **query: Any) -> httpx.Response:
        return await self.api.get(f"{WALLETS}{path}", params=query, headers=self.headers)

    async def open(self, **body: Any) -> httpx.Response:
        return await self.api.post(WALLETS, json=body, headers=self.headers)


@pytest.fixture
async def client(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Client:
    return Client(api, await make_account(databases), settings)


@pytest.fixture
async def other(databases: Databases) -> Account:
    return await make_account(databases, balance=500)


class TestOpening:
    async def test_gives_an_empty_wallet(self, client: Client) -> None:
        answer = await client.open(currency="USD")
        assert answer.status_code == 201
        wallet = answer.json()
        assert wallet == {
            "id": wallet["id"],
            "user_id": client.user.id,
            "currency": "USD",
            "available": 0,
            "held": 0,
            "balance": 0,
            "owed": 0,
            "status": "active",
            "frozen": None,
            "seq": 0,
            "created_at": wallet["created_at"],
            "updated_at": wallet["created_at"],
        }
        assert (await client.get(f"/{wallet['id']}")).json() == wallet

    async def test_refuses_a_second_one_in_a_currency(self, client: Client) -> None:
        answer = await client.open(currency="INR")
        assert (answer.status_code, answer.json()["error"]) == (409, "wallet_exists")
        assert answer.json()["currency"] == "INR"

    async def test_of_many_at_once_one_opens_it(self, client: Client, databases: Databases) -> None:
        answers = await asyncio.gather(*(client.open(currency="EUR") for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
        assert await databases.wallet["wallets"].count_documents({"user_id": client.user.id, "currency": "EUR"}) == 1

    @pytest.mark.parametrize(
        "body",
        [{}, {"currency": "usd"}, {"currency": "XYZ"}, {"currency": "XAU"}, {"currency": 840}, {"currency": None}],
    )
    async def test_refuses_what_is_no_currency(self, client: Client, body: dict[str, Any]) -> None:
        answer = await client.open(**body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/currency")

    @pytest.mark.parametrize("currency", ["USN", "CHE", "CHW", "CLF", "COU", "MXV", "UYI", "UYW", "BOV", "XAD"])
    async def test_refuses_what_nobody_holds_money_in_and_lists_what_is_dealt_in(
        self, client: Client, currency: str
    ) -> None:
        answer = await client.open(currency=currency)
        assert (answer.status_code, answer.json()["error"]) == (422, "currency_not_offered")
        offered = answer.json()["offered"]
        assert {"INR", "USD", "XPF"} < set(offered)
        assert currency not in offered

    async def test_is_in_what_the_settings_name_and_in_points(
        self, client: Client, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resources.ledger, "policy", Policy(currencies=frozenset({"INR", "USD"})))
        refused = await client.open(currency="EUR")
        assert (refused.status_code, refused.json()["offered"]) == (422, ["INR", "USD"])
        assert [(await client.open(currency=currency)).status_code for currency in ("USD", "PTS")] == [201, 201]

    async def test_refuses_to_open_one_for_somebody_else(self, client: Client, other: Account) -> None:
        answer = await client.open(currency="USD", user_id=other.user.id)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/user_id")

    async def test_refuses_a_deactivated_user(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases, is_active=False)
        answer = await api.post(WALLETS, json={"currency": "USD"}, headers=bearer(user, settings))
        assert (answer.status_code, answer.json()["error"]) == (403, "account_deactivated")
        assert await databases.wallet["wallets"].count_documents({"user_id": user.id}) == 0


class TestReading:
    async def test_shows_what_is_available_and_what_is_held(self, client: Client, databases: Databases) -> None:
        await fund_wallet(databases, client.wallet, 10_000)
        await change(databases, withdrawal_of(client.wallet, 1_000))
        answer = await client.get(f"/{client.wallet.id}")
        assert answer.status_code == 200
        wallet = answer.json()
        assert (wallet["available"], wallet["held"], wallet["balance"], wallet["seq"]) == (9_000, 1_000, 10_000, 2)
        assert wallet == wallet_view(await current(client.wallet))
        assert WalletView(**wallet).model_dump() == wallet

    async def test_lists_the_newest_first(self, client: Client, databases: Databases) -> None:
        second = await make_wallet(databases, client.user, currency="USD")
        third = await make_wallet(databases, client.user, currency="JPY")
        answer = (await client.get()).json()
        assert [wallet["id"] for wallet in answer["data"]] == [third.id, second.id, client.wallet.id]
        assert (answer["has_more"], answer["next_cursor"]) == (False, None)
        assert PageView[WalletView](**answer).model_dump() == answer

    async def test_lists_page_by_page(self, client: Client, databases: Databases) -> None:
        for currency in ("USD", "JPY"):
            await make_wallet(databases, client.user, currency=currency)
        first = (await client.get(limit=2)).json()
        assert [wallet["currency"] for wallet in first["data"]] == ["JPY", "USD"]
        second = (await client.get(limit=2, cursor=first["next_cursor"])).json()
        assert [wallet["currency"] for wallet in second["data"]] == ["INR"]
        assert (second["has_more"], second["next_cursor"]) == (False, None)


class TestSomebodyElses:
    @pytest.mark.parametrize("rest", ["", "/transactions"])
    async def test_is_not_found_just_as_one_that_does_not_exist(
        self, client: Client, other: Account, rest: str
    ) -> None:
        theirs = await client.get(f"/{other.wallet.id}{rest}")
        none = await client.get(f"/wal_{'0' * 32}{rest}")
        assert (theirs.status_code, none.status_code) == (404, 404)
        said = [
            {name: value for name, value in answer.json().items() if name in ("type", "title", "error", "status")}
            for answer in (theirs, none)
        ]
        assert said[0] == said[1]
        assert "500" not in theirs.text

    async def test_is_not_listed(self, client: Client, other: Account) -> None:
        listed = (await client.get(limit=100)).json()["data"]
        assert other.wallet.id not in [wallet["id"] for wallet in listed]

    @pytest.mark.parametrize("path", ["", "/{id}", "/{id}/transactions"])
    async def test_needs_a_token_even_to_be_asked_for(self, api: httpx.AsyncClient, other: Account, path: str) -> None:
        answer = await api.get(WALLETS + path.format(id=other.wallet.id))
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")


class TestHistory:
    @pytest.fixture
    async def history(self, client: Client, databases: Databases) -> str:
        """A deposit of 100, then withdrawals of 10 and 20: the first declined, the second paid."""
        wallet = client.wallet
        await fund_wallet(databases, wallet, 100)
        declined = await change(databases, withdrawal_of(wallet, 10))
        paid = await change(databases, withdrawal_of(wallet, 20))
        await change(databases, failure_of(declined))
        await change(databases, settlement_of(paid))
        # Waits for the bank: not in the history.
        await change(databases, deposit_of(wallet, 7))
        return f"/{wallet.id}/transactions"

    async def test_tells_every_movement_newest_first(self, client: Client, history: str) -> None:
        answer = (await client.get(history)).json()
        told = [
            (row["seq"], row["type"], row["direction"], row["amount"], row["available_after"], row["held_after"])
            for row in answer["data"]
        ]
        assert told == [
            (5, "WITHDRAWAL_SETTLEMENT", "debit", 20, 80, 0),
            (4, "WITHDRAWAL_REFUND", "credit", 10, 80, 20),
            (3, "WITHDRAWAL", "debit", 20, 70, 30),
            (2, "WITHDRAWAL", "debit", 10, 90, 10),
            (1, "DEPOSIT", "credit", 100, 100, 0),
        ]
        assert PageView[EntryView](**answer).model_dump(mode="json") == answer

    async def test_each_entry_starts_where_the_one_before_ended(self, client: Client, history: str) -> None:
        rows = (await client.get(history)).json()["data"]
        for after, before in pairwise(rows):
            assert after["prev_hash"] == before["hash"]
            assert (after["available_before"], after["held_before"]) == (
                before["available_after"],
                before["held_after"],
            )
        assert rows[-1]["prev_hash"] == GENESIS_HASH

    async def test_page_by_page_it_is_the_same(self, client: Client, history: str) -> None:
        whole = (await client.get(history)).json()["data"]
        seen: list[Any] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await client.get(history, **query)).json()
            seen += page["data"]
            if not page["has_more"]:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == whole

    async def test_a_new_entry_does_not_shift_the_pages(
        self, client: Client, history: str, databases: Databases
    ) -> None:
        first = (await client.get(history, limit=2)).json()
        await fund_wallet(databases, client.wallet, 1)
        second = (await client.get(history, limit=2, cursor=first["next_cursor"])).json()
        assert [row["seq"] for row in first["data"] + second["data"]] == [5, 4, 3, 2]

    @pytest.mark.parametrize(
        ("types", "seqs"),
        [
            (["DEPOSIT"], [1]),
            (["WITHDRAWAL"], [3, 2]),
            (["WITHDRAWAL", "WITHDRAWAL_REFUND"], [4, 3, 2]),
            ([], [5, 4, 3, 2, 1]),
        ],
    )
    async def test_can_be_narrowed_to_types(
        self, client: Client, history: str, types: list[str], seqs: list[int]
    ) -> None:
        answer = await client.get(history, type=types)
        assert [row["seq"] for row in answer.json()["data"]] == seqs

    async def test_can_be_narrowed_to_a_time(self, client: Client, history: str) -> None:
        now = utc_now()
        soon, ago = to_rfc3339(now + timedelta(minutes=1)), to_rfc3339(now - timedelta(minutes=1))
        assert len((await client.get(history, created_from=ago, created_to=soon)).json()["data"]) == 5
        assert (await client.get(history, created_from=soon)).json()["data"] == []
        assert (await client.get(history, created_to=ago)).json()["data"] == []

    async def test_a_time_has_a_zone_of_its_own(self, client: Client, history: str) -> None:
        in_india = (utc_now() + timedelta(hours=5, minutes=31)).replace(tzinfo=None).isoformat() + "+05:30"
        assert (await client.get(history, created_from=in_india)).json()["data"] == []
        assert len((await client.get(history, created_to=in_india)).json()["data"]) == 5


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "pointer"),
        [
            ("limit=0", "/query/limit"),
            ("limit=101", "/query/limit"),
            ("limit=ten", "/query/limit"),
            ("limit=1e1", "/query/limit"),
            ("limit[$gt]=1", "/query/limit[$gt]"),
            ("type[$ne]=DEPOSIT", "/query/type[$ne]"),
            ("type=deposit", "/query/type/0"),
            ("type=DEPOSIT&type=X", "/query/type/1"),
            ("type=%00", "/query/type/0"),
            ("page=2", "/query/page"),
            ("currency=INR", "/query/currency"),
            ("created_from=yesterday", "/query/created_from"),
            ("created_from=1700000000", "/query/created_from"),
            ("created_from=2026-02-24", "/query/created_from"),
            ("created_from=2026-02-24T12:00:00", "/query/created_from"),
            ("created_from=0001-01-01T00:00:00%2B05:30", "/query/created_from"),
            ("created_to=9999-12-31T23:59:59-05:00", "/query/created_to"),
            ("cursor=" + "x" * 257, "/query/cursor"),
            ("$where=1", "/query/$where"),
        ],
    )
    async def test_refuse_what_they_do_not_know(self, client: Client, query: str, pointer: str) -> None:
        path = f"/{client.wallet.id}/transactions?{quote(query, safe='=&%')}"
        answer = await client.api.get(WALLETS + path, headers=client.headers)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")
        assert [field["pointer"] for field in answer.json()["errors"]] == [pointer]

    @pytest.mark.parametrize("wallet_id", ["x" * 65, "x" * 5000])
    async def test_an_id_has_a_length(self, client: Client, wallet_id: str) -> None:
        assert (await client.get(f"/{wallet_id}")).status_code == 422

    @pytest.mark.parametrize("wallet_id", ["%00", "%FF", "$gt", "%7B%22$gt%22%3A%22%22%7D", "..%2F", "wal_"])
    async def test_an_id_that_cannot_be_is_not_found(self, client: Client, wallet_id: str) -> None:
        answer = await client.api.get(f"{WALLETS}/{wallet_id}", headers=client.headers)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
