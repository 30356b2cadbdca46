"""What one worker gets done: withdrawals that wait are taken to a bank without delay, and its callbacks applied.

They are accepted while the worker stands still, so that either figure is of one thing only; then it works them all
down, beside the API that takes the bank's callbacks, and MongoDB.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scripts.bench.load_users import LoadUsers
from scripts.bench.report import Cell, Traffic
from scripts.bench.wrk import Measurement, Target, run_wrk
from scripts.check_ledger import check_ledger
from scripts.ledger_rules import Breach
from scripts.server_process import EmbeddedServerError, used_cpu_s, wait_until
from scripts.service_stack import API, WORKER, Stack
from service.database import Databases, connect
from service.domain.clock import utc_now
from service.settings import Settings

QUICK_BANK: Final = {
    "WALLET_BANK_DELAY_MIN_S": "0",
    "WALLET_BANK_DELAY_MAX_S": "0",
    "WALLET_BANK_SUCCESS_RATE": "1",
    "WALLET_BANK_TIMEOUT_RATE": "0",
    "WALLET_BANK_ERROR_RATE": "0",
}
_CONNECTIONS: Final = 32
_ACCEPTING_S: Final = 2
# Fewer are over before the worker is at its pace.
_FEWEST: Final = 2000
_TARGET_PER_SECOND: Final = 300.0
_LOOK_S: Final = 0.1
_LONGEST_S: Final = 300.0
_WORKER_START_S: Final = 60.0
_STARTED: Final = "worker.started"


class DrainRun(NamedTuple):
    """One backlog, from the first request to the end of the last withdrawal. Processor time is in seconds."""

    accepted: list[Measurement]
    drained: int
    seconds: float
    oldest_s: float
    worker_cpu_s: float
    api_cpu_s: float
    mongod_cpu_s: float
    breaches: list[Breach]

    @property
    def accepted_per_second(self) -> float:
        return sum(one.requests for one in self.accepted) / sum(one.seconds for one in self.accepted)

    @property
    def per_second(self) -> float:
        return self.drained / self.seconds

    def cpu_s_per_thousand(self, used_s: float) -> float:
        return used_s / self.drained * 1000


class DrainReport(NamedTuple):
    runs: list[DrainRun]

    @property
    def per_second(self) -> float:
        return median(run.per_second for run in self.runs)

    @property
    def is_met(self) -> bool:
        return self.per_second >= _TARGET_PER_SECOND

    @property
    def errors(self) -> int:
        return sum(one.errors for run in self.runs for one in run.accepted)

    @property
    def breaches(self) -> list[Breach]:
        return [breach for run in self.runs for breach in run.breaches]

    def middle(self, figure: Callable[[DrainRun], float]) -> float:
        return median(figure(run) for run in self.runs)

    def facts(self) -> dict[str, Any]:
        return {
            "accepted_per_second": round(self.middle(lambda run: run.accepted_per_second), 1),
            "drained_per_second": round(self.per_second, 1),
            "drained_per_second_by_round": [round(run.per_second, 1) for run in self.runs],
            "oldest_s": round(self.middle(lambda run: run.oldest_s), 1),
            "worker_cpu_s_per_thousand": round(self.middle(lambda r: r.cpu_s_per_thousand(r.worker_cpu_s)), 2),
            "api_cpu_s_per_thousand": round(self.middle(lambda r: r.cpu_s_per_thousand(r.api_cpu_s)), 2),
            "mongod_cpu_s_per_thousand": round(self.middle(lambda r: r.cpu_s_per_thousand(r.mongod_cpu_s)), 2),
            "target_per_second": _TARGET_PER_SECOND,
            "is_met": self.is_met,
            "errors": self.errors,
            "breaches": [breach._asdict() for breach in self.breaches],
        }


class DrainBench:
    """On the stack of the other rows, with a worker that runs for this part only."""

    def __init__(self, stack: Stack, users: LoadUsers, settings: Settings, restart_api: Callable[[], None]) -> None:
        self._stack = stack
        self._users = users
        self._settings = settings
        self._restart_api = restart_api

    def run(self, rounds: int, advance: Callable[[], None]) -> DrainReport:
        before = dict(self._stack.settings)
        self._stack.settings |= QUICK_BANK
        self._restart_api()
        requests = self._users.write_requests(self._stack.data_dir)[Traffic.SPREAD]
        try:
            runs = []
            for _ in range(rounds):
                runs.append(self._measure(requests))
                advance()
        finally:
            self._stack.settings = before
        self._restart_api()
        return DrainReport(runs)

    def _measure(self, requests: Path) -> DrainRun:
        asyncio.run(self._users.start_afresh())
        with self._waiting_worker() as go_on:
            target = Target("POST", f"{self._stack.base_url}/api/v1/withdrawals", 202)
            accepted = [run_wrk(target, requests, _CONNECTIONS, _ACCEPTING_S)]
            while sum(one.requests for one in accepted) < _FEWEST and not accepted[-1].errors:
                accepted.append(run_wrk(target, requests, _CONNECTIONS, _ACCEPTING_S))
            before = self._cpu_s()
            started = time.perf_counter()
            go_on()
            drained, oldest_s = asyncio.run(self._watch())
            seconds = time.perf_counter() - started
            worker_s, api_s, mongod_s = (after - earlier for after, earlier in zip(self._cpu_s(), before, strict=True))
        breaches = asyncio.run(self._check())
        return DrainRun(accepted, drained, seconds, oldest_s, worker_s, api_s, mongod_s, breaches)

    @contextmanager
    def _waiting_worker(self) -> Iterator[Callable[[], None]]:
        """It has started and stands still until it is told to go on."""
        self._stack.log_path(WORKER).unlink(missing_ok=True)
        self._stack.start_worker()
        pid = self._stack.children[WORKER].pid
        try:
            if not wait_until(lambda: _STARTED in self._stack.log_path(WORKER).read_text(), _WORKER_START_S):
                raise EmbeddedServerError("The worker has not started.")
            os.kill(pid, signal.SIGSTOP)
            yield lambda: os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGCONT)
            self._stack.stop(WORKER)

    async def _watch(self) -> tuple[int, float]:
        """Until nothing waits; how much did, and how old the oldest of it got."""
        databases = connect(self._settings.mongo_url.get_secret_value(), self._settings)
        try:
            outbox = databases.wallet["outbox"]
            waiting = await outbox.count_documents({})
            oldest_s = 0.0
            deadline = time.monotonic() + _LONGEST_S
            while oldest := await outbox.find_one({}, {"created_at": 1}, sort=[("_id", 1)]):
                oldest_s = max(oldest_s, (utc_now() - oldest["created_at"]).total_seconds())
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(f"Not worked down within {_LONGEST_S:.0f} s.")
                await asyncio.sleep(_LOOK_S)
        finally:
            await databases.close()
        return waiting, oldest_s

    def _cpu_s(self) -> tuple[float, float, float]:
        mongod = None if self._stack.mongo is None else self._stack.mongo.process
        children = (self._stack.children[name].pid for name in (WORKER, API))
        worker_s, api_s = (used_cpu_s(pid) for pid in children)
        return worker_s, api_s, 0.0 if mongod is None else used_cpu_s(mongod.pid)

    async def _check(self) -> list[Breach]:
        databases: Databases = connect(self._settings.mongo_url.get_secret_value(), self._settings)
        try:
            return await check_ledger(databases)
        finally:
            await databases.close()


def table_of_drain(report: DrainReport) -> Table:
    facts = report.facts()
    table = Table(box=SIMPLE_HEAD, caption="CPU: seconds for 1,000 withdrawals", caption_justify="left")
    table.add_column("one worker, a bank without delay", no_wrap=True)
    headings = ("accepted/s", "drained/s", "target", "oldest s", "worker CPU", "API CPU", "mongod CPU", "errors")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("ledger", no_wrap=True)
    verdict = "[green]ok[/green]" if report.is_met else "[red]missed[/red]"
    table.add_row(
        str(Cell(Traffic.SPREAD, _CONNECTIONS)),
        f"{facts['accepted_per_second']:,.0f}",
        f"{facts['drained_per_second']:,.0f}",
        f"≥ {_TARGET_PER_SECOND:g} {verdict}",
        f"{facts['oldest_s']:.1f}",
        *(f"{facts[f'{part}_cpu_s_per_thousand']:.2f}" for part in ("worker", "api", "mongod")),
        str(facts["errors"]),
        f"[red]{len(report.breaches)} breaches[/red]" if report.breaches else "[green]sound[/green]",
    )
    return table
