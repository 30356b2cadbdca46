"""Four abusers at once beside a quiet user, within the limits that the service has by default.

One opens sockets, one sends batches to a hundred exotic addresses, some send batches of 500, some ask for exports. They
take no notice of refusals. All is bounded, in number and in time; the abusers run in processes of their own, so that
whoever measures does not wait for them.
"""

import asyncio
import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from statistics import quantiles
from time import perf_counter, sleep
from typing import Any, Final, NamedTuple
from uuid import uuid4

from rich.box import SIMPLE_HEAD
from rich.table import Table

from scripts.bench.load_users import LoadUsers, Payer
from scripts.check_ledger import check_ledger
from scripts.ledger_rules import Breach
from scripts.server_process import LOOPBACK
from scripts.service_stack import NO_LIMITS, Stack
from service.database import bind_documents, connect
from service.settings import Settings

# Quiet is who stays below their share of the global limit: of 1,000 a minute, with six who want all, about 140. Both
# phases may fall into one minute.
_PAYMENTS: Final = 50
_EVERY_S: Final = 0.5
_P99_TARGET: Final = 3.0
_LIVEZ_TARGET_S: Final = 1.0
_LIVEZ_EVERY_S: Final = 0.1
# The abusers are there before the first payment that is measured, and stay until after the last one.
_MARGIN_S: Final = 2.0
_LONGEST_S: Final = 120.0

_SENDERS: Final = 4
_EXPORTERS: Final = 8
# Of each of them at one time.
_CONNECTIONS: Final = 4
_BATCH: Final = 500
_EXOTIC: Final = 100
_SOCKETS: Final = 1_500
# Before limits are on, so many batches give the exporters something to export.
_FILLING_BATCHES: Final = 16
_PAUSE_S: Final = 0.02
_TIMEOUT_S: Final = 30.0
# A network of its own, so that what is bounded by address is theirs alone.
_ELSEWHERE: Final = "127.0.0.2"
_CREATED: Final = 201
_OK: Final = 200

_BATCHES_PATH: Final = "/api/v1/transfers/batch"
_STATEMENT: Final = "/api/v1/wallets/{}/statement?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&format=csv"
_UPGRADE: Final = (
    b"GET /api/v1/ws HTTP/1.1\r\nHost: wallet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n"
)


class Quiet(NamedTuple):
    """Holds the times of the quiet user's payments, one after the other, each from the moment at which it was due."""

    took_ms: list[float]
    failures: Counter[int]

    @property
    def p50_ms(self) -> float:
        return quantiles(self.took_ms, n=100)[49]

    @property
    def p99_ms(self) -> float:
        return quantiles(self.took_ms, n=100)[98]


class AbuseReport(NamedTuple):
    """`answers` are those of each abuser by status; 0 is a connection that was refused, closed or broken."""

    alone: Quiet
    beside: Quiet
    livez_worst_s: float
    answers: dict[str, dict[int, int]]
    breaches: list[Breach]

    @property
    def p99_ratio(self) -> float:
        return self.beside.p99_ms / max(self.alone.p99_ms, 1e-9)

    @property
    def failures(self) -> int:
        return self.alone.failures.total() + self.beside.failures.total()

    @property
    def is_sound(self) -> bool:
        return not self.failures and not self.breaches

    @property
    def is_met(self) -> bool:
        return self.is_sound and self.p99_ratio <= _P99_TARGET and self.livez_worst_s <= _LIVEZ_TARGET_S

    def facts(self) -> dict[str, Any]:
        phases = {"alone": self.alone, "beside": self.beside}
        return {
            "payments": {name: len(one.took_ms) for name, one in phases.items()},
            "p50_ms": {name: round(one.p50_ms, 1) for name, one in phases.items()},
            "p99_ms": {name: round(one.p99_ms, 1) for name, one in phases.items()},
            "p99_ratio": round(self.p99_ratio, 2),
            "failures": self.failures,
            "livez_worst_s": round(self.livez_worst_s, 3),
            "answers": self.answers,
            "is_met": self.is_met,
            "breaches": [breach._asdict() for breach in self.breaches],
        }


