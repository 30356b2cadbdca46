"""What metrics read of MongoDB: each by an index, whatever else there is."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.repositories import figures as figure_repository
from service.services.integrity import find_rounds
from service.services.workers import look_at_queues
from tests.servers import Admin


@contextmanager
def profiled(admin: Admin, *names: str) -> Iterator[list[dict[str, Any]]]:
    """What the server did meanwhile, in the databases of these names."""
    found: list[dict[str, Any]] = []
    for name in names:
        admin[name].command("profile", 2)
    try:
        yield found
    finally:
        for name in names:
            admin[name].command("profile", 0)
            found += admin[name]["system.profile"].find(
                {"op": {"$in": ["query", "command"]}, "planSummary": {"$exists": True}}
            )
            admin[name]["system.profile"].drop()


class TestReads:
    async def test_go_by_an_index(self, databases: Databases, admin: Admin) -> None:
        now = utc_now()
        ids = [uuid4().hex for _ in range(5)]
        inbox: AsyncCollection[dict[str, Any]] = databases.wallet["bank_callbacks"]
        rows = [{"_id": one, "payload": {"type": "none"}, "received_at": now, "due_at": now} for one in ids]
        await inbox.insert_many(rows)
        try:
            with profiled(admin, databases.wallet.name, databases.bank.name) as done:
                await look_at_queues(now + timedelta(seconds=1))
                await figure_repository.count_open_breaks()
                await figure_repository.count_open_incidents()
                await find_rounds()
        finally:
            await inbox.update_many({"_id": {"$in": ids}}, {"$unset": {"due_at": ""}})
        plans = {(one["ns"].partition(".")[2], one["planSummary"]) for one in done}
        assert len({name for name, _ in plans}) >= 8
        assert [plan for plan in plans if plan[1].startswith("COLLSCAN")] == []

    async def test_count_what_is_due_and_nothing_that_is_for_later(self, databases: Databases) -> None:
        now = utc_now()
        inbox: AsyncCollection[dict[str, Any]] = databases.wallet["bank_callbacks"]
        long_ago = now - timedelta(days=400)
        before = (await look_at_queues(now)).queues[Queue.CALLBACKS]
        ids = [uuid4().hex for _ in range(3)]
        times = [long_ago, now, now + timedelta(hours=1)]
        await inbox.insert_many(
            [
                {"_id": one, "payload": {"type": "none"}, "received_at": now, "due_at": at}
                for one, at in zip(ids, times, strict=True)
            ]
        )
        try:
            found = (await look_at_queues(now)).queues[Queue.CALLBACKS]
        finally:
            await inbox.update_many({"_id": {"$in": ids}}, {"$unset": {"due_at": ""}})
        assert (found.due, found.rows) == (before.due + 2, before.rows + 3)
        assert found.oldest_due_at == long_ago

    @pytest.mark.parametrize("collection", ["breaks", "incidents"])
    async def test_of_people_count_what_is_open(self, databases: Databases, admin: Admin, collection: str) -> None:
        rows = admin[databases.wallet.name][collection]
        one = {"_id": uuid4().hex, "kind": "wallet_balance", "state": "open", "status": "open"}

        async def count() -> int:
            if collection == "incidents":
                return await figure_repository.count_open_incidents()
            return (await figure_repository.count_open_breaks())["wallet_balance"]

        before = await count()
        # As the validator would not have it: what counts is how it is found.
        admin[databases.wallet.name].command("insert", collection, documents=[one], bypassDocumentValidation=True)
        try:
            assert await count() == before + 1
            rows.update_one(
                {"_id": one["_id"]},
                {"$set": {"state": "resolved", "status": "resolved"}},
                bypass_document_validation=True,
            )
            assert await count() == before
        finally:
            rows.delete_one({"_id": one["_id"]})
