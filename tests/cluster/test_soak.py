"""A soak: two APIs and two workers for ten minutes on a machine that is busy with other work. Nothing fails.

`make soak` runs it; MINUTES, NEIGHBOURS and RATE say for how long, beside how many other busy processes and with how
many requests a second. They are sent when they are due, however slowly the service answers.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.cluster.environment import Cluster
from tests.cluster.measures import USUAL_RATE, least_accepted, read_measure
from tests.cluster.outside_client import MOST_IN_FLIGHT, Kind, Offered
from tests.cluster.replica_set import ReplicaSet
from tests.cluster.trial import ALL_ENDED_S, Trial, opened_trial
from tests.cluster.verdict import verify, wait_until_all_ended

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_NIGHTLY"), reason="make soak and make test-nightly have time for it"),
    pytest.mark.skipif(sys.platform != "linux", reason="NOT TRIED: reads memory from /proc"),
]

_MINUTES: Final = read_measure("MINUTES", 10, os.environ)
_NEIGHBOURS: Final = int(os.environ.get("TEST_SOAK_NEIGHBOURS", "2"))
_RATE: Final = read_measure("RATE", USUAL_RATE, os.environ)
# A process that has filled its caches and pools grows no further. What it has after a minute counts as its start.
_SETTLED_S: Final = 60.0
_MOST_GROWTH_MB: Final = 64.0
_KB_PER_MB: Final = 1024


class Soak(NamedTuple):
    """What a soak came to. Memory is of each process in MB: once it has settled, and at the end."""

    minutes: float
    load: float
    offered: Offered
    requests: int
    accepted: int
    captures: int
    answers: Counter[int]
    longest_gap_s: float
    ended_s: float
    tracebacks: int
    told: Counter[str]
    rows_put_back: Counter[str]
    memory_mb: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        seconds, offered = self.minutes * 60, self.offered
        memory = ", ".join(f"{name} {begin:.0f} to {end:.0f}" for name, (begin, end) in self.memory_mb.items())
        return "\n".join(
            [
                f"soak of {self.minutes:g} min, load {self.load:.1f} on {os.cpu_count()} processors",
                f"{offered.due} requests due, {_RATE:g} a second; at most {offered.most_in_flight} unanswered",
                f"{offered.kept_back} of them not sent, since {MOST_IN_FLIGHT} were unanswered",
                f"{self.requests} requests sent, {self.requests / seconds:.1f} a second, {self.accepted} accepted",
                f"{self.captures} of the requests are captures, which follow their holds",
                f"answers {dict(self.answers)}; {self.longest_gap_s:.2f} s without one at most",
                f"all ended {self.ended_s:.1f} s after the last; {self.tracebacks} tracebacks",
                f"logged above info: {dict(self.told)}",
                f"rows put back: {dict(self.rows_put_back)}",
                f"memory in MB: {memory}",
            ]
        )


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncIterator[Trial]:
    cluster = Cluster(tmp_path / "stack", ReplicaSet(tmp_path / "mongo"), settings={"WALLET_LOG_DEBUG": "true"})
    async with opened_trial(tmp_path, cluster) as trial:
        yield trial


@contextmanager
def _busy_neighbours(number: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


def _memory_mb(cluster: Cluster) -> dict[str, float]:
    return {name: _resident_mb(child.pid) for name, child in cluster.stack.children.items()}


def _resident_mb(pid: int) -> float:
    """proc_pid_status(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / _KB_PER_MB
    raise AssertionError(f"{pid} has ended")


class _Logged(NamedTuple):
    tracebacks: int
    told: Counter[str]
    rows_put_back: Counter[str]


def _logged(folder: Path) -> _Logged:
    """Of all programs: events above info, and rows put back, by queue."""
    tracebacks, told, rows_put_back = 0, Counter[str](), Counter[str]()
    for path in folder.glob("*.log"):
        for line in path.read_text().splitlines():
            tracebacks += line.count("Traceback (most recent call last)")
            facts = _facts_of(line)
            level, event = facts.get("level"), str(facts.get("event"))
            if level in ("warning", "error", "critical"):
                told[f"{level} {event}"] += 1
            if event == "outage.row_put_back":
                rows_put_back[str(facts["queue"])] += 1
    return _Logged(tracebacks, told, rows_put_back)


def _facts_of(line: str) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


@asynccontextmanager
async def _load(trial: Trial, minutes: float) -> AsyncIterator[tuple[Offered, dict[str, float]]]:
    """What is offered, and memory once the processes have settled."""
    await trial.client.log_in_again()
    async with trial.client.load_at(_RATE) as offered:
        seconds = minutes * 60
        settled_s = min(_SETTLED_S, seconds / 2)
        await asyncio.sleep(settled_s)
        memory_mb = _memory_mb(trial.cluster)
        await asyncio.sleep(seconds - settled_s)
        yield offered, memory_mb


async def test_a_busy_machine_fails_nothing_and_logs_no_traceback(trial: Trial) -> None:
    with _busy_neighbours(_NEIGHBOURS):
        began = time.monotonic()
        async with _load(trial, _MINUTES) as (offered, settled_mb):
            until, load = time.monotonic(), os.getloadavg()[0]
        last = time.monotonic()
        await wait_until_all_ended(trial.databases, ALL_ENDED_S)
        ended = time.monotonic()
        memory_mb = _memory_mb(trial.cluster)
    await verify(trial.databases, trial.client)
    logged = _logged(trial.cluster.stack.log_dir)
    journal = trial.client.journal
    captures = [request for request in journal.requests if request.kind is Kind.CAPTURE]
    soak = Soak(
        minutes=_MINUTES,
        load=load,
        offered=offered,
        requests=sum(request.sent_s[0] > began for request in journal.requests),
        accepted=sum(request.sent_s[0] > began for request in journal.accepted),
        captures=len(captures),
        answers=journal.statuses(began),
        longest_gap_s=journal.longest_gap_s(began, until),
        ended_s=ended - last,
        tracebacks=logged.tracebacks,
        told=logged.told,
        rows_put_back=logged.rows_put_back,
        memory_mb={name: (settled_mb[name], memory_mb[name]) for name in memory_mb},
    )
    print(soak)  # noqa: T201 pytest -rP shows it
    assert soak.requests - soak.captures == offered.due - offered.kept_back, "what was due was sent or kept back"
    # Of what was sent `verify` has seen that all is accepted but what nobody can pay.
    assert soak.accepted - soak.captures >= least_accepted(offered.due, _RATE)
    assert soak.tracebacks == 0
    assert {event for event in soak.told if not event.startswith("warning ")} <= {"critical bank.is_simulated"}
    assert soak.answers[500] == 0
    for name, (begin_mb, end_mb) in soak.memory_mb.items():
        assert end_mb - begin_mb < _MOST_GROWTH_MB, f"{name} grows: {soak.memory_mb}"
