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
from service.services import leases
from service.services.clock_repair import repair_if_set_back
from service.services.clock_watch import ClockWatch
from service.settings import Settings
from service.startup import Resources
from tests.servers import Admin

AHEAD = timedelta(minutes=10)
BOUND_S = 5.0
LEASE = timedelta(seconds=20)
IN_HAND = timedelta(seconds=14)
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

    async def leaps(self) -> list[dict[str, datetime]] | None:
        row = await self._rows.find_one({"_id": "server"})
        assert row is not None
        leaps: list[dict[str, datetime]] | None = row.get("leaps")
        return leaps

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

    def insert(self, due_at: datetime, **fields: Any) -> None:
        for name in self._collections:
            self.insert_in(name, due_at, **fields)

    def insert_in(self, name: str, due_at: datetime, **fields: Any) -> None:
        row = {"_id": self.id, "topic": OutboxTopic.REWARD.value, "due_at": due_at, "reports": []}
        self._collections[name].insert_one(row | fields)

    def all(self) -> dict[str, dict[str, Any] | None]:
        return {name: one.find_one({"_id": self.id}) for name, one in self._collections.items()}

    def validate(self, level: str) -> None:
        for collection in self._collections.values():
            collection.database.command("collMod", collection.name, validationLevel=level)

    def due_in_s(self) -> dict[str, float]:
        now = utc_now()
        return {
            name: (row["due_at"].replace(tzinfo=UTC) - now).total_seconds()
            for name, row in self.all().items()
            if row is not None
        }

    def delete(self) -> None:
        for collection in self._collections.values():
            collection.delete_one({"_id": self.id})


def longest_leases_s(settings: Settings) -> dict[str, float]:
    of_queues = {queue.value: leases.longest_s(queue, settings) for queue in Queue}
    return of_queues | {"duties": leases.LONGEST_OF_DUTIES_S}


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
        longest_s = longest_leases_s(settings)
        for name, lease_s in longest_s.items():
            rows.insert_in(name, utc_now() + AHEAD + timedelta(seconds=lease_s))
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        for name, due_in_s in rows.due_in_s().items():
            assert longest_s[name] / 2 < due_in_s <= longest_s[name]

    async def test_that_should_wait_for_minutes_do(self, clock: Clock, rows: Rows) -> None:
        """They are brought forward once, though a repair looks twice."""
        now = utc_now()
        tried = {"tries": [{"at": now + AHEAD}], "queued_at": now - timedelta(hours=1)}
        rows.insert(now + AHEAD + timedelta(minutes=5), **tried)
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        for name, due_in_s in rows.due_in_s().items():
            assert 240 < due_in_s <= 300, name

    async def test_change_in_nothing_but_when_they_are_due(self, clock: Clock, rows: Rows) -> None:
        """No attempt is lost or made, and whoever has one in hand still does."""
        rows.insert(utc_now() + AHEAD, attempts=3, claim="mine", visits=2)
        before = rows.all()
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        for name, after in rows.all().items():
            assert {field for field, value in (after or {}).items() if value != (before[name] or {}).get(field)} == {
                "due_at"
            }

    @pytest.mark.parametrize("due_in", [IN_HAND, timedelta(days=7)], ids=["in hand", "next week"])
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

    async def test_that_a_worker_has_in_hand_are_left_to_it_however_long_its_lease(
        self, clock: Clock, rows: Rows, settings: Settings
    ) -> None:
        """Of a day's comparison with the bank as of a mail: nobody else begins with it."""
        left_s = {name: lease_s - 1 for name, lease_s in longest_leases_s(settings).items()}
        for name, lease_s in left_s.items():
            rows.insert_in(name, utc_now() + timedelta(seconds=lease_s))
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        for name, due_in_s in rows.due_in_s().items():
            assert due_in_s > left_s[name] - BOUND_S, name


class TestADelivery:
    async def test_that_waits_since_a_try_by_the_right_clock_keeps_its_schedule(self, clock: Clock, rows: Rows) -> None:
        """Its tries are few, and spread over three days so that a receiver may be down."""
        now = utc_now()
        tried = {"tries": [{"at": now - timedelta(minutes=2)}], "queued_at": now - timedelta(hours=1)}
        rows.insert_in("deliveries", now + timedelta(minutes=5), **tried)
        await clock.leap_and_be_set_back()
        assert await clock.repair()
        assert rows.due_in_s()["deliveries"] > 240


class TestALeap:
    async def test_is_noted_once_by_whoever_sees_the_clock_set_back(self, clock: Clock) -> None:
        """Also after the repair: ids of entries follow the server's logical clock, which stays where it was."""
        await clock.leap_and_be_set_back()
        for _ in range(3):
            await clock.watch()
        assert await clock.repair()
        await clock.watch()
        (leap,) = await clock.leaps() or []
        assert leap["highest_at"] - leap["noticed_at"] > AHEAD - timedelta(minutes=1)

    async def test_of_seconds_is_not(self, clock: Clock) -> None:
        await clock.leap_and_be_set_back({"$add": ["$$NOW", 20_000]})
        assert await clock.repair()
        assert await clock.leaps() is None, "an earlier release's validator refuses the field"

    async def test_of_long_ago_is_forgotten(self, clock: Clock) -> None:
        for number in range(102):
            await clock.leap_and_be_set_back({"$add": ["$$NOW", 60_000 * (2 + number)]})
            await server_clock.note_time()
        assert len(await clock.leaps() or ()) == 100


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