class AbuseBench:
    """On the bench's stack, with the limits of the service's own defaults."""

    def __init__(self, stack: Stack, users: LoadUsers, settings: Settings, restart_api: Callable[[], None]) -> None:
        self._stack = stack
        self._users = users
        self._settings = settings
        self._restart_api = restart_api

    def run(self) -> AbuseReport:
        before = dict(self._stack.settings)
        asyncio.run(self._users.start_afresh())
        people = self._users.payers(2 + 1 + _SENDERS + _EXPORTERS)
        (quiet, friend, exotic), others = people[:3], people[3:]
        senders, exporters = others[:_SENDERS], others[_SENDERS:]
        self._fill(senders[0], exporters)
        for name in NO_LIMITS:
            self._stack.settings.pop(name, None)
        self._restart_api()
        port = self._stack.api_port
        try:
            _pay_steadily(port, quiet, friend, 10)
            alone = _pay_steadily(port, quiet, friend, _PAYMENTS)
            beside, livez_worst_s, answers = _beside(port, quiet, friend, exotic, senders, exporters)
        finally:
            self._stack.settings = before
            self._restart_api()
        return AbuseReport(alone, beside, livez_worst_s, answers, asyncio.run(self._check()))

    def _fill(self, sender: Payer, exporters: Sequence[Payer]) -> None:
        for _ in range(_FILLING_BATCHES):
            status = _ask(self._stack.api_port, "POST", _BATCHES_PATH, sender.token, _batch(sender, exporters))
            if status != _CREATED:
                raise RuntimeError(f"filling the wallets was answered with {status}")

    async def _check(self) -> list[Breach]:
        databases = connect(self._settings.mongo_url.get_secret_value(), self._settings)
        try:
            await bind_documents(databases)
            return await check_ledger(databases)
        finally:
            await databases.client.close()


def _beside(
    port: int, quiet: Payer, friend: Payer, exotic: Payer, senders: Sequence[Payer], exporters: Sequence[Payer]
) -> tuple[Quiet, float, dict[str, dict[int, int]]]:
    seconds = _PAYMENTS * _EVERY_S + 2 * _MARGIN_S
    addresses = _exotic_batch(exotic)
    abusers: dict[str, tuple[Callable[..., Counter[int]], Any]] = {
        "sockets": (_open_sockets, ()),
        "batches to 100 exotic addresses": (_send, [("POST", _BATCHES_PATH, exotic.token, addresses)]),
        "batches of 500": (
            _send,
            [("POST", _BATCHES_PATH, one.token, _batch(one, exporters)) for one in senders],
        ),
        "exports": (_send, [("GET", _STATEMENT.format(one.wallet_id), one.token, None) for one in exporters]),
    }
    ended = threading.Event()
    with ProcessPoolExecutor(len(abusers), mp_context=get_context("spawn")) as processes, ThreadPoolExecutor(1) as one:
        running: dict[str, Future[Counter[int]]] = {
            name: processes.submit(abuse, port, work, seconds) for name, (abuse, work) in abusers.items()
        }
        worst = one.submit(_watch_livez, port, ended)
        try:
            sleep(_MARGIN_S)
            seen = _pay_steadily(port, quiet, friend, _PAYMENTS)
        finally:
            ended.set()
        answers = {name: dict(found.result(_LONGEST_S)) for name, found in running.items()}
        return seen, worst.result(_LONGEST_S), answers


def _pay_steadily(port: int, payer: Payer, recipient: Payer, count: int) -> Quiet:
    body = {"from_wallet_id": payer.wallet_id, "to_wallet_id": recipient.wallet_id, "amount": 1, "currency": "INR"}
    seen = Quiet([], Counter())
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    started = perf_counter()
    for number in range(count):
        due = started + number * _EVERY_S
        sleep(max(0.0, due - perf_counter()))
        status = _ask_on(connection, "POST", "/api/v1/transfers", payer.token, body | {"currency": payer.currency})
        seen.took_ms.append((perf_counter() - due) * 1000)
        if status != _CREATED:
            seen.failures[status] += 1
    connection.close()
    return seen


def _watch_livez(port: int, ended: threading.Event) -> float:
    worst_s = 0.0
    while not ended.wait(_LIVEZ_EVERY_S):
        began_s = perf_counter()
        status = _ask(port, "GET", "/livez", "", None)
        worst_s = max(worst_s, perf_counter() - began_s if status == _OK else _TIMEOUT_S)
    return worst_s


def _send(port: int, requests: Sequence[tuple[str, str, str, Any]], seconds: float) -> Counter[int]:
    """Each request again and again, on some connections each."""
    until_s = perf_counter() + seconds
    answers: Counter[int] = Counter()
    lock = threading.Lock()

    def repeat(method: str, path: str, token: str, body: Any) -> None:  # noqa: ANN401 JSON can be anything
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S, source_address=(_ELSEWHERE, 0))
        while perf_counter() < until_s:
            status = _ask_on(connection, method, path, token, body)
            with lock:
                answers[status] += 1
            sleep(_PAUSE_S)
        connection.close()

    with ThreadPoolExecutor(len(requests) * _CONNECTIONS) as threads:
        for one in [request for request in requests for _ in range(_CONNECTIONS)]:
            threads.submit(repeat, *one)
    return answers


