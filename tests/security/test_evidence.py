"""Evidence outside the database: root on MongoDB can make everything inside fit, and is found all the same."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo.asynchronous.client_session import AsyncClientSession

from scripts.audit_seal_rules import Seals
from scripts.ledger_inspection import inspect
from scripts.ledger_rules import Breach
from scripts.place_inspection import inspect_with_copy
from scripts.verify_proof import check_series
from seed.deposits import StartingBalance, deposit_once
from service.database import Databases
from service.domain.audit_events import AuditAction
from service.domain.checkpoints import Checkpoint, checkpoint_hash, checkpoint_view, key_id_of
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, first_id_at
from service.gateways.checkpoint_places import CheckpointFile, PlaceDiffers
from service.repositories import audit_events as audit_repository
from service.repositories import checkpoints as checkpoint_repository
from service.repositories.audit_events import ensure_many
from service.services import checkpoints
from service.services.audit_events import new_audit_event
from service.services.checkpoint_series import EvidenceMissing
from service.services.checkpoints import list_checkpoints, signing_key, take_checkpoint, take_checkpoint_if_due
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.factories import make_user, make_wallet
from tests.logs import own_logs
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
    """Everything in both databases, as root may read it, but for what the running ledger writes all the time."""
    return {
        (database.name, name): await database[name].find().to_list()
        for database in (admin.wallet, admin.bank)
        for name in await database.list_collection_names()
        if name != "ledger_processes"
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


class TestAForgedCheckpoint:
    """Whoever can write to the database inserts one with a number or a time to come."""

    async def test_does_not_stop_the_signing_and_is_named_everywhere(self, books: OwnBooks) -> None:
        await pay(books, "first")
        genuine = await take(books)
        ids: list[Any] = [Int64(genuine.number + 1), Int64(genuine.number + 3), float(genuine.number + 4), Int64(10**9)]
        await self.forge(books, ids)
        await books.admin.wallet.command(
            "insert", "checkpoints", documents=[{"_id": Int64(8)}], bypassDocumentValidation=True
        )
        client, settings = books.databases.client, books.resources.settings
        later = utc_now() + timedelta(seconds=settings.checkpoint_interval_s)
        with own_logs() as lines:
            place = CheckpointFile(settings)
            taken = [await take_checkpoint_if_due(client, settings, later, place), await take(books)]
        numbers = [one.number for one in taken if one is not None]
        # Those of the forged ones are left out.
        assert numbers == [genuine.number + 2, genuine.number + 5]
        refused = {line["number"]: line["log_level"] for line in lines if line["event"] == "checkpoint.refused"}
        assert refused == {str(one): "error" for one in (*ids, 8)}
        # Readers and outsiders see the series alone.
        shown = await list_checkpoints(before_number=None, limit=10)
        assert [one.number for one in shown] == [*reversed(numbers), genuine.number]
        key = signing_key(settings).public_key()
        copied = [json.loads(line) for line in content_of(books).splitlines()]
        assert copied == check_series([checkpoint_view(one) for one in shown], {key_id_of(key): key})
        assert await checkpoint_repository.count_refused() == len(refused)
        inside, beside = await inspect_both(books)
        assert inside == beside
        assert {breach.subject for breach in inside if breach.rule == "checkpoint_signature"} >= {
            str(ids[0]), str(ids[1]), str(ids[3])
        }  # fmt: skip
        # A person has looked, and the database's administrator has deleted them.
        await books.admin.wallet["checkpoints"].delete_many({"_id": {"$in": [*ids, Int64(8)]}})
        assert (await take(books)).number == genuine.number + 6
        assert await inspect_both(books) == ([], [])

    @staticmethod
    async def forge(books: OwnBooks, ids: Sequence[Any]) -> None:
        row = await books.admin.wallet["checkpoints"].find_one({})
        assert row is not None
        before = (await list_checkpoints(before_number=None, limit=1))[0]
        made_up = {**row, "created_at": utc_now() + timedelta(days=900), "prev_hash": checkpoint_hash(before)}
        await books.admin.wallet.command(
            "insert",
            "checkpoints",
            documents=[{**made_up, "_id": one} for one in ids],
            bypassDocumentValidation=True,
        )


class TestMoreForgedCheckpointsThanAreNamed:
    async def test_are_all_left_out_and_counted(self, books: OwnBooks) -> None:
        await pay(books, "first")
        first = await take(books)
        numbers = range(first.number + 10, first.number + 111)
        await TestAForgedCheckpoint.forge(books, [Int64(number) for number in numbers])
        # Invented ones, which would hide the others in a list that ends somewhere.
        invented = [{"_id": Int64(-at), "reason": "none", "refused_at": utc_now()} for at in range(1, 1_101)]
        await books.admin.wallet["refused_checkpoints"].insert_many(invented)
        assert await look(books) is None
        latest = await checkpoint_repository.find_latest()
        assert latest is not None
        assert latest.number == first.number
        assert await checkpoint_repository.count_refused() == len(numbers)
        assert [one.number for one in await list_checkpoints(before_number=None, limit=10)] == [first.number]
        assert (await take(books)).number == first.number + 1


class TestARowThatIsNoCheckpoint:
    """Whoever can write to the database inserts what no validator would let in."""

    @pytest.mark.parametrize("how", ["of a year to come", "half before", "half behind", "without a signature"])
    async def test_does_not_stop_the_signing_and_is_named(self, books: OwnBooks, how: str) -> None:
        await pay(books, "first")
        first = await take(books)
        row = await books.admin.wallet["checkpoints"].find_one({})
        assert row is not None
        rows: dict[str, dict[str, Any]] = {
            "of a year to come": {"_id": Int64(9), "created_at": DatetimeMS(8_640_000_000_000_000)},
            "half before": {"_id": first.number - 0.5},
            "half behind": {"_id": first.number + 0.5},
            "without a signature": {"_id": Int64(9), "signature": 5},
        }
        forged = rows[how]
        await books.admin.wallet.command(
            "insert", "checkpoints", documents=[{**row, **forged}], bypassDocumentValidation=True
        )
        with own_logs() as lines:
            assert (await take(books)).number == first.number + 1
        named = {line["number"] for line in lines if line["event"] == "checkpoint.refused"}
        # What stands before the copy's last one is check-ledger's to name.
        assert named == (set() if how == "half before" else {str(forged["_id"])})
        assert [one.number for one in await list_checkpoints(before_number=None, limit=10)] == [2, 1]


class TestAnEmptyCopyBesideADatabaseWithCheckpoints:
    @pytest.mark.parametrize("is_there", [True, False])
    async def test_is_filled_only_when_somebody_says_that_it_begins(self, books: OwnBooks, is_there: bool) -> None:
        await pay(books, "first")
        taken = [await take(books), await take(books)]
        whole = content_of(books)
        remove_content(books, is_there=is_there)
        client, settings = books.databases.client, books.resources.settings
        place = CheckpointFile(settings)
        for deed in (take_checkpoint(client, settings, place), look(books)):
            with pytest.raises(EvidenceMissing, match=f"has {len(taken)} checkpoints"):
                await deed
        assert content_of(books) == b""
        following = await take_checkpoint(client, settings, place, begins_evidence=True)
        assert following is not None
        assert following.number == len(taken) + 1
        assert content_of(books).startswith(whole)
        assert await inspect_both(books) == ([], [])


def remove_content(books: OwnBooks, *, is_there: bool) -> None:
    path = Path(books.resources.settings.checkpoint_path)
    path.unlink()
    if is_there:
        path.touch()


def content_of(books: OwnBooks) -> bytes:
    path = Path(books.resources.settings.checkpoint_path)
    return path.read_bytes() if path.exists() else b""


class TestTheSigner:
    async def test_keeps_a_portion_of_audit_events_in_memory_and_seals_the_rest_next(
        self, books: OwnBooks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await pay(books, "first")
        events = [
            new_audit_event(AuditAction.USER_LOGGED_IN, actor_id=f"usr_{at}", subject_id="usr_1", request_id=None)
            for at in range(5)
        ]
        await ensure_many(events)
        monkeypatch.setattr(checkpoints, "_SEALED_AT_ONCE", 2)
        read: list[str] = []
        streaming = audit_repository.stream_since

        async def counted(event_id: str, *, session: AsyncClientSession) -> AsyncIterator[dict[str, Any]]:
            async for event in streaming(event_id, session=session):
                read.append(event["id"])
                yield event

        monkeypatch.setattr(audit_repository, "stream_since", counted)
        assert (await take(books)).audit_events == 2
        assert len(read) == 3
        assert [(await take(books)).audit_events for _ in range(2)] == [2, 2]
        monkeypatch.undo()
        # The last one, and the notes of those that were taken meanwhile.
        assert (await take(books)).audit_events == 2
        assert await inspect_both(books) == ([], [])


async def look(books: OwnBooks) -> Checkpoint | None:
    settings = books.resources.settings
    return await take_checkpoint_if_due(books.databases.client, settings, utc_now(), CheckpointFile(settings))


class TestACrashBetweenDatabaseAndCopy:
    async def test_before_the_first_line_needs_nobody(self, books: OwnBooks) -> None:
        await pay(books, "first")
        taken = await take(books, is_copied=False)
        assert await look(books) is None
        end = await CheckpointFile(books.resources.settings).read_end()
        assert end is not None
        assert end.number == taken.number

    async def test_leaves_the_copy_behind_until_the_next_look(self, books: OwnBooks) -> None:
        await pay(books, "first")
        place = CheckpointFile(books.resources.settings)
        first = await take(books)
        # As where the process dies after the insert, twice.
        taken = [await take(books, is_copied=False) for _ in range(2)]
        end = await place.read_end()
        assert end is not None
        assert end.number == first.number
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
