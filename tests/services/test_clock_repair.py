"""What was written while the server's clock was ten minutes ahead is worked soon after the clock is right again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from service.background import end
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.domain.outbox import OutboxTopic
from service.repositories import due_rows, server_clock
from service.repositories.queues import HOMES
from service.services import bank_callbacks, event_dispatch
from service.services.clock_repair import longest_lease_s, repair_if_set_back
from service.services.clock_watch import ClockWatch
from service.settings import Settings
from service.startup import Resources
from tests.servers import Admin
from workers import bank_simulation

AHEAD = timedelta(minutes=10)
BOUND_S = 5.0
LEASE = timedelta(seconds=20)
SET_RIGHT: list[dict[str, Any]] = [
    {"$set": {"seen_at": "$$NOW", "highest_at": "$$NOW"}},
    {"$unset": ["repair_claim", "repair_until", "leaps"]},
]
AHEAD_NOW = {"$add": ["$$NOW", AHEAD // timedelta(milliseconds=1)]}


async def _at_once() -> None:
    pass


class Settling:
    """Begun after the first pass over the queues; the second one waits until it is over."""

    def __init__(self) -> None:
        self.begun, self.over = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.begun.set()
        await self.over.wait()


class Clock:
    """The server's, which is right, and its highest time."""

    def __init__(self, databases: Databases, resources: Resources) -> None:
        self._rows, self._resources = databases.wallet["server_clock"], resources

    async def set_right(self) -> None:
        await self._rows.update_one({"_id": "server"}, SET_RIGHT, upsert=True)

    async def leap_and_be_set_back(self, to: Any = AHEAD_NOW) -> None:
        await self._rows.update_one({"_id": "server"}, [{"$set": {"highest_at": to}}])

    async def leaps(self) -> list[dict[str, datetime]]:
        row = await self._rows.find_one({"_id": "server"})
        assert row is not None
        return list(row.get("leaps", ()))

    async def watch(self) -> ClockWatch:
        """A process that has looked just now."""

        async def read() -> datetime:
            return utc_now()

        watch = ClockWatch(read, BOUND_S, note_server_time=server_clock.note_time)
        await watch.look()
        await watch.note_server_time()
        return watch

    async def repair(self, settle: Callable[[], Awaitable[object]] = _at_once) -> bool:
        return await repair_if_set_back(await self.watch(), self._resources.settings, self._resources.jobs, settle)

    async def set_repair_until(self, until: Any) -> None:
        await self._rows.update_one({"_id": "server"}, [{"$set": {"repair_until": until}}])


@pytest.fixture
async def clock(databases: Databases, resources: Resources) -> AsyncIterator[Clock]:
    clock = Clock(databases, resources)
    await clock.set_right()
    yield clock
    await clock.set_right()


class Rows:
    """One in each queue, and a duty, with nothing but what a queue needs."""

    def __init__(self, admin: Admin, settings: Settings) -> None:
        self.id = f"clock_{uuid4().hex}"
        names = {queue.value: HOMES[queue].document.get_collection_name() for queue in Queue}
        self._collections = {queue: admin[settings.database][name] for queue, name in names.items()}
        self._collections[Queue.BANK] = admin[settings.bank_database][names[Queue.BANK]]
        self._collections["duties"] = admin[settings.database]["duties"]

    def insert(self, due_at: datetime) -> None:
        row = {"_id": self.id, "topic": OutboxTopic.REWARD.value, "due_at": due_at, "reports": []}
        for collection in self._collections.values():
            collection.insert_one(dict(row))

    def validate(self, level: str) -> None:
        for collection in self._collections.values():
            collection.database.command("collMod", collection.name, validationLevel=level)

    def due_in_s(self) -> dict[str, float]:
        now = utc_now()
        due = {name: one.find_one({"_id": self.id}) for name, one in self._collections.items()}
        return {
            name: (row["due_at"].replace(tzinfo=UTC) - now).total_seconds()
            for name, row in due.items()
            if row is not None
        }

    def delete(self) -> None:
        for collection in self._collections.values():
            collection.delete_one({"_id": self.id})


@pytest.fixture
def rows(admin: Admin, settings: Settings) -> Iterator[Rows]:
    rows = Rows(admin, settings)
    rows.validate("off")
    yield rows
    rows.delete()
    rows.validate("strict")


