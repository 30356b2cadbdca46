"""Many at once, over real HTTP: no overdraft, no double debit, whatever the order."""

import asyncio
from uuid import uuid4

import httpx

from scripts.check_ledger import check_ledger
from service.database import Databases
from tests.person import Person


class TestOneWallet:
    async def test_1000_withdrawals_at_once_from_a_wallet_with_300_take_exactly_300(
        self, http: httpx.AsyncClient, stack_databases: Databases
    ) -> None:
        person = await Person.register(http)
        await person.fund(300)
        answers = await asyncio.gather(*(person.withdraw(1) for _ in range(1000)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(202), statuses.count(422)) == (300, 700)
        refused = [answer.json() for answer in answers if answer.status_code == 422]
        assert {problem["error"] for problem in refused} == {"insufficient_funds"}
        assert (await person.wallet())["available"] == 0
        assert await check_ledger(stack_databases) == []

    async def test_deposits_settling_while_withdrawals_run_lose_nothing(self, http: httpx.AsyncClient) -> None:
        person = await Person.register(http)
        await person.fund(1_000)
        deposits, withdrawals = await asyncio.gather(
            asyncio.gather(*(person.deposit(7) for _ in range(50))),
            asyncio.gather(*(person.withdraw(3) for _ in range(50))),
        )
        ended = await asyncio.gather(*(person.ended(answer.json()) for answer in (*deposits, *withdrawals)))
        assert {operation["status"] for operation in ended} == {"success"}
        wallet = await person.wallet()
        assert (wallet["available"], wallet["held"]) == (1_000 + 50 * 7 - 50 * 3, 0)


class TestOneKey:
    async def test_50_parallel_requests_with_one_key_make_one_withdrawal(
        self, http: httpx.AsyncClient, stack_databases: Databases
    ) -> None:
        person = await Person.register(http)
        await person.fund(1_000)
        key = uuid4().hex
        answers = await asyncio.gather(*(person.withdraw(100, key=key) for _ in range(50)))
        assert {answer.status_code for answer in answers} <= {202, 409}
        accepted = {answer.content for answer in answers if answer.status_code == 202}
        assert len(accepted) == 1
        in_flight = {answer.json()["error"] for answer in answers if answer.status_code == 409}
        assert in_flight <= {"idempotency_key_in_flight"}
        replay = await person.withdraw(100, key=key)
        assert replay.content in accepted
        assert replay.headers["Idempotent-Replayed"] == "true"
        wallet = await person.wallet()
        assert wallet["balance"] in (900, 1_000)  # the bank may have paid already
        assert wallet["available"] == 900
        assert await stack_databases.wallet["withdrawals"].count_documents({"user_id": person.user_id}) == 1


class TestIdempotency:
    """The four outcomes of a key: first, again, another request, still running."""

    async def test_the_first_request_is_not_marked_as_a_replay(self, http: httpx.AsyncClient) -> None:
        person = await Person.register(http)
        answer = await person.deposit(5, key=uuid4().hex)
        assert answer.status_code == 202
        assert "Idempotent-Replayed" not in answer.headers

    async def test_a_replay_is_the_same_to_the_byte_even_after_the_operation_has_ended(
        self, http: httpx.AsyncClient
    ) -> None:
        person = await Person.register(http)
        key = uuid4().hex
        first = await person.deposit(5, key=key)
        await person.ended(first.json())
        again = await person.deposit(5, key=key)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"

    async def test_another_request_under_the_key_is_refused(self, http: httpx.AsyncClient) -> None:
        person = await Person.register(http)
        key = uuid4().hex
        assert (await person.deposit(5, key=key)).status_code == 202
        for other in (await person.deposit(6, key=key), await person.withdraw(5, key=key)):
            assert other.status_code == 422
            assert other.json()["error"] == "idempotency_key_reused"

    async def test_a_refusal_sticks_even_when_the_money_is_there_by_then(self, http: httpx.AsyncClient) -> None:
        person = await Person.register(http)
        key = uuid4().hex
        refused = await person.withdraw(5, key=key)
        assert refused.status_code == 422
        await person.fund(100)
        again = await person.withdraw(5, key=key)
        assert (again.status_code, again.content) == (refused.status_code, refused.content)
        assert again.headers["content-type"] == "application/problem+json"
        assert (await person.withdraw(5)).status_code == 202

    async def test_two_people_may_use_the_same_key(self, http: httpx.AsyncClient) -> None:
        ada, bo = await Person.register(http), await Person.register(http)
        key = uuid4().hex
        answers = [await ada.deposit(5, key=key), await bo.deposit(5, key=key)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].json()["id"] != answers[1].json()["id"]
