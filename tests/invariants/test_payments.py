"""Payments at once, over HTTP, through two processes of the API and a worker: the sum stays, and each has one end."""

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import uuid4

import httpx

from scripts.ledger_rules import Chain
from service.database import Databases
from tests.person import Person
from tests.stack_fixtures import STEP_UP_ABOVE


async def people(http: httpx.AsyncClient, *balances: int) -> list[Person]:
    found = [await Person.register(http) for _ in balances]
    await asyncio.gather(*(person.fund(balance) for person, balance in zip(found, balances, strict=True)))
    return found


async def assert_sound(databases: Databases, *persons: Person) -> None:
    """Every entry follows from the one before, and the wallet is where the last one leaves it."""
    for person in persons:
        wallet = await databases.wallet["wallets"].find_one({"_id": person.wallet_id})
        assert wallet is not None
        chain = Chain(person.wallet_id)
        async for entry in databases.wallet["transaction_logs"].find({"wallet_id": person.wallet_id}).sort("seq"):
            assert list(chain.follow(entry)) == []
        last = (chain.seq, chain.head_hash, chain.available, chain.held)
        assert (wallet["seq"], wallet["head_hash"], wallet["available"], wallet["held"]) == last


async def assert_equal_sides(databases: Databases, *persons: Person) -> None:
    """Every transfer has taken from one wallet what it has given the other, under one transaction id, once."""
    rows = databases.wallet["transfers"].find({"user_id": {"$in": [person.user_id for person in persons]}})
    async for transfer in rows:
        entries = await databases.wallet["transaction_logs"].find({"reference": transfer["_id"]}).to_list()
        moved = Counter((one["wallet_id"], one["type"], one["amount"], one["transaction_id"]) for one in entries)
        sides = {"TRANSFER_OUT": transfer["wallet_id"], "TRANSFER_IN": transfer["to_wallet_id"]}
        rest = (transfer["amount"], transfer["transaction_id"])
        assert moved == Counter((wallet_id, side, *rest) for side, wallet_id in sides.items())


class TestBothWays:
    async def test_500_each_way_at_once_keep_the_sum(
        self, payment_http: httpx.AsyncClient, payment_databases: Databases
    ) -> None:
        """From little, so that many are refused; 64 connections, so that 64 run at once."""
        ada, bo = await people(payment_http, 40, 40)
        orders = [(ada, bo), (bo, ada)] * 500
        amounts = random.Random(7)  # noqa: S311 no secret
        answers = await asyncio.gather(*(one.transfer(amounts.randint(1, 30), other) for one, other in orders))
        told = Counter(answer.status_code for answer in answers)
        assert set(told) <= {201, 422}
        assert told[201] > 0
        assert {answer.json()["error"] for answer in answers if answer.status_code == 422} <= {"insufficient_funds"}
        wallets = [await ada.wallet(), await bo.wallet()]
        assert sum(wallet["available"] for wallet in wallets) == 80
        assert [wallet["held"] for wallet in wallets] == [0, 0]
        made = {"user_id": {"$in": [ada.user_id, bo.user_id]}}
        assert await payment_databases.wallet["transfers"].count_documents(made) == told[201]
        await assert_sound(payment_databases, ada, bo)
        await assert_equal_sides(payment_databases, ada, bo)

    async def test_in_a_circle_of_five_with_batches_among_them_keep_the_sum(
        self, payment_http: httpx.AsyncClient, payment_databases: Databases
    ) -> None:
        circle = await people(payment_http, *[100] * 5)

        def batch_of(person: Person, mode: str) -> dict[str, Any]:
            others = [other for other in circle if other is not person]
            return {
                "mode": mode,
                "transfers": [
                    {
                        "from_wallet_id": person.wallet_id,
                        "to_wallet_id": other.wallet_id,
                        "amount": 9,
                        "currency": "INR",
                    }
                    for other in others
                ],
            }

        answers = await asyncio.gather(
            *(
                answer
                for n, person in enumerate(circle * 8)
                for answer in (
                    person.transfer(7, circle[(n + 1) % 5]),
                    person.post("/transfers/batch", **batch_of(person, ("all_or_nothing", "best_effort")[n % 2])),
                )
            )
        )
        assert {answer.status_code for answer in answers} <= {201, 422}
        assert sum([(await person.wallet())["available"] for person in circle]) == 500
        await assert_sound(payment_databases, *circle)
        await assert_equal_sides(payment_databases, *circle)


