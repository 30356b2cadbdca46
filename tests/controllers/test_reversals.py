"""Reversals over HTTP: what comes back, who bears what is missing, and that it happens once."""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.reversals import ReversalView
from service.database import Databases
from service.domain.identifiers import Prefix, new_id
from service.settings import Settings
from tests.factories import (
    Account,
    change,
    current,
    deposit_of,
    fund_wallet,
    make_account,
    make_wallet,
    withdrawal_of,
)
from tests.refusals import refusal
from tests.staff import Staff

_Told = tuple[str, int, str, str]


class Desk:
    """An admin, a sender with 10,000, and a recipient; and what they do."""

    def __init__(self, boss: Staff, sender: Staff, one: Account, other: Account, databases: Databases) -> None:
        self.boss, self.sender, self.databases = boss, sender, databases
        self.sent_from, self.sent_to = one.wallet, other.wallet

    async def transfer(self, amount: int = 1_000) -> str:
        order = {"from_wallet_id": self.sent_from.id, "to_wallet_id": self.sent_to.id, "currency": "INR"}
        answer = await self.sender.post("/transfers", amount=amount, category="rent", **order)
        assert answer.status_code == 201, answer.text
        transfer_id: str = answer.json()["id"]
        return transfer_id

    async def adjust(self, what: str, amount: int = 1_000) -> str:
        order: dict[str, Any] = {"amount": amount, "currency": "INR", "reason": "A mistake"}
        answer = await self.boss.post(f"/wallets/{self.sent_to.id}/{what}", **order)
        assert answer.status_code in (201, 202), answer.text
        adjustment_id: str = answer.json()["id"]
        return adjustment_id

    async def reverse(self, original_id: str, key: str | None = None, **body: Any) -> httpx.Response:
        noun = "transfers" if original_id.startswith("trf") else "adjustments"
        asked: dict[str, Any] = {"reason": "Stolen"} | body
        return await self.boss.post(f"/{noun}/{original_id}/reversal", key, **asked)

    async def spend(self, amount: int) -> None:
        await change(self.databases, withdrawal_of(self.sent_to, amount))

    async def available(self) -> tuple[int, int]:
        return (await current(self.sent_from)).available, (await current(self.sent_to)).available

    async def entries(self, reversal: dict[str, Any]) -> list[_Told]:
        """Type, amount, wallet and counterparty of each."""
        rows = await self.databases.wallet["transaction_logs"].find({"reference": reversal["id"]}).to_list()
        assert {row["transaction_id"] for row in rows} <= {reversal["transaction_id"]}
        return sorted((row["type"], row["amount"], row["wallet_id"], row["counterparty"]) for row in rows)


