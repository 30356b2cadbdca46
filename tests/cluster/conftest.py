"""A cluster for the tests of one file."""

from collections.abc import AsyncIterator

import pytest

from tests.cluster.environment import Cluster
from tests.cluster.replica_set import ReplicaSet
from tests.cluster.trial import Trial, opened_trial


@pytest.fixture(scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trial]:
    """Members, APIs and workers at their own ports, with six people who have money."""
    folder = tmp_path_factory.mktemp("cluster")
    async with opened_trial(folder, Cluster(folder / "stack", ReplicaSet(folder / "mongo"))) as trial:
        yield trial
