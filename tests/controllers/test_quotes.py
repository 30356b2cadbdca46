"""Quotes over HTTP: what they say, to whom, and what cannot be quoted."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from service.controllers.quotes import QuoteView
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.money import MAX_AMOUNT_MINOR
from service.settings import Settings
from tests.factories import Account, bearer, make_account, make_quote
from tests.servers import Admin

QUOTES = "/api/v1/quotes"


class Client:
    """The API with somebody's token; 100.00 USD for JPY unless they say otherwise."""

    def __init__(self, api: httpx.AsyncClient, account: Account, settings: Settings) -> None:
        self.api, self.account, self.headers = api, account, bearer(account.user, settings)

    async def ask(self, **body: Any) -> httpx.Response:
        wanted = {"from_currency": "USD", "to_currency": "JPY", "amount": 10_000}
        return await self.api.post(QUOTES, json=wanted | body, headers=self.headers)

    async def get(self, quote_id: str) -> httpx.Response:
        return await self.api.get(f"{QUOTES}/{quote_id}", headers=self.headers)


@pytest.fixture
async def client(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Client:
    return Client(api, await make_account(databases), settings)


class TestAsking:
    async def test_says_what_it_brings_at_which_rate_and_until_when(self, client: Client) -> None:
        answer = await client.ask()
        assert answer.status_code == 201, answer.text
        quote = answer.json()
        QuoteView.model_validate_json(answer.content, strict=False)
        assert quote["id"].startswith("quo_")
        assert quote | {"id": "", "created_at": "", "expires_at": "", "rate_as_of": ""} == {
            "id": "",
            "status": "open",
            "from_currency": "USD",
            "to_currency": "JPY",
            "amount": 10_000,
            "to_amount": 14_875,
            "rate": "149.5",
            "rate_source": "table",
            "rate_as_of": "",
            "margin_bp": 50,
            "conversion_id": None,
            "created_at": "",
            "expires_at": "",
        }
        assert (await client.get(quote["id"])).json() == quote

    async def test_holds_for_as_long_as_the_setting_says(self, client: Client, databases: Databases) -> None:
        quote = (await client.ask()).json()
        row = await databases.wallet["quotes"].find_one({"_id": quote["id"]})
        assert row is not None
        assert row["expires_at"] - row["created_at"] == timedelta(seconds=30)

    async def test_goes_through_the_base_of_the_table(self, client: Client) -> None:
        quote = (await client.ask(from_currency="JPY", to_currency="KWD")).json()
        assert (quote["to_amount"], quote["rate"]) == (20_478, "0.002058142526369951")

    async def test_moves_nothing_and_needs_no_wallet(self, client: Client, databases: Databases) -> None:
        assert (await client.ask(from_currency="GBP", to_currency="EUR")).status_code == 201
        assert await databases.wallet["wallets"].count_documents({"user_id": client.account.user.id}) == 1

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            ({"to_currency": "CHF"}, "rate_unavailable"),
            ({"from_currency": "CHF"}, "rate_unavailable"),
            ({"from_currency": "INR", "amount": 1}, "amount_too_small"),
            ({"from_currency": "USD", "to_currency": "INR", "amount": MAX_AMOUNT_MINOR}, "amount_too_large"),
        ],
    )
    async def test_refuses_what_it_cannot_tell_a_price_of(
        self, client: Client, body: dict[str, Any], error: str
    ) -> None:
        answer = await client.ask(**body)
        assert (answer.status_code, answer.json()["error"]) == (422, error)

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"to_currency": "USD"}, "/to_currency"),
            ({"to_currency": "PTS"}, "/to_currency"),
            ({"from_currency": "usd"}, "/from_currency"),
            ({"amount": 0}, "/amount"),
            ({"amount": 10.5}, "/amount"),
            ({"amount": "10"}, "/amount"),
            ({"amount": MAX_AMOUNT_MINOR + 1}, "/amount"),
            ({"to_amount": 10}, "/to_amount"),
            ({"user_id": "usr_1"}, "/user_id"),
        ],
    )
    async def test_refuses_fields_that_make_no_sense(self, client: Client, body: dict[str, Any], pointer: str) -> None:
        answer = await client.ask(**body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)

    async def test_refuses_somebody_without_a_token(self, api: httpx.AsyncClient) -> None:
        body = {"from_currency": "USD", "to_currency": "JPY", "amount": 10_000}
        assert (await api.post(QUOTES, json=body)).status_code == 401


class TestReading:
    async def test_shows_it_to_nobody_else(self, client: Client, databases: Databases) -> None:
        other = await make_account(databases)
        quote = await make_quote(databases, other.user)
        answer = await client.get(quote.id)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")

    async def test_shows_when_it_has_expired(self, client: Client, databases: Databases) -> None:
        quote = await make_quote(databases, client.account.user, expires_at=utc_now())
        assert (await client.get(quote.id)).json()["status"] == "expired"


class TestForgetting:
    def test_is_for_quotes_that_nobody_used(self, admin: Admin, settings: Settings) -> None:
        forgotten = admin[settings.database]["quotes"].index_information()["unused"]
        assert forgotten["partialFilterExpression"] == {"status": "open"}
        assert forgotten["expireAfterSeconds"] == 24 * 3600
