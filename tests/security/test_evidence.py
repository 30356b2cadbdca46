"""Evidence outside the database: root on MongoDB can make everything inside fit, and is found all the same."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scripts.audit_seal_rules import Seals
from scripts.ledger_inspection import inspect
from scripts.ledger_rules import Breach
from scripts.place_inspection import inspect_with_copy
from seed.deposits import StartingBalance, deposit_once
from service.database import Databases
from service.domain.audit_events import AuditAction
from service.domain.checkpoints import Checkpoint
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, first_id_at
from service.gateways.checkpoint_places import CheckpointFile, PlaceDiffers
from service.repositories.audit_events import ensure_many
from service.services.audit_events import new_audit_event
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


class TestRootWhoChangesWhatAdminsDid:
    """Audit events of logins, roles and keys, which nothing else in the database repeats."""

    @staticmethod
    async def make_deeds() -> list[str]:
        events = [
            new_audit_event(action, actor_id=f"usr_{at}", subject_id="usr_somebody", request_id=None, role="admin")
            for at, action in enumerate((AuditAction.USER_ROLES_CHANGED, AuditAction.USER_LOGGED_IN))
        ]
        await ensure_many(events)
        return [event.id for event in events]

    async def test_is_found_by_the_next_checkpoints_seal(self, books: OwnBooks) -> None:
        await pay(books, "first")
        granted, logged_in = await self.make_deeds()
        sealing = await take(books)
        events = books.admin.wallet["audit_events"]
        assert await inspect_both(books) == ([], [])
        kept = await events.find().to_list()
        for changes in ({"actor_id": "usr_other"}, {"details": {"role": "user"}}, {"at": utc_now()}):
            await events.update_one({"_id": granted}, {"$set": changes}, bypass_document_validation=True)
            assert await self.found(books) == [("audit_seal", str(sealing.number))], changes
            await self.put_back(books, kept)
        await events.delete_one({"_id": logged_in})
        assert ("audit_seal", logged_in) in await self.found(books)
        # Also where the checkpoint names it no more.
        await books.admin.wallet["checkpoints"].update_one({}, {"$pull": {"audit_ids": logged_in}})
        assert await self.found(books) == [("audit_seal", str(sealing.number))]

    async def test_is_found_who_makes_one_up_under_an_old_id(self, books: OwnBooks) -> None:
        await pay(books, "first")
        await self.make_deeds()
        await take(books)
        first = await books.admin.wallet["checkpoints"].find_one({})
        assert first is not None
        sealed = await books.admin.wallet["audit_events"].find_one({"_id": first["audit_ids"][0]})
        assert sealed is not None
        old = first_id_at(Prefix.AUDIT_EVENT, first["created_at"] - timedelta(hours=24)) + "7" * 20
        await books.admin.wallet["audit_events"].insert_one({**sealed, "_id": old})
        # As where the service has run on for some days.
        seals = Seals()
        for days, number in ((0, 1), (3, 2)):
            seals.expect({**first, "_id": number, "created_at": first["created_at"] + timedelta(days=days)})
        (breach,) = seals.follow(old, [], [sealed])
        assert (breach.rule, breach.subject) == ("audit_unsealed", old)

    async def test_that_are_late_are_sealed_by_the_checkpoint_after(self, books: OwnBooks) -> None:
        """Their ids are older than that of an event that was sealed: the database was away for hours."""
        await pay(books, "first")
        await self.make_deeds()
        assert (await take(books)).audit_events == 2
        late = new_audit_event(AuditAction.USER_LOGGED_OUT, actor_id="usr_1", subject_id="usr_1", request_id=None)
        id_before = first_id_at(Prefix.AUDIT_EVENT, utc_now() - timedelta(hours=20)) + "7" * 20
        await ensure_many([late._replace(id=id_before)])
        # With the note of the first checkpoint.
        assert (await take(books)).audit_events == 2
        assert (await take(books)).audit_events == 1
        assert await inspect_both(books) == ([], [])

    @staticmethod
    async def found(books: OwnBooks) -> list[tuple[str, str]]:
        inside, _ = await inspect_both(books)
        return [(breach.rule, breach.subject) for breach in inside]

    @staticmethod
    async def put_back(books: OwnBooks, kept: list[dict[str, Any]]) -> None:
        for row in kept:
            await books.admin.wallet["audit_events"].replace_one({"_id": row["_id"]}, row)
