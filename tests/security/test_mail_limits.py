"""Nobody's mailbox is filled by what somebody else, or a stolen token, calls for; and what waits still comes."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from service.database import Databases
from service.documents import User
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.outbox import MAIL_TOPICS, OutboxRow, OutboxTopic, outbox_id, outbox_row
from service.gateways.mailbox import Mail, MailboxUnavailable
from service.repositories import audit_events as audit_repository
from service.repositories import outbox as outbox_repository
from service.services.audit_events import new_audit_event
from service.services.mail_limits import KIND_OF_MAIL, MailLimits
from service.services.outbox import pursue_row
from service.services.settlement import Desk
from service.startup import Resources
from tests.factories import make_user

_PER_HOUR = 3


class Post:
    """Notices to one user, and what of them arrived."""

    def __init__(self, resources: Resources, user: User) -> None:
        self.user = user
        self.arrived: list[Mail] = []
        self.is_away = False
        settings = resources.settings.model_copy(update={"mails_per_hour": _PER_HOUR})
        limits = MailLimits(resources.rate_limits, settings)
        self._desk = Desk(resources.ledger, resources.bank, self, settings, resources.databases.client, limits)
        self._outbox = resources.databases.wallet["outbox"]

    async def send(self, message: Mail) -> None:
        if self.is_away:
            raise MailboxUnavailable("away")
        self.arrived.append(message)

    async def rotated(self) -> OutboxRow:
        row = await self.rotation()
        await self.visit(row)
        return row

    async def rotation(self) -> OutboxRow:
        """As after POST /webhook-endpoints/{id}/rotate-secret."""
        event = new_audit_event(
            AuditAction.WEBHOOK_SECRET_ROTATED,
            actor_id=self.user.id,
            subject_id="whe_1",
            request_id=None,
            host="example.com",
        )
        await audit_repository.insert(event, session=None)
        return await self._keep(outbox_row(OutboxTopic.WEBHOOK_NOTICE, event.id, None, event.at))

    async def password_changed(self) -> None:
        row = outbox_row(OutboxTopic.PASSWORD_NOTICE, self.user.id, None, utc_now())
        await self.visit(await self._keep(row._replace(id=outbox_id(OutboxTopic.PASSWORD_NOTICE, uuid4().hex))))

    async def _keep(self, row: OutboxRow) -> OutboxRow:
        await outbox_repository.insert_many([row], session=None)
        return row

    async def visit(self, row: OutboxRow) -> None:
        await pursue_row(row, self._desk)

    async def waiting(self, rows: list[OutboxRow]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._outbox.find({"_id": {"$in": [row.id for row in rows]}}).to_list()
        return found


@pytest.fixture
async def post(resources: Resources, databases: Databases) -> Post:
    return Post(resources, await make_user(databases))


class TestMailsToOneAddress:
    async def test_are_so_many_an_hour_and_the_rest_waits(self, post: Post) -> None:
        rows = [await post.rotated() for _ in range(_PER_HOUR + 2)]
        assert len(post.arrived) == _PER_HOUR
        waiting = await post.waiting(rows)
        assert [row["last_outcome"] for row in waiting] == ["held_back"] * 2
        assert all(row["due_at"] > utc_now() + timedelta(minutes=1) for row in waiting)

    async def test_of_one_kind_hide_none_of_another(self, post: Post) -> None:
        """Who has a stolen token cannot keep the owner from hearing of a new password by calling for other mails."""
        for _ in range(_PER_HOUR + 2):
            await post.rotated()
        await post.password_changed()
        assert post.arrived[-1].subject == "Your password was changed"

    async def test_that_a_server_does_not_take_are_counted_once(self, post: Post) -> None:
        post.is_away = True
        row = await post.rotation()
        for _ in range(_PER_HOUR + 1):
            with pytest.raises(MailboxUnavailable):
                await post.visit(row)
        post.is_away = False
        await post.visit(row)
        assert len(post.arrived) == 1

    async def test_are_of_others_no_concern(self, post: Post, resources: Resources, databases: Databases) -> None:
        for _ in range(_PER_HOUR + 1):
            await post.rotated()
        other = Post(resources, await make_user(databases))
        await other.rotated()
        assert len(other.arrived) == 1

    def test_are_of_a_kind_whatever_they_are_about(self) -> None:
        assert set(KIND_OF_MAIL) == set(MAIL_TOPICS)
