"""One fault under load, from before it strikes until everything has ended and is right: what it cost, in figures."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from service.database import Databases
from tests.cluster.environment import Cluster
from tests.cluster.outside_client import Journal, OutsideClient
from tests.cluster.verdict import verify, wait_until_all_ended
from tests.stack_fixtures import databases_of

# What is promised, on a machine of the usual speed: everything accepted has ended a minute after the fault.
ALL_ENDED_S: Final = 60.0
WRITES_BACK_LIMIT_S: Final = 60.0
_BEFORE_S: Final = 2.0
_AFTER_S: Final = 1.0
# A folder for the figures of docs/failover.md, one file a line.
_FIGURES: Final = "TEST_CLUSTER_FIGURES"


class Figures(NamedTuple):
    """Of one fault. `without_writes_s` is the longest time in which nobody's request was accepted."""

    fault: str
    without_writes_s: float
    ended_s: float
    requests: int
    refused_for_now: int
    unknown: int
    errors_logged: int
    tracebacks: int

    def __str__(self) -> str:
        return (
            f"{self.fault}: {self.without_writes_s:.2f} s without writes, all ended {self.ended_s:.1f} s after it; "
            f"{self.requests} requests, {self.refused_for_now} x 503, {self.unknown} for a time unknown; "
            f"{self.errors_logged} errors and {self.tracebacks} tracebacks in the logs"
        )


class Trial(NamedTuple):
    cluster: Cluster
    client: OutsideClient
    databases: Databases

    async def under(
        self,
        name: str,
        fault: AbstractAsyncContextManager[None],
        *,
        lasting_s: float,
    ) -> Figures:
        """Fails where anything is not as it has to be; says what the fault cost."""
        await asyncio.to_thread(self.cluster.replica_set.wait_until_whole)
        await self.client.log_in_again()
        logged = self._logged()
        began = time.monotonic()
        async with self.client.load():
            await asyncio.sleep(_BEFORE_S)
            struck = time.monotonic()
            async with fault:
                await asyncio.sleep(lasting_s)
            mended = time.monotonic()
            await self.client.writes_again(mended, WRITES_BACK_LIMIT_S)
            await asyncio.sleep(_AFTER_S)
            until = time.monotonic()
        await wait_until_all_ended(self.databases, mended + ALL_ENDED_S - time.monotonic())
        ended = time.monotonic()
        await verify(self.databases, self.client)
        requests = [request for request in self.client.journal.requests if request.sent_s[0] > began]
        told = self._logged() - logged
        figures = Figures(
            name,
            self.client.journal.longest_gap_s(struck, until),
            ended - mended,
            len(requests),
            sum(503 in request.statuses for request in requests),
            sum(request.was_unknown for request in requests),
            told["error"],
            told["traceback"],
        )
        _keep(figures)
        return figures

    def _logged(self) -> Counter[str]:
        """How many errors and tracebacks the programs have written so far."""
        told: Counter[str] = Counter()
        for path in self.cluster.stack.log_dir.glob("*.log"):
            text = path.read_text()
            told["traceback"] += text.count("Traceback (most recent call last)")
            told["error"] += text.count('"level":"error"') + text.count('"level": "error"')
        return told


@asynccontextmanager
async def opened_trial(folder: Path, cluster: Cluster) -> AsyncIterator[Trial]:
    """With six people who have money; every process of it is gone afterwards, whatever a fault has left."""
    try:
        await cluster.start()
        client = OutsideClient(cluster.base_urls, Journal(folder / "journal.jsonl"))
        try:
            await client.open()
            async with databases_of(cluster.stack) as databases:
                yield Trial(cluster, client, databases)
        finally:
            await client.close()
    finally:
        cluster.stop()


def _keep(figures: Figures) -> None:
    print(figures)  # noqa: T201 pytest -rP shows it
    if folder := os.environ.get(_FIGURES):
        with (Path(folder) / "figures.jsonl").open("a") as file:
            file.write(json.dumps(figures._asdict()) + "\n")
