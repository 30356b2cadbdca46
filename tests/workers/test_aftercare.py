"""A row whose work keeps raising, from its queue to the dead letters and back, by the worker's own drain."""

from typing import Any

import pytest

import workers.outbox
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.domain.permissions import Role
from service.repositories import outbox as outbox_repository
from service.services.callers import Caller
from service.services.dead_letters import replay
from service.startup import Resources
from tests.factories import make_user
from tests.workers.test_drain import GRACE_S
from workers.outbox import mails_drain

_LIMIT = 2


class Work:
    """Raises for one subject while it is broken, and ends all rows else."""

    def __init__(self, subject_id: str) -> None:
        self.subject_id, self.is_broken = subject_id, True
        self.done: list[str] = []

    async def __call__(self, row: OutboxRow, _desk: Any) -> None:
        if row.subject_id == self.subject_id:
            if self.is_broken:
                raise KeyError("a defect")
            self.done.append(row.id)
            await outbox_repository.delete(row)


async def test_a_row_that_keeps_raising_is_put_aside_and_done_once_it_is_replayed(
    resources: Resources, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, admin = await make_user(databases), await make_user(databases, roles=[Role.USER, Role.ADMIN])
    work = Work(user.id)
    monkeypatch.setattr(workers.outbox, "pursue_row", work)
    settings = resources.settings.model_copy(update={"worker_failure_limit": _LIMIT})
    row = outbox_row(OutboxTopic.PASSWORD_NOTICE, user.id, "a-request", utc_now())
    await outbox_repository.insert_many([row], session=None)
    outbox, letters = databases.wallet["outbox"], databases.wallet["dead_letters"]

    async def run_drain() -> None:
        await outbox.update_one({"_id": row.id}, {"$set": {"due_at": utc_now()}})
        drain = mails_drain(resources._replace(settings=settings))
        await drain.run()
        await drain.close(GRACE_S)

    await run_drain()
    assert await letters.find_one({"row_id": row.id}) is None
    await run_drain()
    assert await outbox.find_one({"_id": row.id}) is None
    letter = await letters.find_one({"row_id": row.id})
    assert letter is not None
    assert (letter["error_type"], letter["failures"], letter["request_id"]) == ("KeyError", _LIMIT, "a-request")
    work.is_broken = False
    caller = Caller(admin.id, tuple(admin.roles), admin.token_version)
    await replay(databases.client, caller, letter["_id"], None, resources.jobs)
    await run_drain()
    assert work.done == [row.id]
    assert await outbox.find_one({"_id": row.id}) is None
