"""A clock that leaps ten minutes ahead or behind, in any process of the cluster, for `make test-nightly`."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from scripts.service_stack import API, WORKER
from tests.cluster.clocks import Clocks, find_library
from tests.cluster.environment import APIS, WORKERS, Cluster
from tests.cluster.replica_set import MEMBERS, ReplicaSet
from tests.cluster.trial import Trial, opened_trial

_LIBRARY = find_library()
pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_NIGHTLY"), reason="make test-nightly has time for it"),
    pytest.mark.skipif(_LIBRARY is None, reason="NOT TRIED: needs libfaketime, Debian's package `faketime`"),
]

_OFF_S: Final = 600
_LASTING_S: Final = 20.0
_UNDISTURBED_S: Final = 10.0


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    assert _LIBRARY is not None
    return Clocks(tmp_path_factory.mktemp("clocks") / "offsets", _LIBRARY)


@pytest.fixture(scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory, clocks: Clocks) -> AsyncIterator[Trial]:
    folder = tmp_path_factory.mktemp("wrong_clocks")
    programs = {name: clocks.environment(name) for name in (*APIS, *WORKERS)}
    members = [clocks.environment(f"member-{n}") for n in range(MEMBERS)]
    replica_set = ReplicaSet(folder / "mongo", environments=members)
    cluster = Cluster(folder / "stack", replica_set, own_environment=programs)
    async with opened_trial(folder, cluster) as trial:
        yield trial


@asynccontextmanager
async def _off(clocks: Clocks, name: str, ahead_s: int) -> AsyncIterator[None]:
    clocks.set(name, ahead_s)
    try:
        yield
    finally:
        clocks.set(name, 0)


@pytest.mark.parametrize("ahead_s", [_OFF_S, -_OFF_S])
@pytest.mark.parametrize("name", [API, WORKER])
async def test_a_clock_that_leaps_and_is_right_again(trial: Trial, clocks: Clocks, name: str, ahead_s: int) -> None:
    fault = _off(clocks, name, ahead_s)
    await trial.under(f"clock of one {name} {ahead_s / 60:+.0f} min", fault, lasting_s=_LASTING_S)


async def test_a_secondary_whose_clock_is_behind_is_nobodys_trouble(trial: Trial, clocks: Clocks) -> None:
    members = trial.cluster.replica_set
    secondary, *_ = await asyncio.to_thread(members.secondaries)
    fault = _off(clocks, f"member-{members.members.index(secondary)}", -_OFF_S)
    figures = await trial.under(f"clock of a secondary {-_OFF_S / 60:+.0f} min", fault, lasting_s=_LASTING_S)
    assert figures.without_writes_s < _UNDISTURBED_S


async def test_a_primarys_clock_that_is_behind_stops_everybody_until_it_is_right_again(
    trial: Trial, clocks: Clocks
) -> None:
    await _under_a_wrong_primary(trial, clocks, -_OFF_S)


# What is ahead comes last: the set's logical time never goes back.
async def test_a_primarys_clock_that_was_ahead_leaves_nothing_waiting_until_that_time(
    trial: Trial, clocks: Clocks
) -> None:
    """Until everybody notices, within 2 s, rows and the simulated bank's orders get times by it."""
    await _under_a_wrong_primary(trial, clocks, _OFF_S)


async def test_a_secondary_whose_clock_is_ahead_may_become_such_a_primary(trial: Trial, clocks: Clocks) -> None:
    """It stands for election at once, since its timers go by that clock."""
    members = trial.cluster.replica_set
    secondary, *_ = await asyncio.to_thread(members.secondaries)
    fault = _off(clocks, f"member-{members.members.index(secondary)}", _OFF_S)
    figures = await trial.under(f"clock of a secondary {_OFF_S / 60:+.0f} min", fault, lasting_s=_LASTING_S)
    assert figures.tracebacks == 0


async def _under_a_wrong_primary(trial: Trial, clocks: Clocks, ahead_s: int) -> None:
    """Everybody goes by it."""
    members = trial.cluster.replica_set
    primary = await asyncio.to_thread(members.primary)
    fault = _off(clocks, f"member-{members.members.index(primary)}", ahead_s)
    figures = await trial.under(f"clock of the primary {ahead_s / 60:+.0f} min", fault, lasting_s=_LASTING_S)
    assert figures.tracebacks == 0
