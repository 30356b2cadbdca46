"""The worker's part in points: opening the wallet, crediting, and what happens when two do it at once."""

import asyncio
from datetime import timedelta
from typing import NamedTuple

import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.operations import Operation
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.ledger.committer import Ledger
from service.services.rewards import earn_points, ensure_points_wallet
from service.services.wallets import get_balances
from service.startup import Resources
from tests.factories import Account, change, deposit_of, make_account, make_user, run, settlement_of


class Scene(NamedTuple):
    """A deposit of 500.00 INR has settled, by the default rules five points; its user has no wallet for them yet."""

    account: Account
    row: OutboxRow
    ledger: Ledger


@pytest.fixture
async def scene(databases: Databases, resources: Resources) -> Scene:
    account = await make_account(databases)
    operation = await change(databases, deposit_of(account.wallet, 50_000))
    (settled,) = await run(databases, settlement_of(operation), policy=resources.ledger.policy)
    assert isinstance(settled.record, Operation)
    row = outbox_row(OutboxTopic.REWARD, operation.id, "a-request", settled.record.updated_at)
    return Scene(account, row, resources.ledger)


async def _points(user_id: str) -> list[tuple[str, int]]:
    return [(wallet.currency, wallet.available) for wallet in await get_balances(user_id)]


class TestEarning:
    async def test_opens_the_wallet_for_the_first_points(self, databases: Databases, scene: Scene) -> None:
        await earn_points(scene.row, scene.ledger, databases.client)
        assert await _points(scene.account.user.id) == [("INR", 50_000), ("PTS", 5)]
        reward = await databases.wallet["rewards"].find_one({"operation_id": scene.row.subject_id})
        assert reward is not None
        assert (reward["rules"], reward["request_id"]) == ({"deposits": 5}, "a-request")
        assert await databases.wallet["outbox"].find_one({"_id": scene.row.id}) is None

    async def test_by_several_workers_at_once_credits_them_once(self, databases: Databases, scene: Scene) -> None:
        await asyncio.gather(*(earn_points(scene.row, scene.ledger, databases.client) for _ in range(4)))
        assert await _points(scene.account.user.id) == [("INR", 50_000), ("PTS", 5)]

    async def test_of_an_operation_that_is_not_there_leaves_the_row_for_a_person(
        self, databases: Databases, resources: Resources
    ) -> None:
        row = outbox_row(OutboxTopic.REWARD, "dep_lost", None, utc_now())
        await databases.wallet["outbox"].insert_one({**row._asdict(), "_id": row.id})
        await earn_points(row, resources.ledger, databases.client)
        left = await databases.wallet["outbox"].find_one({"_id": row.id})
        assert left is not None
        assert left["due_at"] > row.due_at + timedelta(minutes=5)


class TestTheWalletForPoints:
    async def test_is_opened_once_however_many_want_it(self, databases: Databases) -> None:
        user = await make_user(databases)
        await asyncio.gather(*(ensure_points_wallet(databases.client, user.id) for _ in range(8)))
        await ensure_points_wallet(databases.client, user.id)
        assert await _points(user.id) == [("PTS", 0)]
