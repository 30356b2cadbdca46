"""Points and vouchers over real HTTP: earned by a deposit that the worker settles, fought for by many at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from scripts.check_ledger import check_ledger
from scripts.service_stack import Stack
from service.database import Databases, bind_documents
from service.settings import Settings
from tests.factories import bearer, make_savers, make_voucher
from tests.person import Person

_REDEEMERS = 200
_COST = 100
_WAIT_ROUNDS = 200


@pytest.fixture
async def stack_documents(stack_databases: Databases, databases: Databases) -> AsyncIterator[Databases]:
    """Factories make what they make in the stack's database meanwhile."""
    await bind_documents(stack_databases)
    yield stack_databases
    await bind_documents(databases)


async def _wallet_for_points(person: Person) -> dict[str, Any]:
    """Once the worker has credited something."""
    for _ in range(_WAIT_ROUNDS):
        wallets: list[dict[str, Any]] = (await person.get("/wallets")).json()["data"]
        for wallet in wallets:
            if wallet["currency"] == "PTS" and wallet["balance"]:
                return wallet
        await asyncio.sleep(0.05)
    raise AssertionError("no points came")


class TestEarningAndSpending:
    async def test_a_deposit_earns_points_and_they_buy_a_voucher(
        self, http: httpx.AsyncClient, stack_documents: Databases
    ) -> None:
        voucher = await make_voucher(stack_documents, cost=7, stock=1)
        person = await Person.register(http)
        order: dict[str, Any] = {
            "amount": 123_456,
            "currency": "INR",
            "source": "bank-account-success",
            "category": "saving",
        }
        assert (await person.post("/deposits", **order)).status_code == 202
        wallet = await _wallet_for_points(person)
        assert wallet["available"] == 12
        (reward,) = (await person.get("/rewards")).json()["data"]
        assert (reward["points"], reward["rules"]) == (12, {"deposits": 12})
        redeemed = await person.post(f"/vouchers/{voucher.id}/redeem")
        assert redeemed.status_code == 201, redeemed.text
        assert redeemed.json()["balance"]["available"] == 5
        entries = (await person.get(f"/wallets/{wallet['id']}/transactions")).json()["data"]
        assert [(entry["type"], entry["amount"]) for entry in entries] == [("VOUCHER", 7), ("POINTS_EARNED", 12)]


class TestTheLastVoucher:
    async def test_goes_to_exactly_one_of_200_who_want_it_at_once(
        self, http: httpx.AsyncClient, stack: Stack, stack_documents: Databases
    ) -> None:
        voucher = await make_voucher(stack_documents, cost=_COST, stock=1)
        savers = await make_savers(stack_documents, _REDEEMERS, _COST, are_gifts=True)
        settings = Settings(jwt_secret=SecretStr(stack.settings["WALLET_JWT_SECRET"]), _env_file=None)
        path = f"/api/v1/vouchers/{voucher.id}/redeem"
        headers = [bearer(saver.user, settings) | {"Idempotency-Key": uuid4().hex} for saver in savers]
        answers = await asyncio.gather(*(http.post(path, headers=own) for own in headers))
        outcomes = Counter(answer.json().get("error", answer.status_code) for answer in answers)
        assert outcomes == {201: 1, "voucher_sold_out": _REDEEMERS - 1}
        again = await asyncio.gather(*(http.post(path, headers=own) for own in headers))
        assert [answer.content for answer in again] == [answer.content for answer in answers]
        ids = [saver.wallet.id for saver in savers]
        wallets = await stack_documents.wallet["wallets"].find({"_id": {"$in": ids}}).to_list()
        assert Counter(wallet["available"] for wallet in wallets) == {0: 1, _COST: _REDEEMERS - 1}
        about = (voucher.id, "rdm_", "rwd_", *ids)
        assert [one for one in await check_ledger(stack_documents) if one.subject.startswith(about)] == []
        (code,) = [answer.json()["code"] for answer in answers if answer.status_code == httpx.codes.CREATED]
        log = stack.log_path("api").read_text() + stack.log_path("worker").read_text()
        assert "voucher.redeemed" in log
        assert code not in log
