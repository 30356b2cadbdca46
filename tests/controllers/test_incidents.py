"""Incidents and returns over HTTP: lists, filters, decisions, and the money that could not be collected at once."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from service.controllers.incidents import IncidentView
from service.controllers.returns import ReturnView
from service.controllers.schemas import PageView
from service.database import Databases
from service.documents import User
from service.domain.operations import Operation
from service.domain.wallets import Wallet
from service.gateways.bank import BankReport, BankState
from service.services.bank_callbacks import apply_callback
from service.services.bank_reports import apply_report
from service.settings import Settings
from service.startup import Resources
from tests.factories import bearer, change, current, fund_wallet, make_account, settlement_of, withdrawal_of
from tests.refusals import refusal
from tests.staff import Staff

_REASON = {"reason": "The bank confirms that it was a mistake"}


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


async def _contradicted(resources: Resources, amount: int = 1_000) -> tuple[Operation, str]:
    """A settled withdrawal that the bank calls failed afterwards, and the incident."""
    wallet = (await make_account(resources.databases, balance=5_000)).wallet
    asked = await change(resources.databases, withdrawal_of(wallet, amount))
    operation = await change(resources.databases, settlement_of(asked))
    report = BankReport(operation.id, BankState.FAILED, amount, "INR", "bnk_test", "declined", "Declined")
    applied = await apply_report(operation, report, resources.ledger, callback_id="msg_1")
    assert applied.incident_id is not None
    return operation, applied.incident_id


async def _charged_back(resources: Resources) -> tuple[Wallet, str]:
    """A deposit of 1000 of which 600 were spent before the bank took it back: the wallet, and the return."""
    account = await make_account(resources.databases)
    deposit = await fund_wallet(resources.databases, account.wallet, 1_000)
    asked = await change(resources.databases, withdrawal_of(account.wallet, 600))
    await change(resources.databases, settlement_of(asked))
    payload = {"type": "payment.returned", "reference": deposit.id, "amount": 1_000, "currency": "INR"}
    payload |= {"bank_reference": "ret_1", "return_code": "chargeback", "return_message": None}
    row: dict[str, Any] = {"_id": f"msg_{uuid4().hex}", "payload": payload, "request_id": None, "attempts": 1}
    await apply_callback(row, resources.ledger)
    return account.wallet, deposit.id.replace("dep_", "rtn_")


async def _left_to_a_person(resources: Resources) -> tuple[Wallet, str]:
    """The same as earlier releases left it: nothing has moved, and an admin has to collect it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.ledger.debts.MAX_DEBTS", 0)
        wallet, return_id = await _charged_back(resources)
    row = {"$set": {"trouble": "insufficient_funds"}, "$unset": {"owed": ""}}
    await resources.databases.wallet["returns"].update_one({"_id": return_id}, row)
    await resources.databases.wallet["wallets"].update_one({"_id": wallet.id}, {"$unset": {"owed": "", "debts": ""}})
    return wallet, return_id


class TestIncidents:
    async def test_are_shown_with_what_was_said_and_what_stands(self, boss: Staff, resources: Resources) -> None:
        operation, incident_id = await _contradicted(resources)
        answer = await boss.get(f"/admin/incidents/{incident_id}")
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        IncidentView.model_validate(shown)
        assert (shown["kind"], shown["status"]) == ("failure_after_success", "open")
        assert (shown["operation_id"], shown["user_id"]) == (operation.id, operation.user_id)
        assert (shown["said"]["status"], shown["said"]["callback_id"]) == ("failed", "msg_1")
        assert shown["stands"]["status"] == "success"
        (event,) = await boss.events(subject_id=incident_id)
        assert (event["action"], event["actor_id"]) == ("incident.opened", "bank")

    async def test_are_listed_newest_first_by_what_is_asked_for(self, boss: Staff, resources: Resources) -> None:
        made = [await _contradicted(resources) for _ in range(3)]
        pages: list[str] = []
        wanted = {"limit": "2", "status": "open", "kind": "failure_after_success"}
        while True:
            answer = await boss.get("/admin/incidents", **wanted)
            PageView[IncidentView].model_validate(answer.json())
            pages += [one["id"] for one in answer.json()["data"]]
            if not answer.json()["has_more"]:
                break
            wanted["cursor"] = answer.json()["next_cursor"]
        ids = [incident_id for _, incident_id in made]
        assert [one for one in pages if one in ids] == ids[::-1]
        assert len(pages) == len(set(pages))
        operation, incident_id = made[0]
        (one,) = (await boss.get("/admin/incidents", reference=operation.id)).json()["data"]
        assert one["id"] == incident_id
        assert (await boss.get("/admin/incidents", reference=operation.id, status="resolved")).json()["data"] == []

    async def test_are_explained_then_resolved_and_each_is_accounted_for(
        self, boss: Staff, resources: Resources
    ) -> None:
        _, incident_id = await _contradicted(resources)
        explained = await boss.post(f"/admin/incidents/{incident_id}/explain", **_REASON)
        assert (explained.status_code, explained.json()["status"]) == (200, "explained")
        assert explained.json()["note"] == _REASON["reason"]
        again = await boss.post(f"/admin/incidents/{incident_id}/explain", **_REASON)
        assert refusal(again) == (409, "illegal_transition")
        resolved = await boss.post(f"/admin/incidents/{incident_id}/resolve", reason="Paid back by the bank")
        assert (resolved.json()["status"], resolved.json()["decided_by"]) == ("resolved", boss.user.id)
        for what in ("explain", "resolve"):
            assert refusal(await boss.post(f"/admin/incidents/{incident_id}/{what}", **_REASON))[0] == 409
        actions = [event["action"] for event in await boss.events(subject_id=incident_id)]
        assert actions == ["incident.resolved", "incident.explained", "incident.opened"]

    async def test_about_ones_own_money_are_for_another_admin(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, boss: Staff, resources: Resources
    ) -> None:
        operation, incident_id = await _contradicted(resources)
        await databases.wallet["users"].update_one({"_id": operation.user_id}, {"$set": {"roles": ["user", "admin"]}})
        owner = await User.get(operation.user_id)
        assert owner is not None
        for what in ("explain", "resolve"):
            refused = await Staff(api, owner, settings).post(f"/admin/incidents/{incident_id}/{what}", **_REASON)
            assert refusal(refused) == (403, "second_admin_required")
        assert (await boss.post(f"/admin/incidents/{incident_id}/resolve", **_REASON)).status_code == 200

    async def test_are_for_admins(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, boss: Staff, resources: Resources
    ) -> None:
        _, incident_id = await _contradicted(resources)
        user = await Staff.hire(api, databases, settings)
        for path in ("/admin/incidents", f"/admin/incidents/{incident_id}", "/admin/returns"):
            assert (await user.get(path)).status_code == 403
        assert (await user.post(f"/admin/incidents/{incident_id}/resolve", **_REASON)).status_code == 403
        assert (await boss.get("/admin/incidents/inc_none")).status_code == 404
        assert (await boss.get("/admin/returns/rtn_none")).status_code == 404


