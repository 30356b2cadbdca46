"""Working a queue down: hands, news, troubles and the end."""

import asyncio
from collections.abc import Sequence
from typing import Any

from service.domain.dead_letters import Queue
from service.startup import Resources
from workers.drain import Drain

GRACE_S = 10.0


class Rows:
    """Rows in memory; a row's work waits for its gate, where it has one."""

    def __init__(self, *rows: str) -> None:
        self.rows = list(rows)
        self.gates: dict[str, asyncio.Event] = {}
        self.done: list[str] = []
        self.most_at_once = 0
        self._at_once = 0

    async def claim(self, limit: int) -> list[str]:
        taken, self.rows = self.rows[:limit], self.rows[limit:]
        return taken

    async def work(self, row: str) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        if row in self.gates:
            await self.gates[row].wait()
        await asyncio.sleep(0)
        self._at_once -= 1
        if row.startswith("broken"):
            raise RuntimeError(row)
        self.done.append(row)


class Aftercare:
    """Remembers what it was told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.failures: list[tuple[Any, str]] = []
        self.given_back: list[tuple[Any, bool]] = []
        self._fails = fails

    async def failed(self, row: Any, error: Exception) -> None:
        if self._fails:
            raise OSError("the database is away")
        self.failures.append((row, str(error)))

    async def give_back(self, rows: Sequence[Any], was_begun: bool) -> None:
        self.given_back += [(row, was_begun) for row in rows]


def make_drain(queue: Rows, resources: Resources, hands: int = 2) -> Drain[str]:
    return Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, hands, Aftercare())


class TestDrain:
    async def test_does_everything_that_is_due_with_no_more_hands_than_it_has(self, resources: Resources) -> None:
        queue = Rows(*"abcdefg")
        drain = make_drain(queue, resources)
        await drain.run()
        await drain.close(GRACE_S)
        assert sorted(queue.done) == list("abcdefg")
        assert queue.most_at_once == 2

    async def test_a_row_that_takes_long_keeps_one_hand_busy_and_not_the_others(self, resources: Resources) -> None:
        queue = Rows("slow", *"abcdef")
        queue.gates["slow"] = asyncio.Event()
        drain = make_drain(queue, resources)
        await asyncio.wait_for(drain.run(), 5)
        await asyncio.sleep(0.01)
        assert sorted(queue.done) == list("abcdef")
        queue.gates["slow"].set()
        await drain.close(GRACE_S)
        assert "slow" in queue.done

    async def test_a_row_that_fails_stops_no_other(self, resources: Resources) -> None:
        queue = Rows("a", "broken", "b")
        drain = make_drain(queue, resources)
        await drain.run()
        await drain.close(GRACE_S)
        assert queue.done == ["a", "b"]

    async def test_of_several_that_are_taken_as_one_each_counts(self, resources: Resources) -> None:
        may_end = asyncio.Event()
        batches = [["a", "b", "c"], ["broken", "d"]]

        async def claim(limit: int) -> list[list[str]]:
            taken = batches[:limit]
            del batches[:limit]
            return taken

        async def work(rows: list[str]) -> None:
            await may_end.wait()
            if "broken" in rows:
                raise RuntimeError("broken")

        drain = Drain(Queue.EVENTS, resources.jobs, claim, work, 3, Aftercare())
        await drain.run()
        assert drain.in_hand == 5
        may_end.set()
        await drain.close(GRACE_S)
        assert (drain.done, drain.failed, drain.in_hand) == (3, 2, 0)

    async def test_a_nudge_while_it_runs_makes_it_look_once_more(self, resources: Resources) -> None:
        queue = Rows("a")
        looks = 0

        async def claim_and_be_nudged(limit: int) -> list[str]:
            nonlocal looks
            looks += 1
            if looks == 2:  # nothing was left; a commit comes just behind that look
                queue.rows.append("late")
                await drain.run()
                return []
            return await queue.claim(limit)

        drain = Drain(Queue.OUTBOX, resources.jobs, claim_and_be_nudged, queue.work, 2, Aftercare())
        await drain.run()
        await drain.close(GRACE_S)
        assert queue.done == ["a", "late"]

    async def test_it_can_run_again_after_a_look_that_failed(self, resources: Resources) -> None:
        queue = Rows("a")
        fails = True

        async def claim_or_fail(limit: int) -> list[str]:
            if fails:
                raise OSError("the database is away")
            return await queue.claim(limit)

        drain = Drain(Queue.OUTBOX, resources.jobs, claim_or_fail, queue.work, 2, Aftercare())
        outcome = (await asyncio.gather(drain.run(), return_exceptions=True))[0]
        assert isinstance(outcome, OSError)
        fails = False
        await drain.run()
        await drain.close(GRACE_S)
        assert queue.done == ["a"]

    async def test_without_hands_nothing_is_taken_until_there_are_some(self, resources: Resources) -> None:
        queue = Rows(*"abc")
        hands = 0
        drain = Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, lambda: hands, Aftercare())
        await asyncio.wait_for(drain.run(), 5)
        assert queue.rows == list("abc")
        hands = 1
        await drain.run()
        await drain.close(GRACE_S)
        assert queue.done == list("abc")
        assert queue.most_at_once == 1

    async def test_more_hands_while_it_runs_take_more(self, resources: Resources) -> None:
        queue = Rows(*"abcdefgh")
        drain = Drain(
            Queue.OUTBOX, resources.jobs, queue.claim, queue.work, lambda: min(4, 2 ** len(queue.done)), Aftercare()
        )
        await asyncio.wait_for(drain.run(), 5)
        await drain.close(GRACE_S)
        assert sorted(queue.done) == list("abcdefgh")
        assert queue.most_at_once > 1

    async def test_hands_that_go_away_leave_the_rest_for_later(self, resources: Resources) -> None:
        queue = Rows("slow", *"abc")
        queue.gates["slow"] = asyncio.Event()
        hands = 1
        drain = Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, lambda: hands, Aftercare())
        running = asyncio.create_task(drain.run())
        while len(queue.rows) == 4:  # noqa: ASYNC110 a turn of the loop is what is waited for
            await asyncio.sleep(0)
        hands = 0
        queue.gates["slow"].set()
        await asyncio.wait_for(running, 5)
        await drain.close(GRACE_S)
        assert (queue.done, queue.rows) == (["slow"], list("abc"))


class TestAftercare:
    async def test_hears_of_each_failure_and_of_nothing_else(self, resources: Resources) -> None:
        queue, aftercare = Rows("a", "broken", "b"), Aftercare()
        drain = Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, 2, aftercare)
        await drain.run()
        await drain.close(GRACE_S)
        assert aftercare.failures == [("broken", "broken")]
        assert (drain.done, drain.failed, drain.in_hand) == (2, 1, 0)

    async def test_that_fails_itself_stops_nothing(self, resources: Resources) -> None:
        queue = Rows("broken", "a")
        drain = Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, 1, Aftercare(fails=True))
        await drain.run()
        await drain.close(GRACE_S)
        assert queue.done == ["a"]


class TestTheEnd:
    async def test_finishes_what_is_in_hand_and_takes_nothing_more(self, resources: Resources) -> None:
        queue, aftercare = Rows("slow", "a"), Aftercare()
        queue.gates["slow"] = asyncio.Event()
        drain = Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, 1, aftercare)
        running = asyncio.create_task(drain.run())
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(drain.close(5))
        await asyncio.sleep(0.01)
        queue.gates["slow"].set()
        await asyncio.gather(running, closing)
        await drain.run()
        assert queue.done == ["slow"]
        assert queue.rows == ["a"]
        assert aftercare.given_back == []

    async def test_gives_back_at_once_what_was_taken_and_not_begun(self, resources: Resources) -> None:
        queue, aftercare = Rows("a", "b"), Aftercare()
        has_asked, may_answer = asyncio.Event(), asyncio.Event()

        async def claim_slowly(limit: int) -> list[str]:
            rows = await queue.claim(limit)
            has_asked.set()
            await may_answer.wait()
            return rows

        drain = Drain(Queue.OUTBOX, resources.jobs, claim_slowly, queue.work, 2, aftercare)
        running = asyncio.create_task(drain.run())
        await has_asked.wait()
        closing = asyncio.create_task(drain.close(5))
        await asyncio.sleep(0)
        may_answer.set()
        await asyncio.gather(running, closing)
        assert aftercare.given_back == [("a", False), ("b", False)]
        assert queue.done == []

    async def test_breaks_off_and_gives_back_what_outlasts_the_grace(self, resources: Resources) -> None:
        queue, aftercare = Rows("endless", "a"), Aftercare()
        queue.gates["endless"] = asyncio.Event()
        drain = Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, 2, aftercare)
        await drain.run()
        await drain.close(0.05)
        assert queue.done == ["a"]
        assert aftercare.given_back == [("endless", True)]
        assert drain.in_hand == 0


class TestAPause:
    async def test_takes_nothing_until_it_is_over(self, resources: Resources) -> None:
        """As of a worker whose clock is wrong."""
        queue, paused = Rows("one", "two"), [True]
        drain = Drain(Queue.OUTBOX, resources.jobs, queue.claim, queue.work, 2, Aftercare(), lambda: paused[0])
        await drain.run()
        assert (queue.rows, queue.done) == (["one", "two"], [])
        paused[0] = False
        await drain.run()
        await drain.close(GRACE_S)
        assert (queue.rows, sorted(queue.done)) == ([], ["one", "two"])
