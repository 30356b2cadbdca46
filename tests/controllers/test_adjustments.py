"""Adjustments over HTTP: who may, what moves, what each refusal says, and four eyes above a set amount."""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.adjustments import AdjustmentView
from service.controllers.schemas import PageView
from service.database import Databases
from service.settings import Settings
from tests.factories import Account, current, fund_wallet, make_account, make_wallet
from tests.refusals import refusal
from tests.staff import Staff

# One minor unit above what an admin may adjust alone by default.
_LARGE = 100_000_001


class Desk:
    """Two admins, a service, and the wallet that they adjust."""

    def __init__(self, boss: Staff, second: Staff, robot: Staff, account: Account) -> None:
        self.boss, self.second, self.robot, self.account = boss, second, robot, account
        self.wallet = account.wallet

    async def adjust(self, who: Staff, what: str, key: str | None = None, **body: Any) -> httpx.Response:
        order: dict[str, Any] = {"amount": 100, "currency": "INR", "reason": "Charged twice"}
        return await who.post(f"/wallets/{self.wallet.id}/{what}", key, **(order | body))

    async def waiting(self, what: str = "credits", amount: int = _LARGE) -> str:
        answer = await self.adjust(self.boss, what, amount=amount)
        assert answer.status_code == 202, answer.text
        adjustment_id: str = answer.json()["id"]
        return adjustment_id