def _open_sockets(port: int, _work: object, seconds: float) -> Counter[int]:
    """Half of them send an upgrade with a body, the rest nothing; all stay open for as long as they may."""
    until_s = perf_counter() + seconds
    answers: Counter[int] = Counter()
    kept: list[socket.socket] = []
    for number in range(_SOCKETS):
        if perf_counter() >= until_s:
            break
        try:
            opened = socket.create_connection((LOOPBACK, port), timeout=1, source_address=(_ELSEWHERE, 0))
            kept.append(opened)
            opened.sendall(_UPGRADE if number % 2 else b"GET ")
            opened.settimeout(0.01)
            head = opened.recv(64).split(b" ")
            answers[int(head[1]) if len(head) > 1 and head[1].isdigit() else 0] += 1
        except TimeoutError:
            # It is open, and nothing has been said yet.
            answers[_OK] += 1
        except OSError:
            answers[0] += 1
    sleep(max(0.0, until_s - perf_counter()))
    for one in kept:
        one.close()
    return answers


def _ask(port: int, method: str, path: str, token: str, body: Any) -> int:  # noqa: ANN401 JSON can be anything
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    try:
        return _ask_on(connection, method, path, token, body)
    finally:
        connection.close()


def _ask_on(connection: http.client.HTTPConnection, method: str, path: str, token: str, body: Any) -> int:  # noqa: ANN401 JSON
    """The status, or 0 where the connection broke; it opens again by itself."""
    headers = {"Idempotency-Key": uuid4().hex} if method == "POST" else {}
    if token:
        headers |= {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0
    return answer.status


def _batch(sender: Payer, recipients: Sequence[Payer]) -> dict[str, Any]:
    others = [one for one in recipients if one.wallet_id != sender.wallet_id]
    order = {"from_wallet_id": sender.wallet_id, "amount": 1, "currency": sender.currency}
    transfers = [order | {"to_wallet_id": others[number % len(others)].wallet_id} for number in range(_BATCH)]
    return {"mode": "best_effort", "transfers": transfers}


def _exotic_batch(sender: Payer) -> dict[str, Any]:
    order = {"from_wallet_id": sender.wallet_id, "amount": 1, "currency": sender.currency}
    exotic = [
        f"{number}\u0131\u0323\u00df@" + ".".join(["\u1e9e\u0dcf\u0308\u5341"] * 12) + ".example"
        for number in range(_EXOTIC)
    ]
    return {
        "mode": "best_effort",
        "transfers": [order | {"to_email": exotic[number % _EXOTIC][:254]} for number in range(_BATCH)],
    }


def table_of_abuse(report: AbuseReport) -> Table:
    table = Table(box=SIMPLE_HEAD, caption=f"{_PAYMENTS} payments, two a second", caption_justify="left")
    table.add_column("a quiet user beside four abusers", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("")
    alone, beside = report.alone, report.beside
    failures = dict(alone.failures + beside.failures)
    p99 = f"{report.p99_ratio:.2f} ({beside.p99_ms:.1f} and {alone.p99_ms:.1f} ms)"
    rows = (
        ("payments that failed", str(failures or 0), "0", not report.failures),
        ("p99 of a payment beside them / alone", p99, f"≤ {_P99_TARGET:g}", report.p99_ratio <= _P99_TARGET),
        (
            "slowest answer of /livez",
            f"{report.livez_worst_s * 1000:.0f} ms",
            f"≤ {_LIVEZ_TARGET_S:g} s",
            report.livez_worst_s <= _LIVEZ_TARGET_S,
        ),
        ("ledger", f"{len(report.breaches)} breaches", "0", not report.breaches),
    )
    for name, measured, target, is_met in rows:
        table.add_row(name, measured, target, "[green]ok[/green]" if is_met else "[red]missed[/red]")
    table.add_row("p50 of a payment", f"{beside.p50_ms:.1f} and {alone.p50_ms:.1f} ms", "none", "")
    for name, answers in report.answers.items():
        shown = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(answers.items()))
        table.add_row(f"answers to {name}", shown, "none", "")
    return table
