"""Conversions over HTTP: from the question to the answer, under one key and under many."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.conversions import ConversionReceipt, ConversionView
from service.database import Databases
from service.domain.clock import utc_now
from service.settings import Settings
from tests.factories import Account, bearer, current, fund_wallet, make_account, make_quote, make_wallet

CONVERSIONS = "/api/v1/conversions"
_RACES = 20


class Client:
    """The API with the token of somebody who has 1,000.00 USD and an empty wallet in KWD."""

    def __init__(self, api: httpx.AsyncClient, account: Account, settings: Settings) -> None:
        self.api, self.account, self.headers = api, account, bearer(account.user, settings)

    async def quote(self, amount: int = 10_000, from_currency: str = "USD", to_currency: str = "KWD") -> dict[str, Any]:
        body = {"from_currency": from_currency, "to_currency": to_currency, "amount": amount}
        answer = await self.api.post("/api/v1/quotes", json=body, headers=self.headers)
        assert answer.status_code == 201, answer.text
        quote: dict[str, Any] = answer.json()
        return quote

    async def convert(self, quote_id: str, key: str | None = None, /, **body: Any) -> httpx.Response:
        headers = {**self.headers, "Idempotency-Key": key or uuid4().hex}
        return await self.api.post(CONVERSIONS, json={"quote_id": quote_id} | body, headers=headers)

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.api.get(f"/api/v1{path}", params=query, headers=self.headers)


@pytest.fixture
async def client(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Client:
    account = await make_account(databases, balance=100_000, currency="USD")
    await make_wallet(databases, account.user, currency="KWD")
    return Client(api, account, settings)


class TestConverting:
    async def test_does_what_the_quote_said_and_shows_both_wallets(self, client: Client) -> None:
        quote = await client.quote()
        answer = await client.convert(quote["id"], category="travel", description="Kuwait", metadata={"trip": "1"})
        assert answer.status_code == 201, answer.text
        ConversionReceipt.model_validate_json(answer.content, strict=False)
        body = answer.json()
        assert (body["amount"], body["currency"]) == (10_000, "USD")
        assert (body["to_amount"], body["to_currency"]) == (quote["to_amount"], "KWD") == (30_615, "KWD")
        assert (body["status"], body["quote_id"], body["rate"]) == ("success", quote["id"], quote["rate"])
        assert (body["category"], body["description"], body["metadata"]) == ("travel", "Kuwait", {"trip": "1"})
        assert (body["from_wallet"]["available"], body["to_wallet"]["available"]) == (90_000, 30_615)
        used = (await client.get(f"/quotes/{quote['id']}")).json()
        assert (used["status"], used["conversion_id"]) == ("used", body["id"])

    async def test_there_and_back_leaves_less(self, client: Client) -> None:
        there = (await client.convert((await client.quote(100_000))["id"])).json()
        back = await client.quote(there["to_amount"], "KWD", "USD")
        assert (await client.convert(back["id"])).status_code == 201
        assert (await current(client.account.wallet)).available == 99_002
        assert (await client.get("/wallets")).json()["data"][0]["balance"] == 0

    async def test_shows_in_the_history_of_both_wallets(self, client: Client) -> None:
        body = (await client.convert((await client.quote())["id"])).json()
        types = []
        for wallet_id in (body["from_wallet_id"], body["to_wallet_id"]):
            newest = (await client.get(f"/wallets/{wallet_id}/transactions")).json()["data"][0]
            assert (newest["transaction_id"], newest["counterparty"]) == (body["transaction_id"], "house:fx")
            types.append((newest["type"], newest["direction"], newest["amount"], newest["currency"]))
        assert types == [("CONVERSION_OUT", "debit", 10_000, "USD"), ("CONVERSION_IN", "credit", 30_615, "KWD")]

    async def test_the_same_key_gets_the_same_answer_and_moves_nothing_again(self, client: Client) -> None:
        quote = await client.quote()
        key = uuid4().hex
        first = await client.convert(quote["id"], key)
        again = await client.convert(quote["id"], key)
        assert (again.status_code, again.content) == (first.status_code, first.content) == (201, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert (await current(client.account.wallet)).available == 90_000

    async def test_a_refusal_is_kept_under_its_key_too(self, client: Client) -> None:
        key = uuid4().hex
        first = await client.convert("quo_0198c0ffee0070008000000000000001", key)
        again = await client.convert("quo_0198c0ffee0070008000000000000001", key)
        assert (first.status_code, first.json()["error"]) == (404, "not_found")
        assert again.content == first.content
        other = await client.convert((await client.quote())["id"], key)
        assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")

    async def test_of_many_at_once_one_takes_the_quote(self, client: Client) -> None:
        for _ in range(_RACES):
            quote = await client.quote(1_000)
            before = (await current(client.account.wallet)).available
            answers = await asyncio.gather(*(client.convert(quote["id"]) for _ in range(8)))
            assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
            refused = {answer.json()["error"] for answer in answers if answer.status_code == 409}
            assert refused == {"quote_used"}
            assert (await current(client.account.wallet)).available == before - 1_000

    async def test_refuses_an_expired_quote(self, client: Client, databases: Databases) -> None:
        quote = await make_quote(
            databases, client.account.user, from_currency="USD", to_currency="KWD", expires_at=utc_now()
        )
        answer = await client.convert(quote.id)
        assert (answer.status_code, answer.json()["error"]) == (409, "quote_expired")

    async def test_refuses_somebody_elses_quote_as_if_there_were_none(
        self, client: Client, databases: Databases
    ) -> None:
        other = await make_account(databases, balance=100_000, currency="USD")
        await make_wallet(databases, other.user, currency="KWD")
        quote = await make_quote(databases, other.user, from_currency="USD", to_currency="KWD")
        answer = await client.convert(quote.id)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
        assert (await current(other.wallet)).available == 100_000

    async def test_needs_a_key(self, client: Client) -> None:
        quote = await client.quote()
        answer = await client.api.post(CONVERSIONS, json={"quote_id": quote["id"]}, headers=client.headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "idempotency_key_missing")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"quote_id": ""}, "/quote_id"),
            ({"quote_id": {"$gt": ""}}, "/quote_id"),
            ({"amount": 1}, "/amount"),
            ({"category": ""}, "/category"),
        ],
    )
    async def test_refuses_fields_that_make_no_sense(self, client: Client, body: dict[str, Any], pointer: str) -> None:
        answer = await client.convert("quo_1", **body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


class TestReading:
    async def test_shows_one_and_the_list_newest_first(self, client: Client, databases: Databases) -> None:
        await fund_wallet(databases, client.account.wallet, 10_000)
        ids = [(await client.convert((await client.quote())["id"])).json()["id"] for _ in range(3)]
        one = await client.get(f"/conversions/{ids[0]}")
        ConversionView.model_validate_json(one.content, strict=False)
        first = (await client.get("/conversions", limit=2, currency="USD")).json()
        second = (await client.get("/conversions", limit=2, currency="USD", cursor=first["next_cursor"])).json()
        assert [row["id"] for row in first["data"] + second["data"]] == ids[::-1]
        assert second["data"][0] == one.json()
        assert (await client.get("/conversions", currency="KWD")).json()["data"] == []

    async def test_shows_it_to_nobody_else(
        self, client: Client, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        made = (await client.convert((await client.quote())["id"])).json()
        other = Client(api, await make_account(databases), settings)
        assert (await other.get(f"/conversions/{made['id']}")).status_code == 404
        assert (await other.get("/conversions")).json()["data"] == []
