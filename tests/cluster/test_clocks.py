"""A clock that leaps ten minutes ahead or behind, in an API and in a worker, for `make test-nightly`.

Not in mongod: under libfaketime its waits between threads take so long that nothing else can be measured.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from scripts.service_stack import API, WORKER
from tests.cluster.clocks import Clocks, find_library
from tests.cluster.environment import APIS, WORKERS, Cluster
from tests.cluster.replica_set import ReplicaSet
from tests.cluster.trial import Trial, opened_trial

_LIBRARY = find_library()
pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_NIGHTLY"), reason="make test-nightly has time for it"),
    pytest.mark.skipif(_LIBRARY is None, reason="NOT TRIED: needs libfaketime, Debian's package `faketime`"),
]

_OFF_S: Final = 600
_LASTING_S: Final = 20.0


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    assert _LIBRARY is not None
    return Clocks(tmp_path_factory.mktemp("clocks") / "offsets", _LIBRARY)


@pytest.fixture(scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory, clocks: Clocks) -> AsyncIterator[Trial]:
    folder = tmp_path_factory.mktemp("wrong_clocks")
    programs = {name: clocks.environment(name) for name in (*APIS, *WORKERS)}
    cluster = Cluster(folder / "stack", ReplicaSet(folder / "mongo"), own_environment=programs)
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
