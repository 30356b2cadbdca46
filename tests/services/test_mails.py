"""Mails on their way from the outbox to a real mail server: never lost, not for ever, and at most sent twice."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from service.documents import User
from service.domain.dead_letters import Queue
from service.domain.outbox import MAIL_TOPICS, OutboxRow, OutboxTopic
from service.gateways.mailbox import Mail, Mailbox
from service.gateways.smtp_mailbox import SmtpMailbox
from service.repositories import outbox as outbox_repository
from service.services.dead_letters import Claimed
from service.services.outbox import BANK_TOPICS, OTHER_TOPICS, pursue_row
from service.services.password_changes import request_reset
from service.services.settlement import Desk
from service.startup import Resources
from tests.factories import make_account
from tests.mail_server import MailServer, running_mail_server
from workers.aftercare import QueueAftercare


class _Died(BaseException):
    """As if the power had gone: nobody catches it."""


class Post(NamedTuple):
    """Somebody who asked for a mail, and a worker that has it to send."""

    resources: Resources
    server: MailServer
    mailbox: Mailbox
    user: User

    async def row(self) -> dict[str, Any] | None:
        outbox = self.resources.databases.wallet["outbox"]
        row: dict[str, Any] | None = await outbox.find_one(
            {"topic": OutboxTopic.PASSWORD_RESET, "subject_id": self.user.email}
        )
        return row

    async def visit(self, mailbox: Mailbox | None = None) -> None:
        """As a drain does it."""
        found = await self.row()
        assert found is not None
        row = outbox_repository._from_row(found)
        resources = self.resources
        desk = Desk(
            resources.ledger,
            resources.bank,
            mailbox or self.mailbox,
            resources.settings,
            resources.databases.client,
        )
        aftercare: QueueAftercare[OutboxRow] = QueueAftercare(
            Queue.OUTBOX, resources, lambda row: [Claimed(row.id, row.attempts, row.claim)]
        )
        try:
            await pursue_row(row, desk)
        except Exception as error:  # noqa: BLE001 a drain's last net
            await aftercare.failed(row, error)

    @property
    def arrived(self) -> list[str]:
        return [str(letter["Message-ID"]) for letter in self.server.mails_to(self.user.email)]


@pytest.fixture
async def post(resources: Resources) -> AsyncIterator[Post]:
    user = (await make_account(resources.databases)).user
    async with running_mail_server() as server:
        settings = resources.settings.model_copy(
            update={"mail": "smtp", "mail_host": "127.0.0.1", "mail_port": server.port, "mail_tls": "none"}
        )
        await request_reset(resources.jobs, user.email, None)
        yield Post(resources, server, SmtpMailbox(settings), user)


async def test_what_is_refused_for_now_is_sent_later(post: Post) -> None:
    post.server.answers["DATA"] = ["451 4.3.0 later", "421 4.3.2 going down"]
    before = await post.row()
    for failures in (1, 2):
        await post.visit()
        row = await post.row()
        assert row is not None
        assert before is not None
        assert row["failures"] == failures
        assert row["due_at"] > before["due_at"]
    await post.visit()
    assert await post.row() is None
    assert len(post.arrived) == 1


async def test_what_is_refused_for_good_is_put_aside_at_once(post: Post) -> None:
    post.server.answers["RCPT"] = ["550 5.1.1 no such user"]
    await post.visit()
    assert await post.row() is None
    letters = post.resources.databases.wallet["dead_letters"]
    letter = await letters.find_one({"subject_id": post.user.email})
    assert letter is not None
    assert (letter["error_type"], letter["failures"], letter["message"][:9]) == ("MailRefused", 1, "error 550")
    assert post.arrived == []


async def test_a_process_that_dies_between_sending_and_noting_sends_it_twice_never_not_at_all(post: Post) -> None:
    class Dying:
        async def send(self, message: Mail) -> None:
            await post.mailbox.send(message)
            raise _Died

    with pytest.raises(_Died):
        await post.visit(Dying())
    await post.visit()
    first, second = post.arrived
    assert first == second
    assert await post.row() is None


def test_a_mail_server_that_hangs_keeps_nothing_but_mails_waiting() -> None:
    assert sorted((*BANK_TOPICS, *MAIL_TOPICS, *OTHER_TOPICS)) == sorted(OutboxTopic)