@pytest.fixture
async def desk(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Desk:
    boss, second, robot = [await Staff.hire(api, databases, settings, role) for role in ("admin", "admin", "service")]
    return Desk(boss, second, robot, await make_account(databases, balance=10_000))


class TestAtOnce:
    @pytest.mark.parametrize(("what", "available"), [("credits", 10_100), ("debits", 9_900)])
    async def test_moves_the_wallet_and_says_how_it_stands(
        self, desk: Desk, databases: Databases, what: str, available: int
    ) -> None:
        answer = await desk.adjust(desk.boss, what, category="goodwill", description="October", metadata={"case": "7"})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        assert body == {
            "id": body["id"],
            "type": what[:-1],
            "status": "success",
            "amount": 100,
            "currency": "INR",
            "user_id": desk.account.user.id,
            "wallet_id": desk.wallet.id,
            "reason": "Charged twice",
            "category": "goodwill",
            "description": "October",
            "metadata": {"case": "7"},
            "requested_by": desk.boss.user.id,
            "decided_by": desk.boss.user.id,
            "decided_at": body["created_at"],
            "rejection_reason": None,
            "available_after": available,
            "held_after": 0,
            "transaction_id": body["transaction_id"],
            "reversal_id": None,
            "created_at": body["created_at"],
            "updated_at": body["created_at"],
        }
        assert AdjustmentView(**body).model_dump(mode="json") == body
        assert (await desk.boss.get(f"/adjustments/{body['id']}")).json() == body
        wallet = await current(desk.wallet)
        assert (wallet.available, wallet.open_operations, wallet.usage.day_amount) == (available, 0, 0)
        (entry,) = await databases.wallet["transaction_logs"].find({"reference": body["id"]}).to_list()
        told = {name: entry[name] for name in ("type", "counterparty", "transaction_id", "category", "status")}
        assert told == {
            "type": what[:-1].upper(),
            "counterparty": "house:adjustments",
            "transaction_id": body["transaction_id"],
            "category": "goodwill",
            "status": "success",
        }
        (event,) = await desk.boss.events(subject_id=body["id"])
        assert (event["action"], event["reason"]) == ("adjustment.requested", "Charged twice")
        assert event["details"] == {
            "type": what[:-1],
            "status": "success",
            "wallet_id": desk.wallet.id,
            "amount": 100,
            "currency": "INR",
        }

    async def test_points_are_adjusted_like_money(self, desk: Desk, databases: Databases) -> None:
        desk.wallet = await make_wallet(databases, desk.account.user, currency="PTS")
        assert (await desk.adjust(desk.robot, "credits", currency="PTS")).json()["available_after"] == 100
        assert (await desk.adjust(desk.robot, "debits", currency="PTS", amount=40)).json()["available_after"] == 60

    async def test_the_same_key_moves_once_and_answers_alike(self, desk: Desk) -> None:
        key = uuid4().hex
        first, again = [await desk.adjust(desk.robot, "credits", key) for _ in range(2)]
        assert again.content == first.content
        assert again.headers["Idempotent-Replayed"] == "true"
        assert (await current(desk.wallet)).available == 10_100
        other = await desk.adjust(desk.robot, "debits", key)
        assert refusal(other) == (422, "idempotency_key_reused")


class TestRefusals:
    @pytest.mark.parametrize(
        ("what", "body", "expected"),
        [
            ("debits", {"amount": 10_001}, (422, "insufficient_funds")),
            ("credits", {"amount": 2**53 - 1}, (422, "balance_overflow")),
            ("credits", {"currency": "USD"}, (422, "currency_mismatch")),
            ("debits", {"currency": "PTS"}, (422, "currency_mismatch")),
            ("credits", {"currency": "XXX"}, (422, "invalid_fields")),
            ("credits", {"amount": 0}, (422, "invalid_fields")),
            ("credits", {"amount": "100"}, (422, "invalid_fields")),
            ("debits", {"reason": " "}, (422, "invalid_fields")),
            ("debits", {"reason": None}, (422, "invalid_fields")),
            ("debits", {"user_id": "usr_x"}, (422, "invalid_fields")),
        ],
        ids=str,
    )
    async def test_each_has_its_code_and_moves_nothing(
        self, desk: Desk, what: str, body: dict[str, Any], expected: tuple[int, str]
    ) -> None:
        assert refusal(await desk.adjust(desk.robot, what, **body)) == expected
        assert await current(desk.wallet) == desk.wallet

    async def test_a_key_is_required(self, desk: Desk) -> None:
        path = f"/api/v1/wallets/{desk.wallet.id}/credits"
        body = {"amount": 1, "currency": "INR", "reason": "x"}
        answer = await desk.boss.api.post(path, json=body, headers=desk.boss.headers)
        assert refusal(answer) == (400, "idempotency_key_missing")

    async def test_a_closed_wallet_is_adjusted_by_nobody(self, desk: Desk, databases: Databases) -> None:
        desk.wallet = (await make_account(databases)).wallet
        await desk.boss.post(f"/wallets/{desk.wallet.id}/close", reason="Over")
        for who in (desk.boss, desk.robot):
            assert refusal(await desk.adjust(who, "credits")) == (422, "wallet_closed")

    async def test_a_frozen_wallet_is_adjusted_by_admins_and_by_services_as_far_as_it_is_open(self, desk: Desk) -> None:
        await desk.boss.post(f"/wallets/{desk.wallet.id}/freeze", direction="out", reason="Stolen")
        assert refusal(await desk.adjust(desk.robot, "debits")) == (422, "wallet_frozen")
        assert (await desk.adjust(desk.robot, "credits")).status_code == 201
        assert (await desk.adjust(desk.boss, "debits")).status_code == 201

    async def test_a_wallet_that_is_not_there_is_not_found(self, desk: Desk) -> None:
        body: dict[str, Any] = {"amount": 1, "currency": "INR", "reason": "x"}
        answer = await desk.boss.post(f"/wallets/wal_{uuid4().hex}/credits", **body)
        assert refusal(answer) == (404, "not_found")


class TestWhoMay:
    async def test_the_owner_may_not_even_look(self, desk: Desk, api: httpx.AsyncClient, settings: Settings) -> None:
        owner = Staff(api, desk.account.user, settings)
        assert refusal(await desk.adjust(owner, "credits")) == (403, "forbidden")
        adjustment_id = (await desk.adjust(desk.boss, "credits")).json()["id"]
        for answer in (
            await owner.get(f"/adjustments/{adjustment_id}"),
            await owner.get("/admin/adjustments"),
            await owner.post(f"/adjustments/{adjustment_id}/approve"),
            await owner.post(f"/adjustments/{adjustment_id}/reject", reason="x"),
            await desk.robot.post(f"/adjustments/{adjustment_id}/approve"),
            await desk.robot.post(f"/adjustments/{adjustment_id}/reject", reason="x"),
            await desk.robot.get("/admin/adjustments"),
        ):
            assert refusal(answer) == (403, "forbidden")

    async def test_a_service_sees_its_own_only(self, desk: Desk) -> None:
        own = (await desk.adjust(desk.robot, "credits")).json()["id"]
        other = (await desk.adjust(desk.boss, "credits")).json()["id"]
        assert (await desk.robot.get(f"/adjustments/{own}")).status_code == 200
        assert refusal(await desk.robot.get(f"/adjustments/{other}")) == (404, "not_found")

    async def test_a_service_needs_nobody_else_for_any_amount(self, desk: Desk) -> None:
        assert (await desk.adjust(desk.robot, "credits", amount=_LARGE)).status_code == 201

    async def test_an_admin_who_is_a_service_too_counts_as_an_admin(
        self, desk: Desk, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        both = await Staff.hire(api, databases, settings, "service", "admin")
        assert (await desk.adjust(both, "credits", amount=_LARGE)).status_code == 202


class TestFourEyes:
    async def test_below_the_set_amount_one_admin_is_enough(self, desk: Desk) -> None:
        assert (await desk.adjust(desk.boss, "credits", amount=_LARGE - 1)).status_code == 201

    async def test_nothing_moves_before_another_admin_approves(self, desk: Desk) -> None:
        adjustment_id = await desk.waiting()
        waiting = (await desk.boss.get(f"/adjustments/{adjustment_id}")).json()
        shown = [waiting[name] for name in ("status", "decided_by", "transaction_id", "available_after")]
        assert shown == ["requires_approval", None, None, None]
        wallet = await current(desk.wallet)
        assert (wallet.available, wallet.seq, wallet.open_operations) == (10_000, 1, 1)
        answer = await desk.second.post(f"/adjustments/{adjustment_id}/approve")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["status"], body["requested_by"], body["decided_by"], body["available_after"]) == (
            "success",
            desk.boss.user.id,
            desk.second.user.id,
            10_000 + _LARGE,
        )
        wallet = await current(desk.wallet)
        assert (wallet.available, wallet.seq, wallet.open_operations) == (10_000 + _LARGE, 2, 0)
        events = await desk.boss.events(subject_id=adjustment_id)
        assert [(event["action"], event["actor_id"], event["details"]["status"]) for event in events] == [
            ("adjustment.approved", desk.second.user.id, "success"),
            ("adjustment.requested", desk.boss.user.id, "requires_approval"),
        ]

    async def test_the_same_admin_cannot_be_the_second(self, desk: Desk) -> None:
        adjustment_id = await desk.waiting()
        answer = await desk.boss.post(f"/adjustments/{adjustment_id}/approve")
        assert refusal(answer) == (403, "second_admin_required")
        assert (await current(desk.wallet)).available == 10_000

    async def test_a_credit_for_oneself_waits_whatever_its_amount(self, desk: Desk, databases: Databases) -> None:
        own = await make_wallet(databases, desk.boss.user)
        answer = await desk.boss.post(f"/wallets/{own.id}/credits", amount=1, currency="INR", reason="A present")
        assert (answer.status_code, answer.json()["status"]) == (202, "requires_approval")
        approve = f"/adjustments/{answer.json()['id']}/approve"
        assert refusal(await desk.boss.post(approve)) == (403, "second_admin_required")
        assert (await current(own)).available == 0
        assert (await desk.second.post(approve)).status_code == 200
        debit = await desk.boss.post(f"/wallets/{own.id}/debits", amount=1, currency="INR", reason="A mistake")
        assert (debit.status_code, (await current(own)).available) == (201, 0)

    @pytest.mark.parametrize("amount", [_LARGE, 1])
    async def test_a_key_of_a_service_that_is_an_admin_too_does_no_more_alone_than_its_user(
        self, desk: Desk, databases: Databases, settings: Settings, amount: int
    ) -> None:
        both = await Staff.hire(desk.boss.api, databases, settings, "service", "admin")
        order: dict[str, Any] = {"user_id": both.user.id, "name": "Till", "permissions": ["adjustments:write"]}
        made = await desk.boss.post("/admin/api-keys", **order)
        await desk.boss.confirmed(made)
        both.headers = {"X-API-Key": made.json()["secret"]}
        answer = await desk.adjust(both, "credits", amount=amount)
        assert answer.status_code == (202 if amount == _LARGE else 201), answer.text

    async def test_a_rejected_one_moves_nothing_and_stays_rejected(self, desk: Desk) -> None:
        adjustment_id = await desk.waiting()
        answer = await desk.second.post(f"/adjustments/{adjustment_id}/reject", reason="Paid already")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["status"], body["decided_by"], body["rejection_reason"], body["reason"]) == (
            "rejected",
            desk.second.user.id,
            "Paid already",
            "Charged twice",
        )
        wallet = await current(desk.wallet)
        assert (wallet.available, wallet.open_operations) == (10_000, 0)
        (event, _) = await desk.boss.events(subject_id=adjustment_id)
        assert (event["action"], event["reason"]) == ("adjustment.rejected", "Paid already")
        for again in (
            await desk.second.post(f"/adjustments/{adjustment_id}/approve"),
            await desk.second.post(f"/adjustments/{adjustment_id}/reject", reason="Again"),
        ):
            assert refusal(again) == (409, "illegal_transition")
            assert again.json()["status_now"] == "rejected"

    async def test_who_asked_may_take_it_back(self, desk: Desk) -> None:
        adjustment_id = await desk.waiting()
        answer = await desk.boss.post(f"/adjustments/{adjustment_id}/reject", reason="A zero too many")
        assert (answer.status_code, answer.json()["status"]) == (200, "rejected")

    async def test_a_wallet_is_not_closed_under_a_waiting_credit(
        self, desk: Desk, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        desk.account = await make_account(databases)
        desk.wallet = desk.account.wallet
        adjustment_id = await desk.waiting()
        owner = Staff(api, desk.account.user, settings)
        refused = await owner.post(f"/wallets/{desk.wallet.id}/close")
        assert refusal(refused) == (409, "wallet_has_open_operations")
        await desk.second.post(f"/adjustments/{adjustment_id}/reject", reason="No")
        assert (await owner.post(f"/wallets/{desk.wallet.id}/close")).status_code == 200

    async def test_a_debit_that_is_spent_meanwhile_is_refused_and_goes_on_waiting(
        self, desk: Desk, databases: Databases
    ) -> None:
        await fund_wallet(databases, desk.wallet, _LARGE)
        adjustment_id = await desk.waiting("debits", amount=_LARGE + 10_000)
        assert (await desk.adjust(desk.robot, "debits", amount=1)).status_code == 201
        key = uuid4().hex
        for _ in range(2):
            refused = await desk.second.post(f"/adjustments/{adjustment_id}/approve", key)
            assert refusal(refused) == (422, "insufficient_funds")
        await desk.adjust(desk.robot, "credits", amount=1)
        assert (await desk.second.post(f"/adjustments/{adjustment_id}/approve")).status_code == 200
        wallet = await current(desk.wallet)
        assert (wallet.available, wallet.open_operations) == (0, 0)

    async def test_the_same_key_approves_once_and_answers_alike(self, desk: Desk) -> None:
        adjustment_id = await desk.waiting()
        key = uuid4().hex
        first, again = [await desk.second.post(f"/adjustments/{adjustment_id}/approve", key) for _ in range(2)]
        assert first.status_code == 200
        assert again.content == first.content
        assert again.headers["Idempotent-Replayed"] == "true"
        assert (await current(desk.wallet)).available == 10_000 + _LARGE

    async def test_of_all_who_decide_at_once_one_wins(self, desk: Desk) -> None:
        for _ in range(5):
            before = await current(desk.wallet)
            path = f"/adjustments/{await desk.waiting()}"
            answers = await asyncio.gather(
                *(desk.second.post(f"{path}/approve") for _ in range(4)),
                *(desk.second.post(f"{path}/reject", reason="No") for _ in range(4)),
            )
            assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 7}
            (winner,) = (answer.json() for answer in answers if answer.status_code == 200)
            moved = _LARGE if winner["status"] == "success" else 0
            after = await current(desk.wallet)
            assert (after.available, after.open_operations) == (before.available + moved, 0)


class TestTheList:
    async def test_shows_what_waits_newest_first_page_by_page(self, desk: Desk) -> None:
        waiting = [await desk.waiting() for _ in range(3)]
        await desk.adjust(desk.boss, "credits")
        query: dict[str, Any] = {"status": "requires_approval", "limit": 2}
        first = (await desk.boss.get("/admin/adjustments", **query)).json()
        assert PageView[AdjustmentView](**first).model_dump(mode="json") == first
        assert [row["id"] for row in first["data"]] == [waiting[2], waiting[1]]
        second = (await desk.boss.get("/admin/adjustments", **query, cursor=first["next_cursor"])).json()
        assert second["data"][0]["id"] == waiting[0]

    async def test_without_a_status_shows_all(self, desk: Desk) -> None:
        made = (await desk.adjust(desk.boss, "credits")).json()
        rows = (await desk.boss.get("/admin/adjustments")).json()["data"]
        assert rows[0] == made
