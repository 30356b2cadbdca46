"""Operations in review over HTTP: what is shown of them, who may decide, once, and what the bank says afterwards."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.reviews import AdministeredOperationView
from service.controllers.schemas import PageView
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.operations import BankCall, Operation
from service.domain.outbox import OutboxTopic, outbox_row
from service.ledger.orders import FlagForReview, NoteAttempt
from service.repositories import bank_callbacks as inbox
from service.repositories import outbox as outbox_repository
from service.settings import Settings
from tests.factories import (
    asking_of,
    change,
    change_of,
    current,
    deposit_of,
    make_account,
    make_wallet,
    run,
    settlement_of,
    withdrawal_of,
)
from tests.refusals import refusal
from tests.staff import Staff

# One minor unit above what an admin may decide alone by default.
_LARGE = 100_000_001
_WHY = {"failure_code": "bank_outcome_unknown", "failure_message": "The bank gave no outcome in 15 attempts"}


class Desk:
    """Two admins, and somebody whose withdrawals the bank says nothing about."""

    def __init__(self, boss: Staff, second: Staff, user: Staff, databases: Databases) -> None:
        self.boss, self.second, self.user, self.databases = boss, second, user, databases

    async def open(self, balance: int = 10_000) -> None:
        account = await make_account(self.databases, balance=balance)
        self.wallet = account.wallet

    async def reviewed(self, amount: int = 1_000, *, is_deposit: bool = False) -> Operation:
        order = deposit_of if is_deposit else withdrawal_of
        asked = await change(self.databases, order(self.wallet, amount))
        await change(self.databases, asking_of(asked))
        find = change_of(NoteAttempt, asked, call=BankCall.FIND, last_outcome="no answer from the bank in time")
        await change(self.databases, find)
        flag = change_of(FlagForReview, asked, **_WHY, last_outcome="503")
        (decided,) = await run(self.databases, flag, is_bank_asked=False)
        assert isinstance(decided.record, Operation)
        return decided.record

    async def decide(
        self, operation: Operation, what: str, who: Staff | None = None, key: str | None = None
    ) -> httpx.Response:
        who = who or self.boss
        return await who.post(f"/admin/reviews/{operation.id}/{what}", key, reason="The bank says so by telephone")

    async def balance(self) -> tuple[int, int]:
        wallet = await current(self.wallet)
        return wallet.available, wallet.held

    async def shown(self, operation: Operation) -> dict[str, Any]:
        answer = await self.boss.get(f"/admin/operations/{operation.id}")
        assert answer.status_code == 200, answer.text
        AdministeredOperationView.model_validate(answer.json())
        body: dict[str, Any] = answer.json()
        return body


@pytest.fixture
async def desk(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Desk:
    boss, second, user = [await Staff.hire(api, databases, settings, *roles) for roles in (["admin"], ["admin"], [])]
    desk = Desk(boss, second, user, databases)
    await desk.open()
    return desk


class TestWhatIsShown:
    async def test_why_each_call_and_the_last_word(self, desk: Desk) -> None:
        operation = await desk.reviewed()
        for amount in (7, 8):
            payload = {"type": "payment.settled", "reference": operation.id, "status": "success", "amount": amount}
            await inbox.insert_once(f"msg_{uuid4().hex}", payload, None, utc_now() + timedelta(seconds=amount))
        shown = await desk.shown(operation)
        assert (shown["status"], shown["failure_code"]) == ("requires_review", "bank_outcome_unknown")
        assert shown["attempts"] == 1
        assert [(one["call"], one["outcome"]) for one in shown["attempt_log"]] == [
            ("submit", "no answer from the bank in time"),
            ("find", "503"),
        ]
        assert shown["last_word"]["said"]["amount"] == 8
        assert shown["last_word"]["result"] is None
        assert shown["destination"] == "•••• 0001"

    async def test_all_that_wait_oldest_first_page_by_page(self, desk: Desk) -> None:
        waiting = [await desk.reviewed(100, is_deposit=bool(number % 2)) for number in range(4)]
        ended = await desk.reviewed(100)
        await change(desk.databases, settlement_of(ended))
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await desk.boss.get("/admin/reviews", limit="3", **cursor)
            PageView[AdministeredOperationView].model_validate(page.json())
            seen += [one["id"] for one in page.json()["data"]]
            if not page.json()["has_more"]:
                break
            cursor = {"cursor": page.json()["next_cursor"]}
        assert [one for one in seen if one in {w.id for w in waiting}] == [one.id for one in waiting]
        assert ended.id not in seen
        assert len(seen) == len(set(seen))

    async def test_only_to_admins(self, desk: Desk) -> None:
        operation = await desk.reviewed()
        for path in ("/admin/reviews", f"/admin/operations/{operation.id}"):
            assert (await desk.user.get(path)).status_code == 403
        assert (await desk.decide(operation, "settle", desk.user)).status_code == 403
        assert (await desk.boss.get("/admin/operations/wdr_none")).status_code == 404


class TestDeciding:
    @pytest.mark.parametrize(
        ("what", "status", "available"), [("settle", "success", 9_000), ("fail", "failed", 10_000)]
    )
    async def test_a_withdrawal_ends_as_the_admin_says_and_is_accounted_for(
        self, desk: Desk, what: str, status: str, available: int
    ) -> None:
        operation = await desk.reviewed()
        answer = await desk.decide(operation, what)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == status
        assert await desk.balance() == (available, 0)
        (event,) = await desk.boss.events(subject_id=operation.id)
        assert (event["action"], event["actor_id"]) == (
            f"review.{'settled' if what == 'settle' else 'failed'}",
            desk.boss.user.id,
        )
        assert event["reason"] == "The bank says so by telephone"

    async def test_once_settled_makes_a_return_that_waits_for_that_due(self, desk: Desk) -> None:
        operation, later = await desk.reviewed(), utc_now() + timedelta(hours=1)
        callback_id, payload = f"msg_{uuid4().hex}", {"type": "payment.returned", "reference": operation.id}
        await inbox.insert_once(callback_id, payload, None, later)
        assert (await desk.decide(operation, "settle")).status_code == 200
        waiting = await desk.databases.wallet["bank_callbacks"].find_one({"_id": callback_id})
        assert waiting is not None
        assert waiting["due_at"] < later

    @pytest.mark.parametrize(("what", "available"), [("settle", 11_000), ("fail", 10_000)])
    async def test_so_does_a_deposit(self, desk: Desk, what: str, available: int) -> None:
        operation = await desk.reviewed(is_deposit=True)
        assert (await desk.decide(operation, what)).status_code == 200
        assert await desk.balance() == (available, 0)

    async def test_the_same_key_gives_the_same_answer(self, desk: Desk) -> None:
        operation = await desk.reviewed()
        first, again = [await desk.decide(operation, "fail", key="once") for _ in range(2)]
        assert (first.content, first.status_code) == (again.content, again.status_code)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert await desk.balance() == (10_000, 0)

    async def test_only_what_is_in_review_and_only_once(self, desk: Desk) -> None:
        operation = await desk.reviewed()
        await desk.decide(operation, "fail")
        for what in ("settle", "fail", "ask-again"):
            assert refusal(await desk.decide(operation, what)) == (409, "illegal_transition")
        pending = await change(desk.databases, withdrawal_of(desk.wallet, 10))
        assert refusal(await desk.decide(pending, "settle")) == (409, "illegal_transition")

    async def test_never_about_ones_own_money(self, desk: Desk) -> None:
        desk.wallet = await make_wallet(desk.databases, desk.boss.user)
        operation = await desk.reviewed(500, is_deposit=True)
        for what in ("settle", "fail", "ask-again"):
            assert refusal(await desk.decide(operation, what)) == (403, "second_admin_required")
        assert (await desk.decide(operation, "ask-again", desk.second)).status_code == 202
        other = await desk.reviewed(400, is_deposit=True)
        assert (await desk.decide(other, "settle", desk.second)).status_code == 200

    async def test_a_late_word_of_the_bank_loses_against_a_person_and_a_person_against_it(self, desk: Desk) -> None:
        for _ in range(5):
            operation = await desk.reviewed(100)
            before = await desk.balance()
            decided, (said,) = await asyncio.gather(
                desk.decide(operation, "fail"), run(desk.databases, settlement_of(operation), is_bank_asked=False)
            )
            status = (await desk.shown(operation))["status"]
            has_bank_won = said.error is None
            assert (decided.status_code, status) == ((409, "success") if has_bank_won else (200, "failed"))
            available, held = before
            assert await desk.balance() == (available + (0 if has_bank_won else 100), held - 100)


class TestFourEyes:
    async def test_a_large_one_takes_two_admins_who_say_the_same(self, desk: Desk) -> None:
        await desk.open(balance=2 * _LARGE)
        operation = await desk.reviewed(_LARGE)
        proposed = await desk.decide(operation, "settle")
        assert proposed.status_code == 202
        assert proposed.json()["proposal"]["verdict"] == "settle"
        assert (await desk.shown(operation))["proposal"]["by"] == desk.boss.user.id
        assert await desk.balance() == (_LARGE, _LARGE)
        assert refusal(await desk.decide(operation, "settle")) == (403, "second_admin_required")
        assert (await desk.decide(operation, "settle", desk.second)).status_code == 200
        assert await desk.balance() == (_LARGE, 0)
        actions = [event["action"] for event in await desk.boss.events(subject_id=operation.id)]
        assert actions == ["review.settled", "review.proposed"]

    async def test_one_who_says_otherwise_proposes_that_instead(self, desk: Desk) -> None:
        await desk.open(balance=_LARGE)
        operation = await desk.reviewed(_LARGE)
        await desk.decide(operation, "settle")
        assert (await desk.decide(operation, "fail", desk.second)).status_code == 202
        assert (await desk.shown(operation))["proposal"]["verdict"] == "fail"
        assert (await desk.decide(operation, "fail")).status_code == 200
        assert await desk.balance() == (_LARGE, 0)


class TestAskingAgain:
    async def test_puts_it_back_on_its_way_to_the_bank(self, desk: Desk) -> None:
        operation = await desk.reviewed()
        answer = await desk.decide(operation, "ask-again")
        assert (answer.status_code, answer.json()["status"]) == (202, "processing")
        row = await desk.databases.wallet["outbox"].find_one({"subject_id": operation.id})
        assert row is not None
        assert (row["topic"], row["attempts"], row["visits"]) == ("bank_order", 0, 0)
        assert row["due_at"] <= utc_now()
        assert await desk.balance() == (9_000, 1_000)
        await change(desk.databases, settlement_of(operation))
        assert await desk.databases.wallet["outbox"].find_one({"_id": f"bank_order:{operation.id}"}) is None

    async def test_takes_the_place_of_a_row_that_a_replayed_dead_letter_brought_back(self, desk: Desk) -> None:
        operation = await desk.reviewed()
        row = outbox_row(OutboxTopic.BANK_ORDER, operation.id, None, utc_now())._replace(visits=3)
        await outbox_repository.insert_many([row], session=None)
        answer = await desk.decide(operation, "ask-again")
        assert (answer.status_code, answer.json()["status"]) == (202, "processing")
        anew = await desk.databases.wallet["outbox"].find_one({"_id": row.id})
        assert anew is not None
        assert anew["visits"] == 0
