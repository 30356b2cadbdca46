"""A cluster for the tests of one file."""

from collections.abc import AsyncIterator

import pytest

from tests.cluster.environment import Cluster
from tests.cluster.outside_client import Journal, OutsideClient
from tests.cluster.replica_set import ReplicaSet
from tests.cluster.trial import Trial
from tests.stack_fixtures import databases_of


@pytest.fixture(scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trial]:
    """Members, APIs and workers at their own ports, with six people who have money."""
    folder = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(folder / "stack", ReplicaSet(folder / "mongo"))
    try:
        await cluster.start()
        client = OutsideClient(cluster.base_urls, Journal(folder / "journal.jsonl"))
        await client.open()
        async with databases_of(cluster.stack) as databases:
            yield Trial(cluster, client, databases)
        await client.close()
    finally:
        cluster.stop()