class TestReturns:
    async def test_show_what_is_still_owed(self, boss: Staff, resources: Resources, databases: Databases) -> None:
        wallet, return_id = await _charged_back(resources)
        shown = (await boss.get(f"/admin/returns/{return_id}")).json()
        ReturnView.model_validate(shown)
        assert (shown["status"], shown["trouble"], shown["type"]) == ("owed", "insufficient_funds", "deposit")
        assert (shown["amount"], shown["collected"], shown["owed"]) == (1_000, 400, 600)
        owed = (await boss.get("/admin/returns", status="owed", limit="100")).json()["data"]
        assert return_id in [one["id"] for one in owed]
        # Nobody has to collect it: whatever comes in pays it.
        assert refusal(await boss.post(f"/admin/returns/{return_id}/collect", **_REASON)) == (409, "illegal_transition")
        assert refusal(await boss.post(f"/wallets/{wallet.id}/unfreeze", **_REASON)) == (422, "wallet_owes")
        await fund_wallet(databases, wallet, 700)
        shown = (await boss.get(f"/admin/returns/{return_id}")).json()
        assert (shown["status"], shown["trouble"], shown["collected"], shown["owed"]) == ("success", None, 1_000, 0)
        assert (await boss.post(f"/wallets/{wallet.id}/unfreeze", **_REASON)).json()["status"] == "active"

    async def test_that_an_earlier_release_left_are_collected_by_an_admin_and_then_owed(
        self, boss: Staff, resources: Resources, databases: Databases
    ) -> None:
        wallet, return_id = await _left_to_a_person(resources)
        shown = (await boss.get(f"/admin/returns/{return_id}")).json()
        ReturnView.model_validate(shown)
        assert (shown["status"], shown["collected"], shown["owed"]) == ("requires_review", 0, 0)
        waiting = (await boss.get("/admin/returns", status="requires_review", limit="100")).json()["data"]
        assert return_id in [one["id"] for one in waiting]
        assert refusal(await boss.post(f"/wallets/{wallet.id}/unfreeze", **_REASON)) == (422, "wallet_owes")
        collected = await boss.post(f"/admin/returns/{return_id}/collect", "once", **_REASON)
        assert collected.status_code == 200, collected.text
        answer = collected.json()
        assert (answer["status"], answer["trouble"], answer["owed"]) == ("owed", "insufficient_funds", 600)
        assert answer["decided_by"] == boss.user.id
        again = await boss.post(f"/admin/returns/{return_id}/collect", "once", **_REASON)
        assert again.content == collected.content
        assert refusal(await boss.post(f"/admin/returns/{return_id}/collect", **_REASON)) == (409, "illegal_transition")
        await fund_wallet(databases, wallet, 700)
        after = await current(wallet)
        assert (after.available, after.open_operations, after.status) == (100, 0, "frozen")

    async def test_of_ones_own_are_collected_by_another_admin(
        self, api: httpx.AsyncClient, boss: Staff, resources: Resources, databases: Databases, settings: Settings
    ) -> None:
        wallet, return_id = await _left_to_a_person(resources)
        await fund_wallet(databases, wallet, 700)
        await databases.wallet["users"].update_one({"_id": wallet.user_id}, {"$set": {"roles": ["user", "admin"]}})
        owner = await User.get(wallet.user_id)
        assert owner is not None
        refused = await Staff(api, owner, settings).post(f"/admin/returns/{return_id}/collect", **_REASON)
        assert refusal(refused) == (403, "second_admin_required")
        assert (await boss.post(f"/admin/returns/{return_id}/collect", **_REASON)).status_code == 200

    async def test_show_on_the_operation_to_its_owner(
        self, api: httpx.AsyncClient, resources: Resources, settings: Settings
    ) -> None:
        wallet, return_id = await _charged_back(resources)
        owner = await User.get(wallet.user_id)
        assert owner is not None
        deposit_id = return_id.replace("rtn_", "dep_")
        headers = bearer(owner, settings)
        shown = (await api.get(f"/api/v1/deposits/{deposit_id}", headers=headers)).json()
        assert (shown["status"], shown["return_id"]) == ("success", return_id)
        assert shown["returned_at"] is not None