class TestRowsFromAClockThatWasAhead:
    @pytest.mark.parametrize("delay", [timedelta(), timedelta(seconds=2)], ids=["at once", "a retry"])
    async def test_are_due_within_seconds_in_every_queue(self, clock: Clock, rows: Rows, delay: timedelta) -> None:
        rows.insert(utc_now() + AHEAD + delay)
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        due_in_s = rows.due_in_s()
        assert len(due_in_s) == len(Queue) + 1
        assert max(due_in_s.values()) <= due_rows.SPREAD_S
        # Once only.
        assert not await clock.repair()

    async def test_keep_the_length_of_their_lease(self, clock: Clock, rows: Rows, settings: Settings) -> None:
        """Whoever took them may live still, and is not to be joined by another worker."""
        lease_s = longest_lease_s(settings)
        rows.insert(utc_now() + AHEAD + timedelta(seconds=lease_s))
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        for due_in_s in rows.due_in_s().values():
            assert lease_s / 2 < due_in_s <= lease_s

    @pytest.mark.parametrize("due_in", [LEASE, timedelta(days=7)], ids=["in hand", "next week"])
    async def test_are_told_from_those_that_wait_anyway(self, clock: Clock, rows: Rows, due_in: timedelta) -> None:
        rows.insert(utc_now() + due_in)
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        for due_in_s in rows.due_in_s().values():
            assert due_in_s > due_in.total_seconds() - BOUND_S

    async def test_stay_as_they_are_while_the_clock_was_never_ahead(self, clock: Clock, rows: Rows) -> None:
        rows.insert(utc_now() + AHEAD)
        assert not await clock.repair()
        assert min(rows.due_in_s().values()) > BOUND_S

    def test_no_lease_is_longer_than_what_is_left_alone(self, settings: Settings) -> None:
        leases_s = (bank_simulation._LEASE_S, bank_callbacks._LEASE_S, event_dispatch._LEASE_S)
        assert longest_lease_s(settings) >= max(leases_s)


class TestALeap:
    async def test_is_noted_once_by_whoever_sees_the_clock_set_back(self, clock: Clock) -> None:
        """Also after the repair: ids of entries follow the server's logical clock, which stays where it was."""
        await clock.leap_and_be_set_back()
        for _ in range(3):
            await clock.watch()
        assert await clock.repair()
        await clock.watch()
        (leap,) = await clock.leaps()
        assert leap["highest_at"] - leap["noticed_at"] > AHEAD - timedelta(minutes=1)

    async def test_of_seconds_is_not(self, clock: Clock) -> None:
        await clock.leap_and_be_set_back({"$add": ["$$NOW", 20_000]})
        assert await clock.repair()
        assert await clock.leaps() == []

    async def test_of_long_ago_is_forgotten(self, clock: Clock) -> None:
        for number in range(102):
            await clock.leap_and_be_set_back({"$add": ["$$NOW", 60_000 * (2 + number)]})
            await server_clock.note_time()
        assert len(await clock.leaps()) == 100


class TestARepair:
    async def test_is_begun_anew_by_another_worker_where_one_dies_in_the_middle(self, clock: Clock, rows: Rows) -> None:
        await clock.leap_and_be_set_back()
        settling = Settling()
        dying = asyncio.create_task(clock.repair(settling))
        await settling.begun.wait()
        await end(dying)
        # What the dead one has not seen any more.
        rows.insert(utc_now() + AHEAD)
        assert not await clock.repair()
        await clock.set_repair_until("$$NOW")
        assert await clock.repair()
        assert max(rows.due_in_s().values()) <= due_rows.SPREAD_S

    async def test_does_not_wait_for_a_lease_from_the_clock_that_was_ahead(self, clock: Clock) -> None:
        await clock.leap_and_be_set_back()
        await clock.set_repair_until(AHEAD_NOW)
        assert await clock.repair()

    async def test_finds_rows_of_processes_that_noticed_later(self, clock: Clock, rows: Rows) -> None:
        await clock.leap_and_be_set_back()
        settling = Settling()
        repairing = asyncio.create_task(clock.repair(settling))
        await settling.begun.wait()
        rows.insert(utc_now() + AHEAD)
        settling.over.set()
        assert await repairing
        assert max(rows.due_in_s().values()) <= due_rows.SPREAD_S

    async def test_does_not_end_where_the_clock_leaps_once_more_meanwhile(self, clock: Clock) -> None:
        await clock.leap_and_be_set_back()
        bound, lease = timedelta(seconds=BOUND_S), LEASE
        repair = await server_clock.claim_repair(bound, lease)
        assert repair is not None
        await clock.leap_and_be_set_back()
        assert not await server_clock.finish_repair(repair)
        assert await server_clock.renew_repair(repair, lease) is None
        assert (await clock.watch()).was_set_back

    async def test_waits_while_the_worker_s_own_clock_is_wrong(self, clock: Clock, resources: Resources) -> None:
        await clock.leap_and_be_set_back()
        watch = await clock.watch()
        watch.is_off = True
        assert not await repair_if_set_back(watch, resources.settings, resources.jobs, _at_once)
        assert (await clock.watch()).was_set_back
