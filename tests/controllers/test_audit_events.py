"""Audit events over HTTP and in the database: complete, newest first, for admins only, and there to stay."""

from datetime import timedelta

import httpx
import pytest
from pymongo.errors import OperationFailure

from service.controllers.audit_events import AuditEventView
from service.controllers.schemas import PageView
from service.database import Databases
from service.domain.clock import to_rfc3339, utc_now
from service.settings import Settings
from tests.factories import make_account
from tests.refusals import refusal
from tests.staff import Staff


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


@pytest.fixture
async def frozen(boss: Staff, databases: Databases) -> list[str]:
    """Three wallets that the admin has frozen, one after the other."""
    accounts = [await make_account(databases) for _ in range(3)]
    for number, account in enumerate(accounts):
        headers = {**boss.headers, "X-Request-ID": f"request-of-wallet-{number}"}
        path = f"/api/v1/wallets/{account.wallet.id}/freeze"
        answer = await boss.api.post(path, json={"direction": "out", "reason": f"No. {number}"}, headers=headers)
        assert answer.status_code == 200, answer.text
    return [account.wallet.id for account in accounts]


class TestAnEvent:
    async def test_tells_who_did_what_to_what_when_and_why(self, boss: Staff, frozen: list[str]) -> None:
        answer = await boss.get("/admin/audit-events", subject_id=frozen[1])
        assert answer.status_code == 200, answer.text
        assert PageView[AuditEventView](**answer.json()).model_dump(mode="json") == answer.json()
        (event,) = answer.json()["data"]
        assert event == {
            "id": event["id"],
            "at": event["at"],
            "actor_id": boss.user.id,
            "action": "wallet.frozen",
            "subject_id": frozen[1],
            "reason": "No. 1",
            "details": {"direction": "out", "was_status": "active", "was_direction": None},
            "request_id": "request-of-wallet-1",
        }
        assert event["id"].startswith("aud_")

    async def test_can_neither_be_changed_nor_deleted_by_the_service_itself(
        self, databases: Databases, frozen: list[str]
    ) -> None:
        events = databases.wallet["audit_events"]
        for attempt in (
            events.update_one({"subject_id": frozen[0]}, {"$set": {"reason": "Nothing"}}),
            events.delete_one({"subject_id": frozen[0]}),
            events.find_one_and_replace({"subject_id": frozen[0]}, {}),
            events.drop(),
        ):
            with pytest.raises(OperationFailure, match="not authorized") as refused:
                await attempt
            assert refused.value.code == 13


class TestTheList:
    async def test_is_newest_first_page_by_page(self, boss: Staff, frozen: list[str]) -> None:
        first = (await boss.get("/admin/audit-events", actor_id=boss.user.id, limit=2)).json()
        assert [event["subject_id"] for event in first["data"]] == [frozen[2], frozen[1]]
        query = {"actor_id": boss.user.id, "limit": 2, "cursor": first["next_cursor"]}
        second = (await boss.get("/admin/audit-events", **query)).json()
        assert [event["subject_id"] for event in second["data"]] == [frozen[0]]
        assert second["has_more"] is False

    async def test_can_be_narrowed(self, boss: Staff, frozen: list[str]) -> None:
        await boss.post(f"/wallets/{frozen[0]}/unfreeze", reason="Found")
        mine = {"actor_id": boss.user.id}
        soon = to_rfc3339(utc_now() + timedelta(minutes=1))
        for query, count in (
            (mine, 4),
            (mine | {"action": "wallet.unfrozen"}, 1),
            (mine | {"action": "wallet.closed"}, 0),
            (mine | {"subject_id": frozen[0]}, 2),
            (mine | {"created_to": soon}, 4),
            (mine | {"created_from": soon}, 0),
            ({"actor_id": "usr_nobody"}, 0),
        ):
            assert len(await boss.events(**query)) == count, query

    @pytest.mark.parametrize("role", [(), ("service",)], ids=["nobody special", "a service"])
    async def test_is_for_admins(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, role: tuple[str, ...]
    ) -> None:
        somebody = await Staff.hire(api, databases, settings, *role)
        assert refusal(await somebody.get("/admin/audit-events")) == (403, "forbidden")
        assert refusal(await api.get("/api/v1/admin/audit-events")) == (401, "unauthenticated")
