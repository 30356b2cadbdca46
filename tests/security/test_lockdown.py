"""Stopping a theft: one act of one admin stops everything of a user, and no admin alone gives anything back."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx
import pytest
from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Databases
from service.domain.operations import OperationStatus
from service.domain.policy import Policy
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.domain.webhook_endpoints import DisabledReason, EndpointStatus
from service.errors import AccountDeactivated
from service.gateways.bank import BankState
from service.ledger.commands import Command
from service.ledger.committer import Ledger
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.repositories.users import KnownUsers
from service.services.callers import Caller
from service.services.ended_tokens import EndedTokens
from service.services.lockdowns import Lockdowns, get_lockdown
from service.services.orders import Requester
from service.services.wallets import open_wallet
from service.services.webhook_endpoints import get_endpoint
from service.settings import Settings
from service.startup import Resources
from tests.controllers.test_password_changes import NEW_PASSWORD, Office, confirm, token_in, try_password
from tests.controllers.test_password_changes import office as office  # noqa: PLC0414 pytest takes it from here
from tests.factories import (
    PASSWORD,
    change,
    current,
    freeze,
    fund_wallet,
    make_funded_wallet,
    make_wallet,
    run,
    settlement_of,
    withdrawal_of,
)
from tests.logins import LOGIN, OUT, REFUSED, Login
from tests.logs import own_logs
from tests.refusals import refusal
from tests.services.test_house_floors import return_of
from tests.services.test_settlement import Scene, ScriptedBank, report_on
from tests.services.test_settlement import ledger as ledger  # noqa: PLC0414 pytest takes it from here
from tests.staff import Staff
from tests.webhooks import make_endpoint

_BLOCKED = "/admin/blocked-withdrawals"
_LOCKED = (409, "user_locked_down")


class Theft(NamedTuple):
    """Somebody whose password was stolen, with two wallets, and three admins."""

    api: httpx.AsyncClient
    databases: Databases
    login: Login
    wallets: list[Wallet]
    admins: list[Staff]

    @property
    def path(self) -> str:
        return f"/admin/users/{self.login.user.id}/lockdown"

    async def lock_down(self) -> dict[str, Any]:
        return self.shown(await self.admins[0].post(self.path, reason="Stolen password"))

    async def lift(self, proposer: Staff, approver: Staff) -> dict[str, Any]:
        self.shown(await proposer.post(f"{self.path}/lift", reason="Came with a passport"))
        return self.shown(await approver.post(f"{self.path}/lift/approve"))

    async def freezes(self) -> list[tuple[WalletStatus, Freeze | None]]:
        return [(wallet.status, wallet.freeze) for wallet in [await current(one) for one in self.wallets]]

    async def told(self) -> list[str]:
        return [event["action"] for event in await self.admins[2].events(subject_id=self.login.user.id)]

    def shown(self, answer: httpx.Response) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown


@pytest.fixture
async def theft(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Theft:
    login = await Login.of_somebody(api, databases, balance=5_000, roles=["user", "service"])
    (row,) = await databases.wallet["wallets"].find({"user_id": login.user.id}).to_list()
    wallets = [
        (await _wallet(row["_id"], login)),
        await make_wallet(databases, login.user, currency="USD"),
    ]
    admins = [await Staff.hire(api, databases, settings, "admin") for _ in range(3)]
    return Theft(api, databases, login, wallets, admins)


async def _wallet(wallet_id: str, login: Login) -> Wallet:
    found = [one for one in (await get_lockdown(login.user.id)).wallets if one.id == wallet_id]
    return found[0]


_BOTH = (WalletStatus.FROZEN, Freeze.BOTH)
_ONE_OUT = (WalletStatus.FROZEN, Freeze.OUT)
_ACTIVE = (WalletStatus.ACTIVE, None)


class TestOneActOfAnAdmin:
    async def test_ends_sessions_and_keys_at_once_and_freezes_all_wallets(self, theft: Theft) -> None:
        boss, user = theft.admins[0], theft.login.user
        key = await boss.post("/admin/api-keys", user_id=user.id, name="Till", permissions=["wallets:read"])
        secret = key.json()["secret"]
        shown = await theft.lock_down()
        assert (shown["status"], shown["locked_by"], shown["reason"]) == ("locked", boss.user.id, "Stolen password")
        assert {wallet["frozen"] for wallet in shown["wallets"]} == {"both"}
        assert await theft.freezes() == [_BOTH, _BOTH]
        assert refusal(await theft.login.refresh()) == REFUSED
        balance = f"/api/v1/users/{user.id}/balance"
        assert refusal(await theft.api.get(balance, headers=theft.login.headers)) == OUT
        assert refusal(await theft.api.get(balance, headers={"X-API-Key": secret})) == OUT
        body = {"email": user.email, "password": PASSWORD}
        assert refusal(await theft.api.post(LOGIN, json=body)) == (401, "invalid_credentials")
        assert (await theft.told())[0] == "user.locked_down"

    async def test_keeps_from_the_bank_what_it_has_not_accepted(
        self, theft: Theft, ledger: Ledger, settings: Settings
    ) -> None:
        operation = await change(theft.databases, withdrawal_of(theft.wallets[0], 1_000))
        scene = Scene(theft.wallets[0], operation, ledger, settings, theft.databases)
        await theft.lock_down()
        bank = ScriptedBank([report_on(operation, BankState.SUCCESS)])
        assert (await scene.visit(bank)).status is OperationStatus.BLOCKED
        assert not bank.submitted
        release = f"{_BLOCKED}/{operation.id}/release"
        assert refusal(await theft.admins[1].post(release, reason="Please", force=True)) == _LOCKED
        canceled = await theft.admins[1].post(f"{_BLOCKED}/{operation.id}/cancel", reason="It was the thief's")
        assert canceled.status_code == 200, canceled.text
        assert (await current(theft.wallets[0])).available == 5_000

    async def test_may_be_repeated_and_tells_nothing_new(self, theft: Theft) -> None:
        first = await theft.lock_down()
        told = await theft.told()
        assert await theft.lock_down() == first
        assert await theft.told() == told

    async def test_is_not_for_ones_own_account_and_not_for_others_than_admins(self, theft: Theft) -> None:
        boss = theft.admins[0]
        own = await boss.post(f"/admin/users/{boss.user.id}/lockdown", reason="Enough")
        assert refusal(own) == (403, "own_account")
        assert refusal(await theft.login.post(f"/api/v1{theft.path}", {"reason": "Me"})) == (403, "forbidden")
        assert refusal(await boss.post("/admin/users/usr_nobody/lockdown", reason="Who")) == (404, "not_found")


class TestOneAdminAlone:
    async def test_gives_nothing_back(self, theft: Theft) -> None:
        await theft.lock_down()
        boss, user, wallet = theft.admins[0], theft.login.user, theft.wallets[0]
        for path, body in (
            (f"/admin/users/{user.id}/reactivate", {}),
            (f"/wallets/{wallet.id}/unfreeze", {}),
            (f"/wallets/{wallet.id}/freeze", {"direction": "in"}),
            (f"/wallets/{wallet.id}/freeze", {"direction": "out"}),
        ):
            for admin in (boss, theft.admins[1]):
                assert refusal(await admin.post(path, reason="It was a mistake", **body)) == _LOCKED, path
        nobody_asked = await boss.post(f"{theft.path}/lift/approve")
        assert refusal(nobody_asked) == (409, "illegal_transition")
        theft.shown(await boss.post(f"{theft.path}/lift", reason="It was a mistake"))
        own = await boss.post(f"{theft.path}/lift/approve")
        assert refusal(own) == (403, "second_admin_required")
        assert await theft.freezes() == [_BOTH, _BOTH]

    async def test_takes_nothing_from_a_wallet(self, theft: Theft, databases: Databases) -> None:
        boss, wallet, victim = theft.admins[0], theft.wallets[0], await make_funded_wallet(databases, 100)
        given = await theft.admins[1].post(f"/wallets/{wallet.id}/credits", amount=7, currency="INR", reason="A gift")
        assert given.status_code == 201, given.text
        await theft.lock_down()
        debit = await boss.post(f"/wallets/{wallet.id}/debits", amount=10, currency="INR", reason="Somebody else's")
        assert (debit.status_code, debit.json()["status"]) == (202, "requires_approval"), debit.text
        reversal = await boss.post(f"/adjustments/{given.json()['id']}/reversal", reason="None of theirs")
        assert refusal(reversal) == (403, "second_admin_required")
        before = (await current(wallet)).available
        approved = await theft.admins[1].post(f"/adjustments/{debit.json()['id']}/approve")
        assert approved.status_code == 200, approved.text
        assert (await current(wallet)).available == before - 10
        debit = await boss.post(f"/wallets/{victim.id}/debits", amount=1, currency="INR", reason="Charged twice")
        assert debit.status_code == 201

    async def test_locks_down_again_what_another_would_lift(self, theft: Theft) -> None:
        await theft.lock_down()
        theft.shown(await theft.admins[1].post(f"{theft.path}/lift", reason="It was a mistake"))
        assert (await theft.lock_down())["lift"] is None
        approved = await theft.admins[2].post(f"{theft.path}/lift/approve")
        assert refusal(approved) == (409, "illegal_transition")

    async def test_approves_nothing_that_somebody_proposed_who_is_no_admin_any_more(self, theft: Theft) -> None:
        await theft.lock_down()
        gone = theft.admins[1]
        theft.shown(await gone.post(f"{theft.path}/lift", reason="It was a mistake"))
        demoted = await theft.admins[0].put(f"/admin/users/{gone.user.id}/roles", roles=["user"], reason="Left")
        assert demoted.status_code == 200, demoted.text
        approved = await theft.admins[2].post(f"{theft.path}/lift/approve")
        assert refusal(approved) == (403, "second_admin_required")


class TestTwoAdmins:
    async def test_make_everything_as_it_was_before(self, theft: Theft) -> None:
        await freeze(theft.databases, theft.wallets[1], theft.admins[0].user)
        await theft.lock_down()
        assert await theft.freezes() == [_BOTH, _BOTH]
        shown = await theft.lift(theft.admins[0], theft.admins[1])
        assert (shown["status"], shown["lift"]) == ("none", None)
        assert await theft.freezes() == [_ACTIVE, _ONE_OUT]
        expected = ["lockdown_lifted", "lockdown_lift_approved", "lockdown_lift_proposed", "locked_down"]
        assert (await theft.told())[:4] == [f"user.{action}" for action in expected]

    async def test_end_keys_that_were_made_meanwhile(self, theft: Theft) -> None:
        await theft.lock_down()
        order: dict[str, Any] = {"user_id": theft.login.user.id, "name": "Till", "permissions": ["wallets:read"]}
        key = (await theft.admins[2].post("/admin/api-keys", **order)).json()
        await theft.lift(theft.admins[0], theft.admins[1])
        assert (await theft.admins[2].get(f"/admin/api-keys/{key['id']}")).json()["status"] == "revoked"
        balance = f"/api/v1/users/{theft.login.user.id}/balance"
        assert refusal(await theft.api.get(balance, headers={"X-API-Key": key["secret"]})) == OUT

    async def test_leave_frozen_out_what_owes(self, theft: Theft) -> None:
        await theft.lock_down()
        owing = {"$set": {"owed": Int64(7), "debts": ["rtn_0198c0ffee0070008000000000000001"]}}
        await theft.databases.wallet["wallets"].update_one({"_id": theft.wallets[1].id}, owing)
        await theft.lift(theft.admins[0], theft.admins[1])
        assert await theft.freezes() == [_ONE_OUT, _ONE_OUT]

    async def test_leave_frozen_out_what_a_return_found_locked(self, theft: Theft) -> None:
        deposit = await fund_wallet(theft.databases, theft.wallets[0], 1_000)
        all_of_it = (await current(theft.wallets[0])).available
        asked = await change(theft.databases, withdrawal_of(theft.wallets[0], all_of_it))
        await change(theft.databases, settlement_of(asked))
        await theft.lock_down()
        (decided,) = await run(theft.databases, return_of(deposit))
        assert decided.error is None
        await theft.lift(theft.admins[0], theft.admins[1])
        assert await theft.freezes() == [_ONE_OUT, _ONE_OUT]

    async def test_leave_a_user_deactivated_who_was_so_before(self, theft: Theft) -> None:
        user = theft.login.user
        answer = await theft.admins[0].post(f"/admin/users/{user.id}/deactivate", reason="Asked for it")
        assert answer.status_code == 200, answer.text
        await theft.lock_down()
        await theft.lift(theft.admins[0], theft.admins[1])
        assert (await theft.admins[0].get(f"/admin/users/{user.id}")).json()["is_active"] is False


class TestALiftedLockdown:
    async def test_lets_nobody_in_by_the_password_from_before(self, theft: Theft, office: Office) -> None:
        await theft.lock_down()
        await theft.lift(theft.admins[0], theft.admins[1])
        user = theft.login.user
        with own_logs() as lines:
            assert refusal(await try_password(theft.api, user, PASSWORD)) == (401, "invalid_credentials")
        assert "must_reset_password" in [line.get("reason") for line in lines]
        # The lift has mailed the owner what it takes.
        await office.work(user)
        token = token_in([mail for mail in office.mails(user) if "wpr_" in mail["text"]][-1])
        assert (await confirm(theft.api, token)).status_code == 204
        assert (await Login.of(theft.api, user, NEW_PASSWORD)).headers

    async def test_leaves_webhook_endpoints_disabled_until_their_owner_enables_them(
        self, theft: Theft, databases: Databases, resources: Resources
    ) -> None:
        user = theft.login.user
        endpoint = (await make_endpoint(resources, user, "https://8.8.8.8/told")).endpoint
        await theft.lock_down()
        was = await get_endpoint(user.id, endpoint.id)
        assert (was.status, was.disabled_reason) == (EndpointStatus.DISABLED, DisabledReason.LOCKED_DOWN)
        await databases.wallet["webhook_endpoints"].update_one(
            {"_id": endpoint.id}, {"$set": {"status": "active"}, "$inc": {"version": Int64(1)}}
        )
        await theft.lift(theft.admins[0], theft.admins[1])
        assert (await get_endpoint(user.id, endpoint.id)).status is EndpointStatus.DISABLED
        told = await theft.admins[2].events(subject_id=endpoint.id, action="webhook_endpoint.disabled")
        assert [event["details"]["why"] for event in told] == ["locked_down"] * 2


class TestAWalletThatIsOpenedAtTheMomentOfALockdown:
    async def test_is_frozen_or_not_opened(self, theft: Theft, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the opening reads is from before the lockdown. It commits when the lockdown has listed the wallets, and
        before it freezes any.
        """
        reading, listing = user_repository.find_known, wallet_repository.find_of_user
        has_read, may_commit = asyncio.Event(), asyncio.Event()

        async def read_and_wait(user_ids: Sequence[str], *, session: AsyncClientSession) -> KnownUsers:
            known = await reading(user_ids, session=session)
            monkeypatch.setattr(user_repository, "find_known", reading)
            has_read.set()
            await may_commit.wait()
            return known

        async def list_and_wait(user_id: str, *, before_id: str | None, limit: int) -> list[Wallet]:
            found = await listing(user_id, before_id=before_id, limit=limit)
            monkeypatch.setattr(wallet_repository, "find_of_user", listing)
            may_commit.set()
            await asyncio.wait((opening,))
            return found

        monkeypatch.setattr(user_repository, "find_known", read_and_wait)
        monkeypatch.setattr(wallet_repository, "find_of_user", list_and_wait)
        requester = Requester(theft.login.user.id, None)
        opening = asyncio.create_task(open_wallet(theft.databases.client, requester, "EUR", Policy()))
        await has_read.wait()
        assert {wallet["frozen"] for wallet in (await theft.lock_down())["wallets"]} == {"both"}
        with pytest.raises(AccountDeactivated):
            await opening


