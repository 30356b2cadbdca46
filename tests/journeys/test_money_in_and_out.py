"""The main job over real HTTP, with a real worker: money in, money out, and what the history says of it."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from scripts.check_ledger import check_ledger
from scripts.service_stack import Stack
from service.database import Databases
from tests.person import Person


class TestMoneyIn:
    async def test_a_deposit_is_pending_first_and_spendable_only_once_the_bank_has_collected_it(
        self, http: httpx.AsyncClient
    ) -> None:
        person = await Person.register(http)
        accepted = await person.deposit(10_000)
        assert accepted.status_code == 202
        operation = accepted.json()
        assert operation["status"] == "pending"
        assert operation["source"] == "•••• cess"
        assert (await person.wallet())["balance"] == 0
        ended = await person.ended(operation)
        assert ended["status"] == "success"
        assert ended["bank_reference"].startswith("bnk_")
        wallet = await person.wallet()
        assert (wallet["available"], wallet["held"], wallet["balance"]) == (10_000, 0, 10_000)

    async def test_a_declined_deposit_fails_and_changes_no_balance(self, http: httpx.AsyncClient) -> None:
        person = await Person.register(http)
        accepted = await person.deposit(10_000, source="bank-account-decline")
        ended = await person.ended(accepted.json())
        assert (ended["status"], ended["failure_code"]) == ("failed", "declined")
        wallet = await person.wallet()
        assert (wallet["balance"], wallet["seq"]) == (0, 0)


class TestMoneyOut:
    async def test_a_withdrawal_holds_the_money_and_then_pays_it_out(self, http: httpx.AsyncClient) -> None:
        person = await Person.register(http)
        await person.fund(10_000)
        accepted = await person.withdraw(4_000)
        assert accepted.status_code == 202
        ended = await person.ended(accepted.json())
        assert ended["status"] == "success"
        wallet = await person.wallet()
        assert (wallet["available"], wallet["held"]) == (6_000, 0)
        history = (await person.get(f"/wallets/{person.wallet_id}/transactions")).json()["data"]
        assert [(e["type"], e["direction"], e["amount"]) for e in history] == [
            ("WITHDRAWAL_SETTLEMENT", "debit", 4_000),
            ("WITHDRAWAL", "debit", 4_000),
            ("DEPOSIT", "credit", 10_000),
        ]
        assert {e["reference"] for e in history[:2]} == {ended["id"]}

    @pytest.mark.parametrize(
        ("destination", "failure_code"),
        [
            ("bank-account-decline", "declined"),
            ("bank-account-insufficient-funds", "insufficient_funds"),
            ("bank-account-invalid-account", "invalid_account"),
        ],
    )
    async def test_a_failed_withdrawal_gives_the_money_back_with_its_own_entry(
        self, http: httpx.AsyncClient, destination: str, failure_code: str
    ) -> None:
        person = await Person.register(http)
        await person.fund(10_000)
        accepted = await person.withdraw(4_000, destination=destination)
        ended = await person.ended(accepted.json())
        assert (ended["status"], ended["failure_code"]) == ("failed", failure_code)
        wallet = await person.wallet()
        assert (wallet["available"], wallet["held"]) == (10_000, 0)
        newest = (await person.get(f"/wallets/{person.wallet_id}/transactions?limit=1")).json()["data"][0]
        assert (newest["type"], newest["direction"], newest["amount"]) == ("WITHDRAWAL_REFUND", "credit", 4_000)

    async def test_an_answer_lost_after_the_bank_took_the_order_pays_once(
        self, http: httpx.AsyncClient, stack_databases: Databases
    ) -> None:
        person = await Person.register(http)
        await person.fund(10_000)
        accepted = await person.withdraw(4_000, destination="bank-account-timeout-after")
        ended = await person.ended(accepted.json())
        assert ended["status"] == "success"
        order = await stack_databases.bank["orders"].find_one({"_id": ended["id"]})
        assert order is not None
        assert len(order["payments"]) == 1

    @pytest.mark.parametrize("destination", ["bank-account-unavailable", "bank-account-timeout"])
    async def test_a_bank_that_never_answers_leaves_the_money_held_for_a_person_to_look(
        self, http: httpx.AsyncClient, destination: str
    ) -> None:
        person = await Person.register(http)
        await person.fund(10_000)
        accepted = await person.withdraw(4_000, destination=destination)
        ended = await person.ended(accepted.json())
        assert (ended["status"], ended["failure_code"]) == ("requires_review", "bank_outcome_unknown")
        wallet = await person.wallet()
        assert (wallet["available"], wallet["held"]) == (6_000, 4_000)


class TestTheBooks:
    async def test_they_balance_after_many_people_did_many_things(
        self, http: httpx.AsyncClient, stack_databases: Databases
    ) -> None:
        people = [await Person.register(http) for _ in range(5)]
        await asyncio.gather(*(person.fund(1_000) for person in people))
        endings = ("success", "decline", "insufficient-funds", "timeout-after", "invalid-account")
        accepted = await asyncio.gather(
            *(
                person.withdraw(50, destination=f"bank-account-{ending}", key=uuid4().hex)
                for person in people
                for ending in endings
            )
        )
        assert {response.status_code for response in accepted} == {202}
        owners = [person for person in people for _ in endings]
        ended = await asyncio.gather(
            *(person.ended(response.json()) for person, response in zip(owners, accepted, strict=True))
        )
        assert sorted({operation["status"] for operation in ended}) == ["failed", "success"]
        assert await check_ledger(stack_databases) == []


class TestOneRequestInTheLogs:
    async def test_its_id_stands_on_the_lines_of_api_and_worker_and_no_secret_does(
        self, http: httpx.AsyncClient, stack: Stack
    ) -> None:
        person = await Person.register(http)
        request_id = uuid4().hex
        response = await http.post(
            "/api/v1/deposits",
            json={"amount": 5, "currency": "INR", "source": "canary-account-77-success"},
            headers={**person.headers, "Idempotency-Key": "canary-key", "X-Request-ID": request_id},
        )
        assert response.headers["X-Request-ID"] == request_id
        await person.ended(response.json())
        api_log, worker_log = (stack.log_path(name).read_text() for name in ("api", "worker"))
        assert any(request_id in line and "deposit.accepted" in line for line in api_log.splitlines())
        assert any(request_id in line and "bank.order_submitted" in line for line in worker_log.splitlines())
        token = person.headers["Authorization"].removeprefix("Bearer ")
        for secret in (token, "plum-kettle-orbit-92", "canary-account-77", stack.settings["WALLET_JWT_SECRET"]):
            assert secret not in api_log + worker_log
