"""Background tasks end when they are told to, whatever their calls make of it."""

import asyncio

from service.background import end


async def test_a_task_that_took_its_end_for_an_outage_ends_all_the_same() -> None:
    begun = asyncio.Event()

    async def live() -> None:
        while True:
            try:
                begun.set()
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                # As the driver may, in the middle of a call.
                await asyncio.sleep(60)

    task = asyncio.create_task(live())
    await begun.wait()
    await asyncio.wait_for(end(task), 20)
    assert task.done()


async def test_what_they_raise_is_nobodys_concern() -> None:
    async def fail() -> None:
        raise ValueError

    await end(asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(60)))


async def test_there_may_be_none() -> None:
    await end()