class Dying(Exception):
    pass


class DyingLedger:
    """The ledger of a process that dies before its second command."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._commands = ledger, 0

    async def execute(self, command: Command) -> Any:
        self._commands += 1
        if self._commands > 1:
            raise Dying
        return await self._ledger.execute(command)


class TestAProcessThatDiesInTheMiddle:
    async def test_leaves_a_lockdown_that_shows_and_that_the_same_act_finishes(
        self, theft: Theft, ledger: Ledger, settings: Settings
    ) -> None:
        dying = Lockdowns(
            theft.databases.client,
            DyingLedger(ledger),  # type: ignore[arg-type]  # stands for a process, not for the ledger
            EndedTokens(settings.access_token_lifetime_s),
        )
        admin = theft.admins[0].user
        caller = Caller(admin.id, ("user", "admin"), admin.token_version)
        with pytest.raises(Dying):
            await dying.lock_down(caller, theft.login.user.id, "Stolen password", None)
        assert theft.shown(await theft.admins[1].get(theft.path))["status"] == "incomplete"
        assert refusal(await theft.login.refresh()) == REFUSED
        assert (await theft.lock_down())["status"] == "locked"

        theft.shown(await theft.admins[1].post(f"{theft.path}/lift", reason="Came with a passport"))
        with pytest.raises(Dying):
            await dying.approve_lift(caller, theft.login.user.id, None)
        assert theft.shown(await theft.admins[1].get(theft.path))["status"] == "lifting"
        assert theft.shown(await theft.admins[1].post(f"{theft.path}/lift/approve"))["status"] == "none"
        assert await theft.freezes() == [_ACTIVE, _ACTIVE]
