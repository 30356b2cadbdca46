"""A bank that is down for a minute under load: what requests notice of it, and how soon everything has ended.

Requests come at a steady rate, whatever becomes of those before them, and each is timed from the moment at which it was
due: a service that stalls cannot hide it.
"""

import asyncio
import http.client
import itertools
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import quantiles
from time import perf_counter
from typing import Any, Final, NamedTuple
from uuid import uuid4

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scripts.bench.drain import QUICK_BANK
from scripts.bench.load_users import LoadUsers
from scripts.bench.report import Traffic
from scripts.check_ledger import check_ledger
from scripts.ledger_rules import Breach
from scripts.server_process import LOOPBACK
from scripts.service_stack import WORKER, Stack
from service.database import Databases, bind_documents, connect
from service.domain.clock import utc_now
from service.repositories import bank_conditions
from service.settings import Settings

_PER_SECOND: Final = 100
_NORMAL_S: Final = 30.0
_DOWN_S: Final = 60.0
_SETTLED_TARGET_S: Final = 60.0
_P99_TARGET: Final = 2.0
_WARM_UP_S: Final = 5.0
_LOOK_S: Final = 0.25
_LONGEST_S: Final = 300.0
_CONNECTIONS: Final = 64
_OPEN: Final = ("pending", "processing")


class Phase(StrEnum):
    WARM_UP = "warm-up"
    NORMAL = "normal"
    DOWN = "down"
    AFTER = "after"


@dataclass(slots=True)
class Seen:
    """What clients saw in one phase."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)
    hints: int = 0

    @property
    def p99_ms(self) -> float:
        return quantiles(self.took_ms, n=100)[-1] if len(self.took_ms) > 1 else 0.0


class OutageReport(NamedTuple):
    seen: dict[Phase, Seen]
    down_s: float
    waiting: int
    settled_s: float
    most_attempts: int
    statuses: dict[str, int]
    breaches: list[Breach]

    @property
    def refused(self) -> int:
        return sum(count for one in self.seen.values() for status, count in one.statuses.items() if status != _ACCEPTED)

    @property
    def p99_ratio(self) -> float:
        return self.seen[Phase.DOWN].p99_ms / max(self.seen[Phase.NORMAL].p99_ms, 1e-9)

    @property
    def is_sound(self) -> bool:
        return not self.refused and not self.breaches and set(self.statuses) == {"success"}

    @property
    def is_met(self) -> bool:
        return self.is_sound and self.settled_s <= _SETTLED_TARGET_S and self.p99_ratio <= _P99_TARGET

    def facts(self) -> dict[str, Any]:
        return {
            "requests": {phase: sum(one.statuses.values()) for phase, one in self.seen.items()},
            "p99_ms": {phase: round(one.p99_ms, 1) for phase, one in self.seen.items()},
            "p99_ratio": round(self.p99_ratio, 2),
            "refused": self.refused,
            "hints": self.seen[Phase.DOWN].hints,
            "waiting": self.waiting,
            "down_s": self.down_s,
            "settled_s": round(self.settled_s, 1),
            "most_attempts": self.most_attempts,
            "statuses": self.statuses,
            "is_met": self.is_met,
            "breaches": [breach._asdict() for breach in self.breaches],
        }


_ACCEPTED: Final = 202


class OutageBench:
    """On a stack of its own or the bench's, with one worker."""

    def __init__(self, stack: Stack, users: LoadUsers, settings: Settings, restart_api: Callable[[], None]) -> None:
        self._stack = stack
        self._users = users
        self._settings = settings
        self._restart_api = restart_api

    def run(self, *, down_s: float = _DOWN_S, hangs: bool = False) -> OutageReport:
        before = dict(self._stack.settings)
        self._stack.settings |= QUICK_BANK
        self._restart_api()
        asyncio.run(self._users.start_afresh())
        file = self._users.write_requests(self._stack.data_dir)[Traffic.SPREAD]
        requests = [line.split("\t") for line in file.read_text().splitlines()]
        self._stack.start_worker()
        try:
            return asyncio.run(self._measure(requests, down_s, hangs=hangs))
        finally:
            self._stack.stop(WORKER)
            self._stack.settings = before
            self._restart_api()

    async def _measure(self, requests: Sequence[list[str]], down_s: float, *, hangs: bool) -> OutageReport:
        databases = connect(self._settings.mongo_url.get_secret_value(), self._settings)
        try:
            await bind_documents(databases)
            async with _load(self._stack.api_port, requests) as load:
                await asyncio.sleep(_WARM_UP_S)
                load.phase = Phase.NORMAL
                await asyncio.sleep(_NORMAL_S)
                load.phase = Phase.DOWN
                until = utc_now() + timedelta(seconds=down_s)
                await bank_conditions.go_down(until, hangs=hangs)
                await asyncio.sleep(down_s)
                load.phase = Phase.AFTER
                waiting, settled_s = await _until_settled(databases, until)
            # What came afterwards as well, before the books are looked at.
            await _until_settled(databases, utc_now())
            withdrawals = databases.wallet["withdrawals"]
            groups = await withdrawals.aggregate(
                [{"$group": {"_id": "$status", "count": {"$sum": 1}, "attempts": {"$max": "$attempts"}}}]
            )
            found = await groups.to_list()
            return OutageReport(
                load.seen,
                down_s,
                waiting,
                settled_s,
                max(int(one["attempts"]) for one in found),
                {one["_id"]: one["count"] for one in found},
                await check_ledger(databases),
            )
        finally:
            await databases.close()


