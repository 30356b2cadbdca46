"""Round trips that are shared: who goes together, and that nobody pays for another."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from uuid import uuid4

import pymongo
import pytest
from pymongo import _csot
from pymongo.errors import PyMongoError

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.outbox import OutboxTopic, outbox_row
from service.repositories import outbox as outbox_repository
from service.repositories.gathering import Gathered


class Trips:
    """Answers each number with its double, when the gate is open; what is below 0 is a trip that fails."""

    def __init__(self) -> None:
        self.made: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.made.append(list(numbers))
        await self.gate.wait()
        if min(numbers) < 0:
            raise OSError("no way")
        return [2 * number for number in numbers]


class TestGathered:
    async def test_those_who_ask_at_one_moment_share_a_trip_and_get_each_their_own_answer(self) -> None:
        trips = Trips()
        double = Gathered(trips)
        assert await asyncio.gather(*(double(number) for number in (1, 2, 3))) == [2, 4, 6]
        assert trips.made == [[1, 2, 3]]

    async def test_those_who_come_meanwhile_go_together_in_the_next_one(self) -> None:
        trips = Trips()
        trips.gate.clear()
        double = Gathered(trips)
        first = asyncio.create_task(double(1))
        while not trips.made:  # noqa: ASYNC110 a turn of the loop is what is waited for
            await asyncio.sleep(0)
        others = [asyncio.create_task(double(number)) for number in (2, 3)]
        await asyncio.sleep(0)
        trips.gate.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6]
        assert trips.made == [[1], [2, 3]]

    async def test_no_trip_takes_more_than_the_limit(self) -> None:
        trips = Trips()
        double = Gathered(trips, limit=2)
        assert await asyncio.gather(*(double(number) for number in range(5))) == [0, 2, 4, 6, 8]
        assert trips.made == [[0, 1], [2, 3], [4]]

    async def test_a_trip_that_fails_does_so_for_those_in_it_only(self) -> None:
        double = Gathered(Trips(), limit=2)
        outcomes = await asyncio.gather(*(double(number) for number in (1, -1, 3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OSError, OSError, int]
        assert await double(4) == 8

    async def test_an_item_that_is_answered_with_an_error_raises_it_alone(self) -> None:
        async def halve(numbers: Sequence[int]) -> list[int | Exception]:
            return [number // 2 if number % 2 == 0 else ValueError(number) for number in numbers]

        ask = Gathered(halve)
        outcomes = await asyncio.gather(*(ask(number) for number in (2, 3, 4)), return_exceptions=True)
        assert [outcomes[0], type(outcomes[1]), outcomes[2]] == [1, ValueError, 2]

    async def test_who_goes_away_takes_nobody_along(self) -> None:
        trips = Trips()
        trips.gate.clear()
        double = Gathered(trips)
        tasks = [asyncio.create_task(double(number)) for number in (1, 2)]
        while not trips.made:  # noqa: ASYNC110 a turn of the loop is what is waited for
            await asyncio.sleep(0)
        tasks[0].cancel()
        trips.gate.set()
        assert (await asyncio.gather(*tasks, return_exceptions=True))[1] == 4

    async def test_the_first_ones_deadline_is_not_the_others(self) -> None:
        deadlines: list[float] = []

        async def note_deadline(numbers: Sequence[int]) -> list[int]:
            deadlines.append(_csot.get_deadline())
            return list(numbers)

        ask = Gathered(note_deadline)
        with pymongo.timeout(0.001):
            await asyncio.gather(ask(1), ask(2))
        (deadline,) = deadlines
        assert deadline > monotonic() + 1

    async def test_a_trip_that_hangs_ends_in_time_and_the_next_one_goes(self, databases: Databases) -> None:
        outbox = databases.wallet["outbox"]
        row = outbox_row(OutboxTopic.REWARD, f"sub_{uuid4().hex}", None, utc_now(), utc_now() + timedelta(days=1))
        await outbox_repository.insert_many([row], session=None)

        async def write(numbers: Sequence[int]) -> list[int]:
            await outbox.update_one({"_id": row.id}, {"$set": {"visits": max(numbers)}})
            return list(numbers)

        ask = Gathered(write, limit_s=0.3)
        async with databases.client.start_session() as session, await session.start_transaction():
            # Whoever else writes it waits for as long as this one has not ended.
            await outbox.update_one({"_id": row.id}, {"$set": {"visits": 1}}, session=session)
            with pytest.raises(PyMongoError) as raised:
                await asyncio.wait_for(ask(2), 5)
            assert raised.value.timeout
        assert await asyncio.wait_for(ask(3), 5) == 3

    def test_it_works_in_one_loop_after_another(self) -> None:
        double = Gathered(Trips())
        assert [asyncio.run(_ask(double, number)) for number in (1, 2)] == [2, 4]


async def _ask(double: Gathered[int, int], number: int) -> int:
    return await double(number)


@pytest.fixture(autouse=True)
def _no_other_deadline() -> None:
    assert _csot.get_deadline() == float("inf")
