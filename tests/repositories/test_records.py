"""Records as they come back from their collections, some of which another release has written."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pymongo import MongoClient

from service.database import Databases
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation
from service.repositories import records as record_repository
from service.settings import Settings
from tests.factories import change, make_funded_wallet, withdrawal_of

Write = Callable[..., Awaitable[str]]


@pytest.fixture
async def withdrawal(databases: Databases) -> Operation:
    return await change(databases, withdrawal_of(await make_funded_wallet(databases, 1_000), 500))


@pytest.fixture
async def write(
    withdrawal: Operation, databases: Databases, admin: MongoClient[dict[str, Any]], settings: Settings
) -> AsyncIterator[Write]:
    """A withdrawal as this release would not write it. No other test is to find it."""
    written: list[str] = []
    collection = admin[settings.database]["withdrawals"]

    async def do(**fields: Any) -> str:
        row = await databases.wallet["withdrawals"].find_one({"_id": withdrawal.id})
        assert row is not None
        written.append(new_id(Prefix.WITHDRAWAL))
        collection.insert_one({**row, "_id": written[-1], **fields}, bypass_document_validation=True)
        return written[-1]

    yield do
    collection.delete_many({"_id": {"$in": written}})


class TestAnotherRelease:
    async def test_fields_of_the_next_one_are_passed_over(self, withdrawal: Operation, write: Write) -> None:
        theirs = await write(
            field_of_the_next_release=1, attempt_log=[{"at": withdrawal.created_at, "call": "find", "by": "x"}]
        )
        found = await record_repository.find(theirs, Operation)
        assert found is not None
        (attempt,) = found.attempt_log
        assert found == withdrawal._replace(id=theirs, attempt_log=(attempt,))

    async def test_a_record_that_cannot_be_read_is_the_trouble_of_who_asks_for_it(
        self, withdrawal: Operation, write: Write
    ) -> None:
        theirs = await write(status="status_of_the_next_release")
        ours, raised = await asyncio.gather(
            *(record_repository.find_soon(record_id, Operation) for record_id in (withdrawal.id, theirs)),
            return_exceptions=True,
        )
        assert ours == withdrawal
        assert isinstance(raised, ValueError)
