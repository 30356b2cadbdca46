"""What is repeated goes on, whatever it raises, and as soon as it asks to."""

import asyncio

import pytest
from pymongo.errors import AutoReconnect

from service.background import end
from service.outages import OutageLog
from tests.logs import own_logs
from workers.repeating import repeat


class Rounds:
    """Of each the trouble that it raises, or in how many seconds it wants to be called again."""

    def __init__(self, *outcomes: Exception | float | None) -> None:
        self.left, self.are_over = list(outcomes), asyncio.Event()

    async def __call__(self) -> float | None:
        outcome = self.left.pop(0) if self.left else None
        if not self.left:
            self.are_over.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def run_to_the_end(rounds: Rounds, pause_s: float) -> None:
    task = asyncio.create_task(repeat("rounds", rounds, pause_s))
    async with asyncio.timeout(10):
        await rounds.are_over.wait()
    assert not task.done()
    await end(task)


async def test_trouble_ends_nothing_and_only_a_defect_has_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.repeating.outages", OutageLog())
    with own_logs() as lines:
        await run_to_the_end(Rounds(AutoReconnect("away"), KeyError("a defect"), None, None), pause_s=0.001)
    assert [(line["event"], "exc_info" in line) for line in lines] == [
        ("outage.began", False),
        ("worker.round_failed", True),
    ]


async def test_one_that_has_more_to_do_is_called_sooner_than_usual() -> None:
    await run_to_the_end(Rounds(0.0, 0.0, 0.0), pause_s=60)
