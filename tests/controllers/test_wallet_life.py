"""Freezing, unfreezing, closing and reopening over HTTP: what each stops, who may, and that repeating is harmless."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.schemas import WalletView
from service.database import Databases
from service.domain.policy import Policy
from service.domain.wallets import WalletStatus
from service.settings import Settings
from service.startup import Resources
from tests.books import asking_before
from tests.factories import (
    Account,
    change,
    current,
    deposit_of,
    failure_of,
    fund_wallet,
    make_account,
    make_wallet,
    settlement_of,
    withdrawal_of,
)
from tests.refusals import refusal
from tests.servers import Admin
from tests.staff import Staff


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


@pytest.fixture
async def account(databases: Databases) -> Account:
    return await make_account(databases, balance=10_000)


@pytest.fixture
def owner(api: httpx.AsyncClient, account: Account, settings: Settings) -> Staff:
    return Staff(api, account.user, settings)


async def deposit(owner: Staff) -> httpx.Response:
    return await owner.post("/deposits", amount=1, currency="INR", source="savings-success")


async def withdraw(owner: Staff) -> httpx.Response:
    return await owner.post("/withdrawals", amount=1, currency="INR", destination="savings-success")


class TestFreezing:
    @pytest.mark.parametrize(
        ("direction", "statuses"), [("in", (422, 202)), ("out", (202, 422)), ("both", (422, 422)), (None, (422, 422))]
    )
    async def test_stops_what_goes_that_way_and_only_that(
        self, boss: Staff, owner: Staff, account: Account, direction: str | None, statuses: tuple[int, int]
    ) -> None:
        body = {} if direction is None else {"direction": direction}
        answer = await boss.post(f"/wallets/{account.wallet.id}/freeze", reason="Stolen", **body)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["status"], answer.json()["frozen"]) == ("frozen", direction or "both")
        assert WalletView(**answer.json()).model_dump(mode="json") == answer.json()
        answers = (await deposit(owner), await withdraw(owner))
        assert tuple(one.status_code for one in answers) == statuses
        assert {one.json()["error"] for one in answers if one.status_code == 422} == {"wallet_frozen"}

    async def test_stops_transfers_on_both_sides(
        self, boss: Staff, owner: Staff, account: Account, databases: Databases
    ) -> None:
        friend = await make_account(databases)
        order: dict[str, Any] = {"from_wallet_id": account.wallet.id, "amount": 1, "currency": "INR"}
        await boss.post(f"/wallets/{friend.wallet.id}/freeze", direction="in", reason="Stolen")
        to_frozen = await owner.post("/transfers", to_wallet_id=friend.wallet.id, **order)
        assert refusal(to_frozen) == (422, "recipient_wallet_frozen")
        await boss.post(f"/wallets/{friend.wallet.id}/unfreeze", reason="Found")
        await boss.post(f"/wallets/{account.wallet.id}/freeze", direction="out", reason="Stolen")
        assert refusal(await owner.post("/transfers", to_wallet_id=friend.wallet.id, **order)) == (422, "wallet_frozen")

    async def test_lets_what_is_under_way_end(self, boss: Staff, account: Account, databases: Databases) -> None:
        paid = await change(databases, withdrawal_of(account.wallet, 100))
        declined = await change(databases, withdrawal_of(account.wallet, 100))
        coming = await change(databases, deposit_of(account.wallet, 50))
        ends = settlement_of(paid), failure_of(declined), settlement_of(coming)
        for end in ends:
            await change(databases, asking_before(end))
        await boss.post(f"/wallets/{account.wallet.id}/freeze", reason="Stolen")
        for end in ends:
            await change(databases, end, is_bank_asked=False)
        wallet = await current(account.wallet)
        assert (wallet.available, wallet.held, wallet.status) == (9_950, 0, WalletStatus.FROZEN)

    async def test_another_direction_replaces_the_one_before(self, boss: Staff, owner: Staff, account: Account) -> None:
        path = f"/wallets/{account.wallet.id}/freeze"
        await boss.post(path, direction="in", reason="Stolen")
        assert (await boss.post(path, direction="out", reason="Only out")).json()["frozen"] == "out"
        assert (await deposit(owner)).status_code == 202
        assert refusal(await withdraw(owner)) == (422, "wallet_frozen")
        events = await boss.events(subject_id=account.wallet.id)
        assert [event["details"] for event in events] == [
            {"direction": "out", "was_status": "frozen", "was_direction": "in"},
            {"direction": "in", "was_status": "active", "was_direction": None},
        ]

    async def test_and_thawing_again_lets_everything_through(self, boss: Staff, owner: Staff, account: Account) -> None:
        await boss.post(f"/wallets/{account.wallet.id}/freeze", reason="Stolen")
        answer = await boss.post(f"/wallets/{account.wallet.id}/unfreeze", reason="Found")
        assert (answer.status_code, answer.json()["status"], answer.json()["frozen"]) == (200, "active", None)
        assert (await deposit(owner)).status_code == (await withdraw(owner)).status_code == 202
        actions = [event["action"] for event in await boss.events(subject_id=account.wallet.id)]
        assert actions == ["wallet.unfrozen", "wallet.frozen"]


class TestClosing:
    async def test_an_owner_closes_an_empty_wallet_for_good(
        self, boss: Staff, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases)
        owner = Staff(api, account.user, settings)
        answer = await owner.post(f"/wallets/{account.wallet.id}/close")
        assert (answer.status_code, answer.json()["status"]) == (200, "closed")
        assert refusal(await deposit(owner)) == (422, "wallet_closed")
        for undo in ("freeze", "unfreeze"):
            refused = await boss.post(f"/wallets/{account.wallet.id}/{undo}", reason="Back to life")
            assert refusal(refused) == (422, "wallet_closed")
        assert refusal(await owner.api.post("/api/v1/wallets", json={"currency": "INR"}, headers=owner.headers)) == (
            409,
            "wallet_exists",
        )
        (event,) = await boss.events(subject_id=account.wallet.id)
        assert (event["action"], event["actor_id"], event["reason"]) == ("wallet.closed", account.user.id, None)

    async def test_one_with_money_is_not_closed(self, owner: Staff, account: Account, databases: Databases) -> None:
        answer = await owner.post(f"/wallets/{account.wallet.id}/close")
        assert refusal(answer) == (409, "wallet_not_empty")
        assert (answer.json()["available"], answer.json()["held"]) == (10_000, 0)
        await change(databases, withdrawal_of(account.wallet, 10_000))
        answer = await owner.post(f"/wallets/{account.wallet.id}/close")
        assert refusal(answer) == (409, "wallet_not_empty")
        facts = {name: answer.json()[name] for name in ("available", "held", "open_operations", "currency")}
        assert facts == {"available": 0, "held": 10_000, "open_operations": 1, "currency": "INR"}

    async def test_one_with_a_deposit_on_its_way_is_not_closed_before_that_has_failed(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases)
        owner = Staff(api, account.user, settings)
        coming = await change(databases, deposit_of(account.wallet, 5))
        answer = await owner.post(f"/wallets/{account.wallet.id}/close")
        assert refusal(answer) == (409, "wallet_has_open_operations")
        assert answer.json()["open_operations"] == 1
        await change(databases, failure_of(coming))
        assert (await owner.post(f"/wallets/{account.wallet.id}/close")).status_code == 200

    async def test_an_admin_says_why_they_close_anothers(self, boss: Staff, databases: Databases) -> None:
        account = await make_account(databases)
        answer = await boss.post(f"/wallets/{account.wallet.id}/close")
        assert refusal(answer) == (422, "invalid_fields")
        assert answer.json()["errors"][0]["pointer"] == "/reason"
        assert (await boss.post(f"/wallets/{account.wallet.id}/close", reason="Deceased")).status_code == 200

    async def test_a_frozen_one_is_closed_by_an_admin_only(
        self, boss: Staff, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases)
        await boss.post(f"/wallets/{account.wallet.id}/freeze", reason="Stolen")
        owner = Staff(api, account.user, settings)
        assert refusal(await owner.post(f"/wallets/{account.wallet.id}/close")) == (422, "wallet_frozen")
        assert (await boss.post(f"/wallets/{account.wallet.id}/close", reason="Over")).json()["frozen"] is None

    async def test_anothers_is_not_found(self, owner: Staff, databases: Databases) -> None:
        other = await make_account(databases)
        assert refusal(await owner.post(f"/wallets/{other.wallet.id}/close", reason="Mine")) == (404, "not_found")
        assert (await current(other.wallet)).status is WalletStatus.ACTIVE


class TestReopening:
    @pytest.fixture
    async def closed(self, databases: Databases, api: httpx.AsyncClient, settings: Settings) -> Account:
        account = await make_account(databases)
        assert (await Staff(api, account.user, settings).post(f"/wallets/{account.wallet.id}/close")).status_code == 200
        return account

    async def test_an_admin_gives_somebody_their_wallet_back_with_its_history(
        self, boss: Staff, closed: Account, api: httpx.AsyncClient, settings: Settings
    ) -> None:
        answer = await boss.post(f"/wallets/{closed.wallet.id}/reopen", reason="Closed by mistake")
        assert (answer.status_code, answer.json()["status"], answer.json()["balance"]) == (200, "active", 0)
        owner = Staff(api, closed.user, settings)
        assert (await deposit(owner)).status_code == 202
        event, _ = await boss.events(subject_id=closed.wallet.id)
        assert (event["action"], event["actor_id"], event["reason"]) == (
            "wallet.reopened",
            boss.user.id,
            "Closed by mistake",
        )
        assert event["details"] == {"direction": None, "was_status": "closed", "was_direction": None}
        told = (await owner.get("/events", types="wallet.reopened")).json()["data"]
        assert [(one["status"], one["previous_status"]) for one in told] == [("active", "closed")]

    async def test_is_for_a_closed_one(self, boss: Staff, account: Account) -> None:
        path = f"/wallets/{account.wallet.id}"
        assert (await boss.post(f"{path}/reopen", reason="It is active")).status_code == 200
        await boss.post(f"{path}/freeze", reason="Stolen")
        assert refusal(await boss.post(f"{path}/reopen", reason="Not that way")) == (422, "wallet_frozen")
        assert [event["action"] for event in await boss.events(subject_id=account.wallet.id)] == ["wallet.frozen"]

    async def test_is_for_an_empty_one(self, boss: Staff, closed: Account, admin: Admin, settings: Settings) -> None:
        """No rule lets it come to that: whatever has put the money there has to be looked into first."""
        wallets = admin[settings.database]["wallets"]
        wallets.update_one({"_id": closed.wallet.id}, {"$inc": {"available": 5}})
        refused = await boss.post(f"/wallets/{closed.wallet.id}/reopen", reason="There is money in it")
        wallets.update_one({"_id": closed.wallet.id}, {"$inc": {"available": -5}})
        assert refusal(refused) == (409, "wallet_not_empty")

    async def test_is_for_another_admin_than_its_owner(
        self, boss: Staff, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        own = await make_wallet(databases, boss.user, currency="USD")
        assert (await boss.post(f"/wallets/{own.id}/close")).status_code == 200
        assert refusal(await boss.post(f"/wallets/{own.id}/reopen", reason="Mine")) == (403, "second_admin_required")
        other = await Staff.hire(api, databases, settings, "admin")
        assert (await other.post(f"/wallets/{own.id}/reopen", reason="Theirs")).status_code == 200

    async def test_is_for_a_currency_that_is_dealt_in(
        self, boss: Staff, closed: Account, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resources.ledger, "policy", Policy(currencies=frozenset({"USD"})))
        refused = await boss.post(f"/wallets/{closed.wallet.id}/reopen", reason="Too late")
        assert refusal(refused) == (422, "currency_not_offered")
        assert (await current(closed.wallet)).status is WalletStatus.CLOSED

    async def test_of_two_at_once_leaves_one_event(self, boss: Staff, closed: Account) -> None:
        path = f"/wallets/{closed.wallet.id}/reopen"
        answers = await asyncio.gather(*(boss.post(path, reason="At once") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        actions = [event["action"] for event in await boss.events(subject_id=closed.wallet.id)]
        assert actions == ["wallet.reopened", "wallet.closed"]


class TestACurrencyThatIsNoLongerDealtIn:
    async def test_is_paid_out_and_not_paid_in(
        self,
        owner: Staff,
        account: Account,
        resources: Resources,
        databases: Databases,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await make_wallet(databases, account.user, currency="USD")
        monkeypatch.setattr(resources.ledger, "policy", Policy(currencies=frozenset({"USD"})))
        assert refusal(await deposit(owner)) == (422, "currency_not_offered")
        into = {"from_currency": "USD", "to_currency": "INR", "amount": 100}
        refused = await owner.api.post("/api/v1/quotes", json=into, headers=owner.headers)
        assert refusal(refused) == (422, "currency_not_offered")
        assert (await withdraw(owner)).status_code == 202
        out = {"from_currency": "INR", "to_currency": "USD", "amount": 1_000}
        quote = await owner.api.post("/api/v1/quotes", json=out, headers=owner.headers)
        assert quote.status_code == 201, quote.text
        assert (await owner.post("/conversions", quote_id=quote.json()["id"])).status_code == 201


class TestRepeating:
    async def test_answers_with_the_wallet_and_leaves_one_event(self, boss: Staff, databases: Databases) -> None:
        account = await make_account(databases)
        for what in ("freeze", "unfreeze", "close", "reopen"):
            first, second = [
                await boss.post(f"/wallets/{account.wallet.id}/{what}", reason=f"{what} {number}")
                for number in ("one", "two")
            ]
            assert (first.status_code, second.status_code) == (200, 200)
            assert second.json() == first.json()
        reasons = [event["reason"] for event in await boss.events(subject_id=account.wallet.id)]
        assert reasons == ["reopen one", "close one", "unfreeze one", "freeze one"]


class TestWhoMay:
    @pytest.mark.parametrize("what", ["freeze", "unfreeze", "reopen"])
    @pytest.mark.parametrize("role", [(), ("service",)], ids=["nobody special", "a service"])
    async def test_only_admins_freeze_unfreeze_and_reopen(
        self,
        api: httpx.AsyncClient,
        databases: Databases,
        settings: Settings,
        account: Account,
        what: str,
        role: tuple[str, ...],
    ) -> None:
        somebody = await Staff.hire(api, databases, settings, *role)
        answer = await somebody.post(f"/wallets/{account.wallet.id}/{what}", reason="Because")
        assert refusal(answer) == (403, "forbidden")
        assert (await current(account.wallet)).status is WalletStatus.ACTIVE

    async def test_an_admin_whose_tokens_were_revoked_changes_nothing(
        self, boss: Staff, account: Account, databases: Databases
    ) -> None:
        await databases.wallet["users"].update_one({"_id": boss.user.id}, {"$inc": {"token_version": 1}})
        answer = await boss.post(f"/wallets/{account.wallet.id}/freeze", reason="Because")
        assert refusal(answer) == (401, "unauthenticated")
        assert (await current(account.wallet)).status is WalletStatus.ACTIVE

    @pytest.mark.parametrize(
        "body",
        [{}, {"reason": ""}, {"reason": " "}, {"reason": "a\nb"}, {"reason": "x", "direction": "up"}, {"reason": None}],
        ids=str,
    )
    async def test_a_reason_and_a_known_direction_are_required(
        self, boss: Staff, account: Account, body: dict[str, Any]
    ) -> None:
        answer = await boss.post(f"/wallets/{account.wallet.id}/freeze", **body)
        assert refusal(answer) == (422, "invalid_fields")

    async def test_a_wallet_that_is_not_there_is_not_found(self, boss: Staff) -> None:
        answer = await boss.post(f"/wallets/wal_{uuid4().hex}/freeze", reason="Because")
        assert refusal(answer) == (404, "not_found")


class TestAnAdminsOwn:
    async def test_is_thawed_and_opened_one_way_by_another_admin_only(
        self, boss: Staff, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        wallet = await make_wallet(databases, boss.user)
        path = f"/wallets/{wallet.id}"
        # Shutting it is anybody's.
        assert (await boss.post(f"{path}/freeze", reason="Stolen")).status_code == 200
        for what, body in (("unfreeze", {}), ("freeze", {"direction": "in"}), ("freeze", {"direction": "out"})):
            refused = await boss.post(f"{path}/{what}", reason="Found", **body)
            assert refusal(refused) == (403, "second_admin_required")
        assert (await current(wallet)).status is WalletStatus.FROZEN
        other = await Staff.hire(api, databases, settings, "admin")
        assert (await other.post(f"{path}/unfreeze", reason="Found")).json()["status"] == "active"
        # What is so already stays so.
        assert (await boss.post(f"{path}/unfreeze", reason="Found")).status_code == 200


class TestMoneyInAFrozenWallet:
    async def test_arrives_and_stays(self, boss: Staff, owner: Staff, account: Account, databases: Databases) -> None:
        coming = await change(databases, deposit_of(account.wallet, 5))
        await boss.post(f"/wallets/{account.wallet.id}/freeze", reason="Stolen")
        await change(databases, settlement_of(coming))
        assert (await current(account.wallet)).available == 10_005
        assert refusal(await withdraw(owner)) == (422, "wallet_frozen")
        await boss.post(f"/wallets/{account.wallet.id}/unfreeze", reason="Found")
        await fund_wallet(databases, account.wallet, 5)
        assert (await withdraw(owner)).status_code == 202