@pytest.fixture
async def desk(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Desk:
    boss = await Staff.hire(api, databases, settings, "admin")
    one, other = await make_account(databases, balance=10_000), await make_account(databases)
    return Desk(boss, Staff(api, one.user, settings), one, other, databases)


class TestATransfer:
    async def test_comes_back_whole_in_linked_entries(self, desk: Desk) -> None:
        transfer_id = await desk.transfer()
        answer = await desk.reverse(transfer_id)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        assert body == {
            "id": body["id"],
            "original_id": transfer_id,
            "from_wallet_id": desk.sent_to.id,
            "to_wallet_id": desk.sent_from.id,
            "amount": 1_000,
            "taken": 1_000,
            "shortfall": 0,
            "currency": "INR",
            "status": "success",
            "reason": "Stolen",
            "force": False,
            "category": "rent",
            "requested_by": desk.boss.user.id,
            "transaction_id": body["transaction_id"],
            "created_at": body["created_at"],
        }
        assert ReversalView(**body).model_dump() == body
        assert (await desk.boss.get(f"/reversals/{body['id']}")).json() == body
        assert await desk.available() == (10_000, 0)
        assert await desk.entries(body) == [
            ("REVERSAL_IN", 1_000, desk.sent_from.id, desk.sent_to.id),
            ("REVERSAL_OUT", 1_000, desk.sent_to.id, desk.sent_from.id),
        ]
        assert (await desk.sender.get(f"/transfers/{transfer_id}")).json()["reversal_id"] == body["id"]
        (event,) = await desk.boss.events(subject_id=transfer_id)
        assert (event["action"], event["reason"], event["actor_id"]) == (
            "transfer.reversed",
            "Stolen",
            desk.boss.user.id,
        )
        assert event["details"] == {
            "reversal_id": body["id"],
            "amount": 1_000,
            "currency": "INR",
            "force": False,
            "shortfall": 0,
        }

    async def test_gives_the_sender_their_share_of_the_limits_back(self, desk: Desk) -> None:
        await desk.transfer(300)
        transfer_id = await desk.transfer()
        before = (await current(desk.sent_from)).usage
        assert (before.day_amount, before.month_amount, before.hour_count) == (1_300, 1_300, 2)
        await desk.reverse(transfer_id)
        after = (await current(desk.sent_from)).usage
        assert (after.day_amount, after.month_amount, after.hour_count) == (300, 300, 1)

    async def test_that_waits_for_its_approval_is_not_there_to_be_taken_back(self, desk: Desk) -> None:
        transfer_id = await desk.transfer()
        # As it stands while its code is not answered.
        transfers = desk.databases.wallet["transfers"]
        await transfers.update_one({"_id": transfer_id}, {"$set": {"status": "requires_approval"}})
        answer = await desk.reverse(transfer_id)
        assert refusal(answer) == (409, "illegal_transition")
        assert answer.json()["status_now"] == "requires_approval"

    async def test_comes_back_between_frozen_wallets_too(self, desk: Desk) -> None:
        transfer_id = await desk.transfer()
        for wallet in (desk.sent_from, desk.sent_to):
            await desk.boss.post(f"/wallets/{wallet.id}/freeze", reason="Stolen")
        assert (await desk.reverse(transfer_id)).status_code == 201
        assert await desk.available() == (10_000, 0)

    async def test_does_not_come_back_from_or_to_a_closed_wallet(self, desk: Desk) -> None:
        transfer_id = await desk.transfer(10_000)
        await desk.boss.post(f"/wallets/{desk.sent_from.id}/close", reason="Over")
        for force in (False, True):
            answer = await desk.reverse(transfer_id, force=force)
            assert refusal(answer) == (422, "wallet_closed")
            assert answer.json()["wallet_id"] == desk.sent_from.id
        assert (await current(desk.sent_to)).available == 10_000


class TestWhatWasSpent:
    async def test_that_an_admin_sent_or_was_debited_is_taken_back_by_another_one(
        self, desk: Desk, databases: Databases, settings: Settings
    ) -> None:
        """Either would be money that they give themselves, however little it is."""
        own = await make_wallet(databases, desk.boss.user)
        await fund_wallet(databases, own, 1_000)
        order: dict[str, Any] = {"amount": 10, "currency": "INR"}
        sent = await desk.boss.post("/transfers", from_wallet_id=own.id, to_wallet_id=desk.sent_to.id, **order)
        debit = await desk.boss.post(f"/wallets/{own.id}/debits", reason="A mistake", **order)
        second = await Staff.hire(desk.boss.api, databases, settings, "admin")
        for original_id in (sent.json()["id"], debit.json()["id"]):
            assert refusal(await desk.reverse(original_id)) == (403, "second_admin_required")
            assert refusal(await desk.reverse(original_id, force=True)) == (403, "second_admin_required")
        assert (await current(own)).available == 980
        desk.boss = second
        for original_id in (sent.json()["id"], debit.json()["id"]):
            assert (await desk.reverse(original_id)).status_code == 201
        assert (await current(own)).available == 1_000

    async def test_is_refused_with_the_facts(self, desk: Desk) -> None:
        transfer_id = await desk.transfer()
        await desk.spend(400)
        answer = await desk.reverse(transfer_id)
        assert refusal(answer) == (422, "reversal_not_covered")
        facts = {name: answer.json()[name] for name in ("available", "requested", "shortfall", "wallet_id", "currency")}
        assert facts == {
            "available": 600,
            "requested": 1_000,
            "shortfall": 400,
            "wallet_id": desk.sent_to.id,
            "currency": "INR",
        }
        assert await desk.available() == (9_000, 600)
        assert await desk.boss.events(subject_id=transfer_id) == []

    @pytest.mark.parametrize("spent", [400, 1_000], ids=["a part", "all"])
    async def test_is_borne_by_the_house_where_it_is_forced(self, desk: Desk, spent: int) -> None:
        transfer_id = await desk.transfer()
        await desk.spend(spent)
        answer = await desk.reverse(transfer_id, force=True)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        assert (body["taken"], body["shortfall"], body["force"]) == (1_000 - spent, spent, True)
        assert await desk.available() == (10_000, 0)
        between = [
            ("REVERSAL_IN", 600, desk.sent_from.id, desk.sent_to.id),
            ("REVERSAL_OUT", 600, desk.sent_to.id, desk.sent_from.id),
        ]
        of_house = ("REVERSAL_IN", spent, desk.sent_from.id, "house:adjustments")
        assert await desk.entries(body) == sorted([*(between if spent < 1_000 else []), of_house])
        (event,) = await desk.boss.events(subject_id=transfer_id)
        assert (event["details"]["force"], event["details"]["shortfall"]) == (True, spent)

    async def test_force_changes_nothing_where_everything_is_there(self, desk: Desk) -> None:
        body = (await desk.reverse(await desk.transfer(), force=True)).json()
        assert (body["taken"], body["shortfall"], body["force"]) == (1_000, 0, True)
        assert len(await desk.entries(body)) == 2


class TestAnAdjustment:
    async def test_a_credit_goes_back_to_the_house(self, desk: Desk) -> None:
        adjustment_id = await desk.adjust("credits")
        body = (await desk.reverse(adjustment_id)).json()
        assert (body["from_wallet_id"], body["to_wallet_id"]) == (desk.sent_to.id, None)
        assert await desk.entries(body) == [("REVERSAL_OUT", 1_000, desk.sent_to.id, "house:adjustments")]
        assert await desk.available() == (10_000, 0)
        assert (await desk.boss.get(f"/adjustments/{adjustment_id}")).json()["reversal_id"] == body["id"]
        event, _ = await desk.boss.events(subject_id=adjustment_id)
        assert event["action"] == "adjustment.reversed"

    async def test_a_debit_comes_back_from_the_house(self, desk: Desk) -> None:
        await desk.adjust("credits")
        body = (await desk.reverse(await desk.adjust("debits", 700))).json()
        assert (body["from_wallet_id"], body["to_wallet_id"]) == (None, desk.sent_to.id)
        assert await desk.entries(body) == [("REVERSAL_IN", 700, desk.sent_to.id, "house:adjustments")]
        assert await desk.available() == (10_000, 1_000)

    @pytest.mark.parametrize(("spent", "entries"), [(400, 1), (1_000, 0)])
    async def test_of_a_spent_credit_force_takes_what_is_there(self, desk: Desk, spent: int, entries: int) -> None:
        adjustment_id = await desk.adjust("credits")
        await desk.spend(spent)
        assert refusal(await desk.reverse(adjustment_id)) == (422, "reversal_not_covered")
        body = (await desk.reverse(adjustment_id, force=True)).json()
        assert (body["taken"], body["shortfall"]) == (1_000 - spent, spent)
        assert len(await desk.entries(body)) == entries
        assert await desk.available() == (10_000, 0)

    async def test_that_waits_or_was_rejected_is_not_there_to_be_taken_back(self, desk: Desk) -> None:
        adjustment_id = await desk.adjust("credits", 100_000_001)
        for status in ("requires_approval", "rejected"):
            answer = await desk.reverse(adjustment_id)
            assert refusal(answer) == (409, "illegal_transition")
            assert answer.json()["status_now"] == status
            await desk.boss.post(f"/adjustments/{adjustment_id}/reject", reason="No")

    async def test_a_balance_that_became_too_large_takes_no_debit_back(self, desk: Desk, settings: Settings) -> None:
        await desk.adjust("credits")
        adjustment_id = await desk.adjust("debits", 700)
        robot = await Staff.hire(desk.boss.api, desk.databases, settings, "service")
        order: dict[str, Any] = {"amount": 2**53 - 1 - 300, "currency": "INR", "reason": "A test"}
        asked = await robot.post(f"/wallets/{desk.sent_to.id}/credits", **order)
        # So much in a day takes an admin.
        assert asked.status_code == 202
        approved = await desk.boss.post(f"/adjustments/{asked.json()['id']}/approve")
        assert approved.status_code == 200
        assert refusal(await desk.reverse(adjustment_id)) == (422, "balance_overflow")


class TestOnce:
    async def test_a_second_reversal_is_refused_with_the_first_ones_id(self, desk: Desk) -> None:
        transfer_id = await desk.transfer()
        first = (await desk.reverse(transfer_id)).json()
        again = await desk.reverse(transfer_id, force=True)
        assert refusal(again) == (409, "already_reversed")
        assert again.json()["reversal_id"] == first["id"]
        assert await desk.available() == (10_000, 0)

    async def test_the_same_key_answers_alike(self, desk: Desk) -> None:
        transfer_id, key = await desk.transfer(), uuid4().hex
        first, again = [await desk.reverse(transfer_id, key) for _ in range(2)]
        assert again.content == first.content
        assert again.headers["Idempotent-Replayed"] == "true"
        assert refusal(await desk.reverse(transfer_id, key, force=True)) == (422, "idempotency_key_reused")

    async def test_of_many_at_once_one_wins(self, desk: Desk) -> None:
        for kind in ("transfer", "credits", "debits"):
            original_id = await (desk.transfer() if kind == "transfer" else desk.adjust(kind, 500))
            before = await desk.available()
            answers = await asyncio.gather(*(desk.reverse(original_id) for _ in range(8)))
            assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 7}
            moved = {"transfer": (1_000, -1_000), "credits": (0, -500), "debits": (0, 500)}[kind]
            assert await desk.available() == (before[0] + moved[0], before[1] + moved[1])
            await desk.adjust("credits", 500)


