"""The sweep looks at each queue again and again, whatever becomes of the others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.background import end
from service.domain.dead_letters import Queue
from service.startup import Resources
from tests.workers.test_drain import Aftercare
from workers.drain import Drain
from workers.sweep import sweep_for_ever

_OFTEN = 5


class Looks:
    """What a drain asks for rows: there are none. How often it was asked, and whether that fails, or hangs."""

    def __init__(self, *, fails: bool = False, hangs: bool = False) -> None:
        self.made, self._fails, self._hangs = 0, fails, hangs

    async def __call__(self, _limit: int) -> list[str]:
        self.made += 1
        if self._hangs:
            await asyncio.Event().wait()
        if self._fails:
            raise OSError("away")
        return []


async def _work(row: str) -> None:
    raise AssertionError(f"nobody gave {row} out")


Sweep = Callable[..., None]


@pytest.fixture
async def sweep(resources: Resources) -> AsyncIterator[Sweep]:
    tasks: list[asyncio.Task[Any]] = []

    def start(*looks: Looks) -> None:
        drains = [Drain[str](Queue.OUTBOX, resources.jobs, look, _work, 1, Aftercare()) for look in looks]
        tasks.append(asyncio.create_task(sweep_for_ever(drains, 0.001)))

    yield start
    await end(*tasks)


async def _until_made(looks: Looks, number: int) -> None:
    async with asyncio.timeout(5):
        while looks.made < number:  # noqa: ASYNC110 how often is what counts
            await asyncio.sleep(0.001)


async def test_a_queue_that_hangs_keeps_no_other_waiting(sweep: Sweep) -> None:
    hanging, other = Looks(hangs=True), Looks()
    sweep(hanging, other)
    await _until_made(other, _OFTEN)
    assert hanging.made == 1


async def test_a_queue_that_fails_is_looked_at_again(sweep: Sweep) -> None:
    failing, other = Looks(fails=True), Looks()
    sweep(failing, other)
    await _until_made(failing, _OFTEN)
    await _until_made(other, _OFTEN)
