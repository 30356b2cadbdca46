"""The audit trail of what must not be felt: written later, once, and not lost by an outage or a stop."""

import asyncio

import httpx
import pytest

from service.database import Databases
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.identifiers import Prefix, new_id
from service.services import audit_events
from service.services.audit_events import ANYBODY, AuditTrail, new_audit_event
from service.settings import Settings
from service.startup import Resources
from tests.factories import PASSWORD, make_email, make_user
from tests.logins import LOGIN
from tests.logs import own_logs
from tests.servers import Admin, fail_point


def event_of(user_id: str) -> AuditEvent:
    return new_audit_event(AuditAction.USER_LOGIN_REFUSED, actor_id=ANYBODY, subject_id=user_id, request_id=None)


async def written(databases: Databases, user_id: str) -> int:
    return await databases.wallet["audit_events"].count_documents({"subject_id": user_id})


class TestRefusedLogins:
    async def test_are_written_for_those_who_exist_with_the_cause(
        self, api: httpx.AsyncClient, databases: Databases, resources: Resources
    ) -> None:
        known, out = await make_user(databases), await make_user(databases, is_active=False)
        for email, password in ((known.email, "another-kettle-41"), (out.email, PASSWORD), (make_email(), PASSWORD)):
            answer = await api.post(LOGIN, json={"email": email, "password": password})
            assert answer.status_code == 401
        await resources.audit_trail.write()
        rows = [await databases.wallet["audit_events"].find_one({"subject_id": user.id}) for user in (known, out)]
        told = [(row["action"], row["actor_id"], row["details"], row["request_id"] is None) for row in rows if row]
        assert told == [
            ("user.login_refused", "anybody", {"cause": "wrong_secret"}, False),
            ("user.login_refused", "anybody", {"cause": "deactivated"}, False),
        ]

    async def test_of_nobody_leave_nothing(
        self, api: httpx.AsyncClient, databases: Databases, resources: Resources
    ) -> None:
        answer = await api.post(LOGIN, json={"email": make_email(), "password": PASSWORD})
        await resources.audit_trail.write()
        of_it = {"request_id": answer.json()["request_id"]}
        assert await databases.wallet["audit_events"].count_documents(of_it) == 0


class TestTheTrail:
    @pytest.fixture
    async def user_id(self, databases: Databases) -> str:
        assert databases
        return new_id(Prefix.USER)

    async def test_writes_by_itself(self, databases: Databases, user_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audit_events, "_PAUSE_S", 0)
        trail = AuditTrail()
        for _ in range(3):
            trail.note(event_of(user_id))
        assert trail._task is not None
        await trail._task
        assert await written(databases, user_id) == 3
        trail.note(event_of(user_id))
        await trail._task
        assert await written(databases, user_id) == 4

    async def test_writes_what_is_waiting_when_it_is_closed(self, databases: Databases, user_id: str) -> None:
        trail = AuditTrail()
        for _ in range(1_200):
            trail.note(event_of(user_id))
        await trail.close()
        assert await written(databases, user_id) == 1_200
        await trail.close()
        assert await written(databases, user_id) == 1_200

    async def test_writes_each_once_whoever_writes_at_once(
        self, databases: Databases, user_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_events, "_AT_ONCE", 3)
        trail = AuditTrail()
        for _ in range(20):
            trail.note(event_of(user_id))
        await asyncio.gather(*(trail.write() for _ in range(3)))
        await trail.close()
        assert await written(databases, user_id) == 20

    async def test_keeps_what_the_database_did_not_take(
        self, databases: Databases, user_id: str, admin: Admin, settings: Settings
    ) -> None:
        trail = AuditTrail()
        trail.note(event_of(user_id))
        events = f"{settings.database}.audit_events"
        # "Not primary"; the driver's own retry meets with it too.
        outage = fail_point(admin, 2, failCommands=["insert"], errorCode=10107, namespace=events)
        with own_logs() as logs, outage:
            await trail.write()
        assert [line["event"] for line in logs] == ["audit.write_failed"]
        assert await written(databases, user_id) == 0
        await trail.close()
        assert await written(databases, user_id) == 1

    async def test_takes_an_event_that_is_there_already_for_written(self, databases: Databases, user_id: str) -> None:
        trail, event = AuditTrail(), event_of(user_id)
        for one in (event, event, event_of(user_id)):
            trail.note(one)
        await trail.close()
        assert await written(databases, user_id) == 2

    async def test_drops_with_a_line_in_the_log_what_is_too_much(
        self, databases: Databases, user_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_events, "_WAITING_LIMIT", 2)
        trail = AuditTrail()
        with own_logs() as logs:
            for _ in range(3):
                trail.note(event_of(user_id))
        assert [(line["event"], line["subject_id"]) for line in logs] == [("audit.event_dropped", user_id)]
        await trail.close()
        assert await written(databases, user_id) == 2
