"""Blocked withdrawals over HTTP: what admins see of them, and their release or cancellation."""

from typing import Any

import httpx
import pytest

from service.controllers.blocked_withdrawals import DecidedWithdrawalView
from service.controllers.reviews import AdministeredOperationView
from service.controllers.schemas import PageView
from service.database import Databases
from service.domain.operations import Operation, OperationStatus
from service.domain.wallets import Freeze, Wallet
from service.settings import Settings
from tests.factories import asking_of, change, current, make_account, withdrawal_of
from tests.refusals import refusal
from tests.staff import Staff


class Desk:
    """An admin, and somebody whose wallet was frozen before the bank had the withdrawal."""

    def __init__(self, boss: Staff, databases: Databases, settings: Settings) -> None:
        self.boss, self.databases, self.settings = boss, databases, settings

    async def open(self) -> None:
        account = await make_account(self.databases, balance=10_000)
        self.wallet, self.owner = account.wallet, Staff(self.boss.api, account.user, self.settings)

    async def blocked(self, amount: int = 1_000) -> Operation:
        asked = await change(self.databases, withdrawal_of(await self.thawed(), amount))
        frozen = await self.boss.post(f"/wallets/{self.wallet.id}/freeze", reason="Stolen", direction="out")
        assert frozen.status_code == 200, frozen.text
        operation = await change(self.databases, asking_of(asked))
        assert operation.status is OperationStatus.BLOCKED
        return operation

    async def thawed(self) -> Wallet:
        if not (await current(self.wallet)).lets(Freeze.OUT):
            await self.boss.post(f"/wallets/{self.wallet.id}/unfreeze", reason="Found again")
        return self.wallet

    async def decide(self, operation: Operation, what: str, who: Staff | None = None, **body: Any) -> httpx.Response:
        path = f"/admin/blocked-withdrawals/{operation.id}/{what}"
        return await (who or self.boss).post(path, reason="Looked into", **body)

    async def balance(self) -> tuple[int, int]:
        wallet = await current(self.wallet)
        return wallet.available, wallet.held


@pytest.fixture
async def desk(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Desk:
    desk = Desk(await Staff.hire(api, databases, settings, "admin"), databases, settings)
    await desk.open()
    return desk


class TestWhatIsShown:
    async def test_to_admins_all_that_wait_oldest_first_page_by_page(self, desk: Desk) -> None:
        waiting = [(await desk.blocked(100)).id for _ in range(3)]
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await desk.boss.get("/admin/blocked-withdrawals", limit="2", **cursor)
            PageView[AdministeredOperationView].model_validate(page.json())
            assert all(
                one["failure_code"] in ("wallet_frozen", "user_deactivated", "wallet_owes")
                for one in page.json()["data"]
            )
            seen += [one["id"] for one in page.json()["data"]]
            if not page.json()["has_more"]:
                break
            cursor = {"cursor": page.json()["next_cursor"]}
        assert [one for one in seen if one in waiting] == waiting

    async def test_to_its_owner_that_it_is_blocked_and_why(self, desk: Desk) -> None:
        operation = await desk.blocked()
        shown = (await desk.owner.get(f"/withdrawals/{operation.id}")).json()
        assert (shown["status"], shown["failure_code"]) == ("blocked", "wallet_frozen")
        events = (await desk.owner.get("/events", limit="100")).json()["data"]
        assert "withdrawal.blocked" in [event["type"] for event in events]

    async def test_nothing_to_anybody_else(self, desk: Desk) -> None:
        operation = await desk.blocked()
        assert (await desk.owner.get("/admin/blocked-withdrawals")).status_code == 403
        for what in ("release", "cancel"):
            assert (await desk.decide(operation, what, desk.owner)).status_code == 403


class TestDeciding:
    async def test_a_release_takes_force_while_the_wallet_is_frozen(self, desk: Desk) -> None:
        operation = await desk.blocked()
        refused = await desk.decide(operation, "release")
        assert refusal(refused) == (409, "still_blocked")
        assert (refused.json()["wallet_frozen"], refused.json()["user_deactivated"]) == (True, False)
        released = await desk.decide(operation, "release", force=True)
        assert released.status_code == 202, released.text
        DecidedWithdrawalView.model_validate(released.json())
        assert released.json()["status"] == "pending"
        assert released.json()["release"]["despite_freeze"] is True
        shown = (await desk.boss.get(f"/admin/operations/{operation.id}")).json()
        assert shown["release"]["by"] == desk.boss.user.id

    async def test_a_cancellation_makes_the_money_available_again(self, desk: Desk) -> None:
        operation = await desk.blocked()
        canceled = await desk.decide(operation, "cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
        assert await desk.balance() == (10_000, 0)
        assert refusal(await desk.decide(operation, "release", force=True)) == (409, "illegal_transition")

    async def test_never_about_ones_own_money(self, desk: Desk, api: httpx.AsyncClient) -> None:
        second = await Staff.hire(api, desk.databases, desk.settings, "admin")
        account = await make_account(desk.databases, balance=10_000, roles=["user", "admin"])
        desk.wallet, own = account.wallet, Staff(api, account.user, desk.settings)
        operation = await desk.blocked()
        for what in ("release", "cancel"):
            assert refusal(await desk.decide(operation, what, own)) == (403, "second_admin_required")
        assert (await desk.decide(operation, "cancel", second)).status_code == 200
