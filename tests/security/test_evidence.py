"""Evidence outside the database: root on MongoDB can make everything inside fit, and is found all the same."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scripts.ledger_inspection import inspect
from scripts.ledger_rules import Breach
from scripts.place_inspection import inspect_with_copy
from seed.deposits import StartingBalance, deposit_once
from service.database import Databases
from service.domain.checkpoints import Checkpoint
from service.domain.clock import utc_now
from service.gateways.checkpoint_places import CheckpointFile, PlaceDiffers
from service.services.checkpoints import signing_key, take_checkpoint, take_checkpoint_if_due
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.factories import make_user, make_wallet
from tests.servers import Servers

Dump = dict[tuple[str, str], list[dict[str, Any]]]


@pytest.fixture
async def books(servers: Servers, resources: Resources, tmp_path: Path) -> AsyncIterator[OwnBooks]:
    async with own_books(servers, resources, data_dir=str(tmp_path)) as own:
        yield own


async def pay(books: OwnBooks, name: str) -> None:
    user = await make_user(books.databases, email=f"{name}@example.com")
    await make_wallet(books.databases, user)
    await deposit_once([StartingBalance(user.id, 10_000, "INR")], books.resources.ledger, books.resources.settings)


async def take(books: OwnBooks, *, is_copied: bool = True) -> Checkpoint:
    settings = books.resources.settings
    place = CheckpointFile(settings) if is_copied else None
    taken = await take_checkpoint(books.databases.client, settings, place)
    assert taken is not None
    return taken


async def dump(admin: Databases) -> Dump:
    """Everything in both databases, as root may read it."""
    return {
        (database.name, name): await database[name].find().to_list()
        for database in (admin.wallet, admin.bank)
        for name in await database.list_collection_names()
    }


async def put_back(admin: Databases, kept: Dump) -> None:
    for (database, name), rows in kept.items():
        await admin.client[database][name].delete_many({})
        if rows:
            await admin.client[database][name].insert_many(rows)


async def inspect_both(books: OwnBooks) -> tuple[list[Breach], list[Breach]]:
    """What is found in the database alone, and what beside the copy."""
    key = signing_key(books.resources.settings).public_key()
    inspecting = partial(inspect, books.databases, checkpoint_key=key)
    path = Path(books.resources.settings.checkpoint_path)
    return (await inspecting()).breaches, (await inspect_with_copy(path, key, inspecting)).breaches


class TestRootWhoErasesAPaymentWithItsCheckpoint:
    async def test_is_found_though_another_checkpoint_was_signed(self, books: OwnBooks) -> None:
        """By a worker that compares nothing, as of a release before."""
        await pay(books, "first")
        await take(books)
        before = await dump(books.admin)
        await pay(books, "second")
        first = await take(books)
        assert await inspect_both(books) == ([], [])
        await put_back(books.admin, before)
        other = await take(books, is_copied=False)
        assert other.number == first.number
        inside, beside = await inspect_both(books)
        assert inside == []
        assert [(breach.rule, breach.subject) for breach in beside] == [("place_other", str(first.number))]
        assert "its signature holds" in beside[0].detail

    async def test_gets_no_other_checkpoint_signed(self, books: OwnBooks) -> None:
        await pay(books, "first")
        await take(books)
        before = await dump(books.admin)
        await pay(books, "second")
        erased = await take(books)
        await put_back(books.admin, before)
        place = CheckpointFile(books.resources.settings)
        client, settings = books.databases.client, books.resources.settings
        with pytest.raises(PlaceDiffers, match=f"has lost checkpoint {erased.number}"):
            await take_checkpoint(client, settings, place)
        with pytest.raises(PlaceDiffers):
            await take_checkpoint_if_due(client, settings, utc_now(), place)
        inside, beside = await inspect_both(books)
        assert (inside, [breach.rule for breach in beside]) == ([], ["place_lost"])
        assert await books.databases.wallet["checkpoints"].count_documents({}) == 1


class TestACrashBetweenDatabaseAndCopy:
    async def test_leaves_the_copy_behind_until_the_next_look(self, books: OwnBooks) -> None:
        await pay(books, "first")
        place = CheckpointFile(books.resources.settings)
        # As where the process dies after the insert, twice.
        taken = [await take(books, is_copied=False) for _ in range(2)]
        assert await place.read_end() is None
        client, settings = books.databases.client, books.resources.settings
        assert await take_checkpoint_if_due(client, settings, utc_now(), place) is None
        end = await place.read_end()
        assert end is not None
        assert end.number == taken[1].number
        assert (await take(books)).number == taken[1].number + 1
        assert await inspect_both(books) == ([], [])