class TestWhoMay:
    @pytest.mark.parametrize("roles", [(), ("service",)], ids=["nobody special", "a service"])
    async def test_only_admins_may(
        self, desk: Desk, databases: Databases, settings: Settings, roles: tuple[str, ...]
    ) -> None:
        transfer_id, adjustment_id = await desk.transfer(), await desk.adjust("credits")
        somebody = await Staff.hire(desk.boss.api, databases, settings, *roles)
        for path in (f"/transfers/{transfer_id}", f"/adjustments/{adjustment_id}"):
            assert refusal(await somebody.post(f"{path}/reversal", reason="Mine")) == (403, "forbidden")
        assert refusal(await somebody.get(f"/reversals/{new_id(Prefix.REVERSAL)}")) == (403, "forbidden")

    async def test_what_is_not_there_is_not_found(self, desk: Desk, databases: Databases) -> None:
        deposit = await change(databases, deposit_of(desk.sent_to))
        for path in ("/transfers/trf_1", "/adjustments/adj_1", f"/transfers/{deposit.id}", "/adjustments/trf_1"):
            assert refusal(await desk.boss.post(f"{path}/reversal", reason="Mine")) == (404, "not_found")

    @pytest.mark.parametrize("body", [{}, {"reason": "x", "force": "yes"}, {"reason": "x", "amount": 1}], ids=str)
    async def test_a_body_that_will_not_do_is_refused(self, desk: Desk, body: dict[str, Any]) -> None:
        answer = await desk.boss.post(f"/transfers/{await desk.transfer()}/reversal", **body)
        assert refusal(answer) == (422, "invalid_fields")
