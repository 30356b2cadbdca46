"""The task that closes hours."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from service.background import end
from service.domain.accounts import closed_through
from service.domain.clock import utc_now
from service.startup import Resources
from tests.servers import Admin, fail_point
from workers import account_sums
from workers.account_sums import close_hours_for_ever

_INTERNAL_ERROR = 1


@pytest.fixture
async def task(
    resources: Resources, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator["asyncio.Task[None]"]:
    """Beginning with a database failure that repeating at once does not mend."""
    monkeypatch.setattr(account_sums, "_INTERVAL_S", 0.01)
    namespace = f"{resources.settings.database}.account_sums"
    with fail_point(admin, 1, failCommands=["find"], namespace=namespace, errorCode=_INTERNAL_ERROR):
        task = asyncio.create_task(close_hours_for_ever(resources))
        yield task
        await end(task)


class TestTheTask:
    async def test_closes_what_is_over_and_goes_on_after_a_failure(
        self, resources: Resources, task: "asyncio.Task[None]"
    ) -> None:
        # The server's logical clock may be some seconds behind.
        due = closed_through(utc_now() - timedelta(seconds=15))
        async with asyncio.timeout(10):
            while not await resources.databases.wallet["account_sums"].count_documents({"_id": {"$gte": due}}):  # noqa: ASYNC110 the database rings no bell
                await asyncio.sleep(0.01)
        assert not task.done()
