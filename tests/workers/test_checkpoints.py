"""Checkpoints by themselves: several workers at once make one series, and trouble does not end it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from scripts.verify_proof import check_series
from service.background import end
from service.domain.checkpoints import checkpoint_view, key_id_of
from service.gateways.checkpoint_places import CheckpointFile
from service.repositories import checkpoints as checkpoint_repository
from service.services.checkpoint_series import follow_series
from service.services.checkpoints import list_checkpoints, signing_key
from service.startup import Resources
from tests.factories import make_funded_wallet
from tests.servers import Admin, fail_point
from workers.checkpoints import take_checkpoints_for_ever

_PATIENCE_S = 30.0
# Nothing that the driver would try again by itself.
_BAD_VALUE = 2


@contextlib.asynccontextmanager
async def workers(resources: Resources, many: int) -> AsyncIterator[None]:
    """With a checkpoint every second."""
    eager = resources._replace(settings=resources.settings.model_copy(update={"checkpoint_interval_s": 1}))
    # The database is all tests', and other tests take checkpoints without a copy.
    place = CheckpointFile(eager.settings)
    await follow_series(place, eager.settings.checkpoint_verifier, begins_evidence=True)
    tasks = [asyncio.create_task(take_checkpoints_for_ever(eager)) for _ in range(many)]
    try:
        yield
    finally:
        await end(*tasks)


async def wait_for_more(count: int) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        start = await latest_number()
        while await latest_number() < start + count:  # noqa: ASYNC110 it is the database that has to tell
            await asyncio.sleep(0.02)


async def latest_number() -> int:
    latest = await checkpoint_repository.find_latest()
    return 0 if latest is None else latest.number


class TestWorkers:
    async def test_several_make_one_series(self, resources: Resources) -> None:
        await make_funded_wallet(resources.databases)
        async with workers(resources, 3):
            await wait_for_more(2)
        series = await list_checkpoints(before_number=None, limit=10_000)
        key = signing_key(resources.settings).public_key()
        assert check_series([checkpoint_view(one) for one in series], {key_id_of(key): key})

    async def test_one_that_fails_tries_again(self, resources: Resources, admin: Admin) -> None:
        await make_funded_wallet(resources.databases)
        with fail_point(admin, 1, failCommands=["insert"], errorCode=_BAD_VALUE):
            async with workers(resources, 1):
                await wait_for_more(1)
