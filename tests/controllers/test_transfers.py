"""Transfers over HTTP: who may pay whom, what each refusal says, and what nobody learns."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.database import Databases
from service.settings import Settings
from tests.factories import Account, bearer, current, make_account


class Sender:
    """An account with 10,000, and the ways to send from it."""

    def __init__(self, api: httpx.AsyncClient, account: Account, settings: Settings) -> None:
        self.api, self.account, self.headers = api, account, bearer(account.user, settings)

    async def send(self, key: str | None = None, **body: Any) -> httpx.Response:
        order = {"from_wallet_id": self.account.wallet.id, "amount": 1_000, "currency": "INR"}
        headers = {**self.headers, "Idempotency-Key": key or uuid4().hex}
        return await self.api.post("/api/v1/transfers", json=order | body, headers=headers)

    async def batch(self, mode: str, orders: list[dict[str, Any]]) -> httpx.Response:
        order = {"from_wallet_id": self.account.wallet.id, "amount": 1_000, "currency": "INR"}
        headers = {**self.headers, "Idempotency-Key": uuid4().hex}
        body = {"mode": mode, "transfers": [order | one for one in orders]}
        return await self.api.post("/api/v1/transfers/batch", json=body, headers=headers)


@pytest.fixture
async def sender(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Sender:
    return Sender(api, await make_account(databases, balance=10_000), settings)


class TestATransfer:
    async def test_moves_both_wallets_and_shows_the_sender_their_own(
        self, sender: Sender, databases: Databases
    ) -> None:
        recipient = await make_account(databases)
        answer = await sender.send(to_wallet_id=recipient.wallet.id)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        assert body["from_wallet"] == {
            "wallet_id": sender.account.wallet.id,
            "currency": "INR",
            "available": 9_000,
            "held": 0,
            "balance": 9_000,
        }
        assert "to_wallet" not in body
        assert (await current(recipient.wallet)).available == 1_000
        entries = await databases.wallet["transaction_logs"].find({"reference": body["id"]}).sort("type").to_list()
        assert [entry["type"] for entry in entries] == ["TRANSFER_IN", "TRANSFER_OUT"]
        assert {entry["transaction_id"] for entry in entries} == {body["transaction_id"]}

    async def test_reaches_a_person_by_their_address(self, sender: Sender, databases: Databases) -> None:
        recipient = await make_account(databases)
        answer = await sender.send(to_email=recipient.user.email.upper())
        assert answer.status_code == 201, answer.text
        assert answer.json()["to_wallet_id"] == recipient.wallet.id


class TestBatches:
    async def test_all_or_nothing_makes_none_where_one_is_refused(self, sender: Sender, databases: Databases) -> None:
        recipient = await make_account(databases)
        good = {"to_wallet_id": recipient.wallet.id}
        answer = await sender.batch("all_or_nothing", [good, good | {"amount": 9_001}])
        assert (answer.status_code, answer.json()["error"]) == (422, "transfer_batch_refused")
        assert (answer.json()["position"], answer.json()["cause"]) == (1, "insufficient_funds")
        assert (await current(recipient.wallet)).available == 0
        assert (await current(sender.account.wallet)).available == 10_000

    async def test_best_effort_tells_of_each(self, sender: Sender, databases: Databases) -> None:
        recipient = await make_account(databases)
        good = {"to_wallet_id": recipient.wallet.id}
        answer = await sender.batch("best_effort", [good, good | {"amount": 9_001}, good])
        assert answer.status_code == 201, answer.text
        results = answer.json()["results"]
        assert [result["status"] for result in results] == ["success", "refused", "success"]
        assert results[1]["error"]["error"] == "insufficient_funds"
        assert (await current(recipient.wallet)).available == 2_000
