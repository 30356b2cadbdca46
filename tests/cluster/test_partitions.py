"""A network that is cut without anybody being told, for `make test-nightly`: both ends go on as before."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.cluster.environment import Cluster
from tests.cluster.network import OUTSIDE, Network, Way
from tests.cluster.replica_set import ReplicaSet
from tests.cluster.trial import Trial, opened_trial

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_NIGHTLY"), reason="make test-nightly has time for it"),
    pytest.mark.skipif(sys.platform != "linux", reason="NOT TRIED: whose a connection is, only Linux shows in /proc"),
]

_CUT_S: Final = 15.0
# Measured: 4 to 9 s. An attempt that is under way waits for its 4 s, since nothing closes its connection.
_LOST_PRIMARY_S: Final = 20.0


@pytest.fixture(scope="module")
async def network() -> AsyncIterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory, network: Network) -> AsyncIterator[Trial]:
    """Members are known to each other and to everybody by addresses of the network."""
    folder = tmp_path_factory.mktemp("partitions")
    replica_set = ReplicaSet(folder / "mongo", proxies=network.open)
    async with opened_trial(folder, Cluster(folder / "stack", replica_set)) as trial:
        yield trial


@asynccontextmanager
async def _cut(cluster: Cluster, network: Network, how: Callable[[int], None]) -> AsyncIterator[None]:
    """`how` is told the number of the primary."""
    members = cluster.replica_set.members
    network.know_members([member.process.pid for member in members if member.process is not None])
    primary = await asyncio.to_thread(cluster.replica_set.primary)
    await asyncio.to_thread(how, members.index(primary))
    yield
    await asyncio.to_thread(network.mend)


async def test_a_primary_that_is_cut_off_from_everybody(trial: Trial, network: Network) -> None:
    """It goes on believing that it is the primary, and has what it was sent last; none of that may count."""
    fault = _cut(trial.cluster, network, network.isolate)
    figures = await trial.under("primary cut off", fault, lasting_s=_CUT_S)
    assert figures.without_writes_s < _LOST_PRIMARY_S


async def test_a_primary_that_members_do_not_hear_and_that_hears_them(trial: Trial, network: Network) -> None:
    """One way only: it can send to the others and they cannot ask it."""

    def deafen(primary: int) -> None:
        network.cut([Way(source, primary) for source in (OUTSIDE, 0, 1, 2) if source != primary])

    figures = await trial.under("primary not heard", _cut(trial.cluster, network, deafen), lasting_s=_CUT_S)
    assert figures.without_writes_s < _LOST_PRIMARY_S


async def test_a_primary_that_the_service_alone_does_not_reach(trial: Trial, network: Network) -> None:
    """The set has nothing to mend: the primary stays, so that nothing can be written until the way is there again."""
    fault = _cut(trial.cluster, network, lambda primary: network.cut([Way(OUTSIDE, primary)]))
    await trial.under("service cut off from the primary", fault, lasting_s=_CUT_S)


async def test_a_secondary_that_is_cut_off(trial: Trial, network: Network) -> None:
    """Two of three are a majority."""
    fault = _cut(trial.cluster, network, lambda primary: network.isolate((primary + 1) % 3))
    figures = await trial.under("secondary cut off", fault, lasting_s=_CUT_S)
    assert figures.without_writes_s < _LOST_PRIMARY_S