@dataclass(slots=True)
class _Load:
    phase: Phase = Phase.WARM_UP
    seen: dict[Phase, Seen] = field(default_factory=lambda: {phase: Seen() for phase in Phase})


class _Callers:
    """Connections that stay open, one a thread: of httpx, whoever measures would take the processor time from what is
    measured, and then wait for itself.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._threads = ThreadPoolExecutor(_CONNECTIONS)
        self._own = threading.local()

    async def post(self, token: str, body: str) -> tuple[int, bool]:
        """The status, 0 for none, and whether the answer says when to come again."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._post, token, body)

    def _post(self, token: str, body: str) -> tuple[int, bool]:
        """Once more under its key where the connection breaks, as any client should."""
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=60)
        connection: http.client.HTTPConnection = self._own.connection
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": uuid4().hex,
        }
        for _ in range(2):
            try:
                connection.request("POST", "/api/v1/withdrawals", body, headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                # It opens again by itself.
                connection.close()
            else:
                return answer.status, "Retry-After" in answer.headers
        return 0, False

    def close(self) -> None:
        self._threads.shutdown()


@asynccontextmanager
async def _load(port: int, requests: Sequence[list[str]]) -> AsyncIterator[_Load]:
    """As long as the block lasts, and until what was sent in it is answered."""
    load = _Load()
    lines = random.Random(1).sample(requests, len(requests))  # noqa: S311 an order, not a secret
    callers = _Callers(port)
    sending = asyncio.create_task(_send_steadily(callers, lines, load))
    try:
        yield load
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        callers.close()


async def _send_steadily(callers: _Callers, lines: Sequence[list[str]], load: _Load) -> None:
    started = perf_counter()
    open_requests: set[asyncio.Task[None]] = set()
    try:
        for number, (token, body) in enumerate(itertools.cycle(lines)):
            due = started + number / _PER_SECOND
            await asyncio.sleep(max(0.0, due - perf_counter()))
            task = asyncio.create_task(_send(callers, token, body, due, load.seen[load.phase]))
            open_requests.add(task)
            task.add_done_callback(open_requests.discard)
    finally:
        await asyncio.gather(*open_requests)


async def _send(callers: _Callers, token: str, body: str, due: float, seen: Seen) -> None:
    status, has_hint = await callers.post(token, body)
    seen.statuses[status] += 1
    if status:
        seen.took_ms.append((perf_counter() - due) * 1000)
        seen.hints += has_hint


async def _until_settled(databases: Databases, accepted_before: datetime) -> tuple[int, float]:
    """How many of those accepted before that moment still wait, and in how many seconds none does."""
    started = perf_counter()
    waiting: int | None = None
    while True:
        wanted = {"status": {"$in": list(_OPEN)}, "created_at": {"$lt": accepted_before}}
        found = await databases.wallet["withdrawals"].count_documents(wanted)
        waiting = found if waiting is None else waiting
        if not found or perf_counter() - started > _LONGEST_S:
            return waiting, perf_counter() - started
        await asyncio.sleep(_LOOK_S)


def table_of_outage(report: OutageReport) -> Table:
    seen = report.seen
    table = Table(box=SIMPLE_HEAD, caption=f"{_PER_SECOND} withdrawals a second all the time", caption_justify="left")
    table.add_column(f"the bank down for {report.down_s:.0f} s", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("")
    down, normal, after = (seen[phase] for phase in (Phase.DOWN, Phase.NORMAL, Phase.AFTER))
    p99 = f"{report.p99_ratio:.2f} ({down.p99_ms:.1f} and {normal.p99_ms:.1f} ms)"
    settled = f"{report.settled_s:.1f} s for {report.waiting:,} that waited"
    rows = (
        ("requests refused", _refusals(report), "0", not report.refused),
        ("ended otherwise than well", str(_others(report)), "0", not _others(report)),
        ("p99 of a request while it is down / before", p99, f"≤ {_P99_TARGET:g}", report.p99_ratio <= _P99_TARGET),
        ("all settled after its return", settled, f"≤ {_SETTLED_TARGET_S:g} s", report.settled_s <= _SETTLED_TARGET_S),
        ("ledger", f"{len(report.breaches)} breaches", "0", not report.breaches),
    )
    for name, measured, target, is_met in rows:
        table.add_row(name, measured, target, "[green]ok[/green]" if is_met else "[red]missed[/red]")
    table.add_row("p99 of a request while the backlog is worked down", f"{after.p99_ms:.1f} ms", "none", "")
    table.add_row("most submissions of one order", str(report.most_attempts), "none", "")
    return table


def _refusals(report: OutageReport) -> str:
    """How many, and when with which status; 0 is a connection that broke."""
    found = [
        f"{count} x {status} ({phase})"
        for phase, seen in report.seen.items()
        for status, count in seen.statuses.items()
        if status != _ACCEPTED
    ]
    return ", ".join(found) or "0"


def _others(report: OutageReport) -> int:
    return sum(count for status, count in report.statuses.items() if status != "success")
