"""Payments that wait for a code, the whole way: the worker's mail, its code, the bank, and time that runs out."""

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.service_stack import Stack
from service.database import Databases
from service.domain.clock import utc_now
from tests.person import Person
from tests.stack_fixtures import STEP_UP_ABOVE

_LARGE = STEP_UP_ABOVE + 1
_WAIT_LIMIT_S = 20.0
_POLL_S = 0.05


def mails_about(stack: Stack, payment: dict[str, Any]) -> list[dict[str, str]]:
    path = Path(stack.settings["WALLET_DATA_DIR"]) / "mailbox.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [mail for mail in map(json.loads, lines) if mail["id"].startswith(payment["id"])]


async def mailed_code(stack: Stack, payment: dict[str, Any]) -> str:
    """What the worker has sent, once it has."""
    deadline = time.monotonic() + _WAIT_LIMIT_S
    while not (mails := mails_about(stack, payment)):
        assert time.monotonic() < deadline, "no mail came"
        await asyncio.sleep(_POLL_S)
    return mails[0]["text"].splitlines()[0].removeprefix("Your code is ")


async def until(person: Person, payment: dict[str, Any], status: str) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_LIMIT_S
    while True:
        seen: dict[str, Any] = (await person.get(f"/{payment['type']}s/{payment['id']}")).json()
        if seen["status"] == status:
            return seen
        assert time.monotonic() < deadline, f"still {seen['status']}"
        await asyncio.sleep(_POLL_S)


@pytest.fixture
async def ada(payment_http: httpx.AsyncClient) -> Person:
    person = await Person.register(payment_http)
    await person.fund(10_000)
    return person


@pytest.fixture
async def bo(payment_http: httpx.AsyncClient) -> Person:
    return await Person.register(payment_http)


class TestATransferWithACode:
    async def test_is_paid_once_the_mailed_code_has_come_back(
        self, ada: Person, bo: Person, payment_stack: Stack
    ) -> None:
        asked = await ada.transfer(_LARGE, bo)
        assert (asked.status_code, asked.json()["status"]) == (202, "requires_approval")
        code = await mailed_code(payment_stack, asked.json())
        assert (await bo.wallet())["balance"] == 0
        paid = await ada.confirm(asked.json(), code)
        assert (paid.status_code, paid.json()["status"]) == (200, "success")
        assert (await bo.wallet())["available"] == _LARGE
        wallet = await ada.wallet()
        assert (wallet["available"], wallet["held"]) == (10_000 - _LARGE, 0)
        assert len(mails_about(payment_stack, asked.json())) == 1

    async def test_is_given_back_by_the_worker_when_nobody_answers(
        self, ada: Person, bo: Person, payment_databases: Databases
    ) -> None:
        asked = (await ada.transfer(_LARGE, bo)).json()
        past = utc_now() - timedelta(seconds=1)
        wallet = payment_databases.wallet
        await wallet["transfers"].update_one({"_id": asked["id"]}, {"$set": {"challenge.expires_at": past}})
        await wallet["outbox"].update_one({"_id": f"expiry:{asked['id']}"}, {"$set": {"due_at": past}})
        lapsed = await until(ada, asked, "canceled")
        assert lapsed["failure_code"] == "approval_lapsed"
        assert (await ada.wallet())["available"] == 10_000
        assert (await bo.wallet())["seq"] == 0


class TestAWithdrawalWithACode:
    async def test_reaches_the_bank_only_once_the_mailed_code_has_come_back(
        self, ada: Person, payment_stack: Stack, payment_databases: Databases
    ) -> None:
        asked = (await ada.withdraw(_LARGE)).json()
        assert asked["status"] == "requires_approval"
        code = await mailed_code(payment_stack, asked)
        # A withdrawal that needs no code overtakes it, so the worker has been at the bank since.
        small = await ada.ended((await ada.withdraw(1)).json())
        assert small["status"] == "success"
        assert await payment_databases.bank["orders"].find_one({"_id": asked["id"]}) is None
        assert (await ada.confirm(asked, code)).json()["status"] == "pending"
        assert (await ada.ended(asked))["status"] == "success"
        wallet = await ada.wallet()
        assert (wallet["available"], wallet["held"]) == (10_000 - _LARGE - 1, 0)
        assert len(mails_about(payment_stack, asked)) == 1

    async def test_that_the_bank_declines_after_the_code_comes_back(self, ada: Person, payment_stack: Stack) -> None:
        asked = (await ada.withdraw(_LARGE, destination="bank-account-decline")).json()
        await ada.confirm(asked, await mailed_code(payment_stack, asked))
        assert (await until(ada, asked, "failed"))["failure_code"] == "declined"
        assert (await ada.wallet())["available"] == 10_000

    async def test_canceled_before_the_code_never_reaches_the_bank(
        self, ada: Person, payment_stack: Stack, payment_databases: Databases
    ) -> None:
        asked = (await ada.withdraw(_LARGE)).json()
        code = await mailed_code(payment_stack, asked)
        assert (await ada.cancel(asked)).json()["status"] == "canceled"
        late = await ada.confirm(asked, code)
        assert (late.status_code, late.json()["error"]) == (409, "illegal_transition")
        assert (await ada.wallet())["available"] == 10_000
        assert await payment_databases.bank["orders"].find_one({"_id": asked["id"]}) is None
