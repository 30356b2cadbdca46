"""Scripts whose settings state other floors than the stored ones go by those that are stored.

Only `migrate` applies the stated floors, and only `correct_positions` corrects portions.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from scripts import check_ledger, checkpoint, correct_positions, correct_sums, migrate, reconcile, rotate_keys
from seed import __main__ as seed
from service.domain.house_positions import POOL
from service.services.house_positions import apply_floors
from service.settings import Settings
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.factories import make_funded_wallet
from tests.servers import Servers

Script = Callable[[Settings], Awaitable[object]]
_PAIR = ("bank", "INR")
_STORED, _STATED = -700, -50
_NO_WORK: Mapping[str, Script] = {
    "reconcile": lambda settings: reconcile._reconcile(settings, [], replay=True),
    "check_ledger": lambda settings: check_ledger._inspect_shown(settings, timedelta(0)),
    "checkpoint": checkpoint._take,
    "correct_sums": lambda settings: correct_sums._correct(settings, "A test", "ops"),
    "rotate_keys": lambda settings: rotate_keys._rotate(settings, dry_run=False),
}


@pytest.fixture(scope="module")
async def books(servers: Servers, resources: Resources) -> AsyncIterator[OwnBooks]:
    async with own_books(servers, resources, house_floors={}) as own:
        await apply_floors(own.databases.client, {_PAIR: _STORED})
        await make_funded_wallet(own.databases)
        yield own


@pytest.fixture
def stated(books: OwnBooks) -> Settings:
    """Of a script that was started with other floors."""
    return books.resources.settings.model_copy(update={"house_floors": {"bank": {"INR": _STATED}}})


async def _positions(books: OwnBooks) -> dict[str, dict[str, Any]]:
    return {row["_id"]: row for row in await books.admin.wallet["house_positions"].find().to_list()}


async def _floor(books: OwnBooks) -> int | None:
    account, currency = _PAIR
    wanted = {"account": account, "currency": currency, "owner": POOL}
    row = await books.admin.wallet["house_positions"].find_one(wanted)
    assert row is not None
    floor: int | None = row["floor"]
    return floor


async def _floor_changes(books: OwnBooks) -> int:
    return await books.admin.wallet["audit_events"].count_documents({"action": "house_floor.changed"})


async def _house_breaches(books: OwnBooks) -> list[str]:
    found = await check_ledger.check_ledger(books.admin)
    return [breach.rule for breach in found if breach.rule.startswith("house_")]


class TestAScript:
    @pytest.mark.parametrize("name", _NO_WORK)
    async def test_that_only_looks_changes_no_position(self, books: OwnBooks, stated: Settings, name: str) -> None:
        before, changes = await _positions(books), await _floor_changes(books)
        await _NO_WORK[name](stated)
        assert (await _positions(books), await _floor_changes(books)) == (before, changes)

    async def test_that_seeds_moves_money_and_no_floor(self, books: OwnBooks, stated: Settings) -> None:
        changes = await _floor_changes(books)
        await seed._seed_load(stated, 1, 100, "INR")
        assert (await _floor(books), await _floor_changes(books)) == (_STORED, changes)
        assert await _house_breaches(books) == []

    async def test_that_corrects_positions_changes_no_floor(self, books: OwnBooks, stated: Settings) -> None:
        changes = await _floor_changes(books)
        await correct_positions._correct(stated, "A test", "ops", lambda _: None)
        assert (await _floor(books), await _floor_changes(books)) == (_STORED, changes)
        assert await _house_breaches(books) == []

    async def test_that_migrates_applies_the_stated_floors(self, books: OwnBooks, stated: Settings) -> None:
        """Comes last: the floors are others afterwards."""
        changes = await _floor_changes(books)
        await migrate._migrate(stated)
        assert (await _floor(books), await _floor_changes(books)) == (_STATED, changes + 1)
        assert await _house_breaches(books) == []