class TestOneWallet:
    async def test_300_transfers_at_once_from_a_wallet_with_100_take_exactly_100(
        self, payment_http: httpx.AsyncClient, payment_databases: Databases
    ) -> None:
        ada, bo, cy = await people(payment_http, 100, 1, 1)
        answers = await asyncio.gather(*(ada.transfer(1, (bo, cy)[n % 2]) for n in range(300)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(201), statuses.count(422)) == (100, 200)
        assert (await ada.wallet())["balance"] == 0
        assert (await bo.wallet())["balance"] + (await cy.wallet())["balance"] == 102
        await assert_sound(payment_databases, ada, bo, cy)

    async def test_transfers_withdrawals_and_payments_that_wait_share_what_there_is(
        self, payment_http: httpx.AsyncClient, payment_databases: Databases
    ) -> None:
        large = STEP_UP_ABOVE + 1
        ada, bo = await people(payment_http, 10 * large, 1)
        answers = await asyncio.gather(
            *(ada.transfer(large, bo) for _ in range(8)),
            *(ada.withdraw(large) for _ in range(8)),
            *(ada.transfer(STEP_UP_ABOVE, bo) for _ in range(8)),
        )
        accepted = [answer.json() for answer in answers if answer.is_success]
        assert {answer.json()["error"] for answer in answers if answer.is_error} == {"insufficient_funds"}
        taken = sum(payment["amount"] for payment in accepted)
        wallet = await ada.wallet()
        assert wallet["available"] == 10 * large - taken
        assert wallet["held"] == sum(one["amount"] for one in accepted if one["status"] == "requires_approval")
        waiting = [payment for payment in accepted if payment["status"] == "requires_approval"]
        canceled = await asyncio.gather(*(ada.cancel(payment) for payment in waiting for _ in range(2)))
        statuses = Counter(answer.status_code for answer in canceled)
        assert statuses == {200: len(waiting), 409: len(waiting)}
        assert (await ada.wallet())["held"] == 0
        await assert_sound(payment_databases, ada, bo)


class TestOneKey:
    async def test_50_parallel_requests_with_one_key_make_one_transfer(
        self, payment_http: httpx.AsyncClient, payment_databases: Databases
    ) -> None:
        ada, bo = await people(payment_http, 1_000, 1)
        key = uuid4().hex
        answers = await asyncio.gather(*(ada.transfer(100, bo, key) for _ in range(50)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        made = {answer.content for answer in answers if answer.status_code == 201}
        assert len(made) == 1
        in_flight = {answer.json()["error"] for answer in answers if answer.status_code == 409}
        assert in_flight <= {"idempotency_key_in_flight"}
        assert (await ada.transfer(100, bo, key)).content in made
        assert ((await ada.wallet())["balance"], (await bo.wallet())["balance"]) == (900, 101)
        assert await payment_databases.wallet["transfers"].count_documents({"user_id": ada.user_id}) == 1


class TestOneEnd:
    async def test_a_withdrawal_canceled_while_a_worker_takes_it_is_paid_or_given_back_never_both(
        self, payment_http: httpx.AsyncClient, payment_databases: Databases
    ) -> None:
        (ada,) = await people(payment_http, 1_000)

        async def withdraw_and_cancel(n: int) -> tuple[str, bool]:
            asked = (await ada.withdraw(10)).json()
            # Some at once, some when a worker may be at it.
            await asyncio.sleep(0.002 * n)
            canceled = await ada.cancel(asked)
            assert canceled.status_code in (200, 409), canceled.text
            return asked["id"], canceled.is_success

        ends = await asyncio.gather(*(withdraw_and_cancel(n) for n in range(60)))
        ended = [await ada.ended({"type": "withdrawal", "id": withdrawal_id}) for withdrawal_id, _ in ends]
        for (withdrawal_id, is_canceled), withdrawal in zip(ends, ended, strict=True):
            assert withdrawal["status"] == ("canceled" if is_canceled else "success")
            order = await payment_databases.bank["orders"].find_one({"_id": withdrawal_id})
            assert (order is None) == is_canceled
            rows = await payment_databases.wallet["transaction_logs"].find({"reference": withdrawal_id}).to_list()
            second = "WITHDRAWAL_REFUND" if is_canceled else "WITHDRAWAL_SETTLEMENT"
            assert sorted(row["type"] for row in rows) == sorted(["WITHDRAWAL", second])
        paid = sum(not is_canceled for _, is_canceled in ends)
        wallet = await ada.wallet()
        assert (wallet["available"], wallet["held"]) == (1_000 - 10 * paid, 0)
        await assert_sound(payment_databases, ada)
