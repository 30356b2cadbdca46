"""What is done to the cluster: each strikes at the start of its block and is mended at the end of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pymongo.errors import PyMongoError

from tests.cluster.environment import APIS, WORKERS, Cluster

_LAG_S: Final = 8.0


@asynccontextmanager
async def killed_primary(cluster: Cluster) -> AsyncIterator[None]:
    dead = await asyncio.to_thread(cluster.replica_set.primary)
    dead.kill()
    yield
    await asyncio.to_thread(dead.start)


@asynccontextmanager
async def frozen_primary(cluster: Cluster) -> AsyncIterator[None]:
    """It keeps its connections, and says nothing; afterwards it still believes that it is the primary."""
    frozen = await asyncio.to_thread(cluster.replica_set.primary)
    frozen.freeze()
    yield
    frozen.resume()


@asynccontextmanager
async def primary_that_steps_down(cluster: Cluster) -> AsyncIterator[None]:
    primary = await asyncio.to_thread(cluster.replica_set.primary)

    def step_down() -> None:
        # It may close the connection instead of answering.
        with primary.client() as client, contextlib.suppress(PyMongoError):
            client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)

    await asyncio.to_thread(step_down)
    yield


@asynccontextmanager
async def no_majority(cluster: Cluster) -> AsyncIterator[None]:
    """The primary and one more are dead: who is left may not decide anything."""
    primary = await asyncio.to_thread(cluster.replica_set.primary)
    dead = [primary, (await asyncio.to_thread(cluster.replica_set.secondaries))[0]]
    for member in dead:
        member.kill()
    yield
    await asyncio.to_thread(cluster.replica_set.start_members, dead)


@asynccontextmanager
async def lagging_secondary(cluster: Cluster) -> AsyncIterator[None]:
    """Frozen until it is far behind. Then the primary dies, and the two that are left need each other."""
    replica_set = cluster.replica_set
    lagging, *_ = await asyncio.to_thread(replica_set.secondaries)
    lagging.freeze()
    await asyncio.sleep(_LAG_S)
    dead = await asyncio.to_thread(replica_set.primary)
    dead.kill()
    lagging.resume()
    yield
    await asyncio.to_thread(dead.start)


@asynccontextmanager
async def frozen(cluster: Cluster, *names: str) -> AsyncIterator[None]:
    for name in names:
        cluster.freeze(name)
    yield
    for name in names:
        cluster.resume(name)


@asynccontextmanager
async def killed(cluster: Cluster, *names: str) -> AsyncIterator[None]:
    for name in names:
        cluster.kill(name)
    yield
    for name in names:
        cluster.start_program(name)
    await cluster.wait_until_ready()


@asynccontextmanager
async def power_cut(cluster: Cluster) -> AsyncIterator[None]:
    await asyncio.to_thread(cluster.cut_power)
    yield
    await cluster.restore_power()


@asynccontextmanager
async def rolling_restart(cluster: Cluster) -> AsyncIterator[None]:
    for name in (*APIS, *WORKERS):
        await cluster.restart(name)
    yield
