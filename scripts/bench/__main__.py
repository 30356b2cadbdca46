"""`make bench`: withdrawals under load on a stack of its own, beside the plain design and a trivial request.

What is measured is the API over HTTP with durable commits. No worker runs meanwhile: the bank's work would take the
processor from what is measured, as much from one row as from another. What a worker gets done is a part of its own.
"""

import asyncio
import json
import logging
import os
import platform
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.bench.abuse import AbuseBench, table_of_abuse
from scripts.bench.app import OPEN_REQUESTS_PATH, PING_PATH, PLAIN_PATH
from scripts.bench.drain import DrainBench, DrainReport, table_of_drain
from scripts.bench.face import OFF, Face, FaceBench, table_of_face
from scripts.bench.load_users import LoadUsers
from scripts.bench.outage import OutageBench, OutageReport, table_of_outage
from scripts.bench.report import CELLS, Cell, Ratio, Row, Run, Traffic, ratios, table_of_ratios, table_of_rows
from scripts.bench.wrk import Target, WrkError, find_wrk, run_wrk
from scripts.check_ledger import check_ledger
from scripts.embedded import EmbeddedServerError
from scripts.ledger_rules import Breach
from scripts.server_process import POLL_S, used_cpu_s, wait_until
from scripts.service_stack import API, Stack
from service.database import connect
from service.settings import Settings

_APP_FACTORY: Final = "scripts.bench.app:create_bench_app"
_WITHDRAWALS_PATH: Final = "/api/v1/withdrawals"
_TRANSFERS_PATH: Final = "/api/v1/transfers"
SETTINGS: Final = {
    "WALLET_ENV": "production",
    "WALLET_ALLOW_SIMULATED_BANK": "true",
    "WALLET_ALLOW_FILE_MAILBOX": "true",
    "WALLET_LOG_JSON": "true",
    **OFF,
    # Tokens are made once, before the first row.
    "WALLET_ACCESS_TOKEN_LIFETIME_S": "86400",
}
# Requests whose client has gone go on; on one wallet, the plain design's take seconds.
_QUIET_LIMIT_S: Final = 120.0
_LONGEST_LIST: Final = 10

# The widest table; a narrow terminal wraps its lines, which still tells more than cut-off figures.
_WIDTH: Final = 120

console = Console()


class Part(StrEnum):
    """What `--only` chooses from."""

    LEDGER = "ledger"
    DRAIN = "drain"
    FACE = "face"
    OUTAGE = "outage"
    ABUSE = "abuse"


def main(
    seconds: Annotated[int, typer.Option(help="How long each row is measured, in each round.", min=1)] = 7,
    warm_up: Annotated[int, typer.Option(help="Seconds of the same load before that.", min=1)] = 2,
    rounds: Annotated[int, typer.Option(help="Every row is measured so many times; figures are medians.", min=1)] = 2,
    users: Annotated[int, typer.Option(help="How many wallets 'many' are.", min=1)] = 1000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    only: Annotated[Part | None, typer.Option(help="One part; outage and abuse are measured only so.")] = None,
    strict: Annotated[bool, typer.Option(help="A missed ratio fails the bench too.")] = False,
) -> None:
    """Measure throughput and latency; ends with 1 where a request failed or the ledger is not sound."""
    # The funding's own commits are no news.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        find_wrk()
        with (
            tempfile.TemporaryDirectory(prefix="wallet-bench-") as folder,
            Stack(Path(folder), settings=SETTINGS) as stack,
        ):
            bench = Bench(stack, seconds=seconds, warm_up_s=warm_up, user_count=users)
            bench.start()
            rows = _measure_all(bench, rounds) if only in {None, Part.LEDGER} else []
            drain = _measure_drain(bench, rounds) if only in {None, Part.DRAIN} else None
            face = _measure_face(bench, rounds) if only in {None, Part.FACE} else None
            down = bench.outage().run() if only is Part.OUTAGE else None
            abuse = bench.abuse().run() if only is Part.ABUSE else None
    except (EmbeddedServerError, WrkError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    found = ratios({row.cell: row.per_second for row in rows}) if rows else []
    _show(rows, found, face, drain, down)
    if abuse is not None:
        Console(width=max(console.width, _WIDTH)).print(table_of_abuse(abuse))
    if json_file is not None:
        facts: dict[str, Any] = {
            "machine": {
                "processors": os.cpu_count(),
                "python": platform.python_version(),
                "system": platform.platform(),
            },
            "options": {"seconds": seconds, "warm_up": warm_up, "rounds": rounds, "users": users},
            "rows": [row.facts() for row in rows],
            "ratios": [{**ratio._asdict(), "is_met": ratio.is_met} for ratio in found],
            "face": None if face is None else face.facts(),
            "drain": None if drain is None else drain.facts(),
            "outage": None if down is None else down.facts(),
            "abuse": None if abuse is None else abuse.facts(),
        }
        json_file.write_text(json.dumps(facts, indent=2) + "\n")
    parts = [part for part in (face, drain, down, abuse) if part is not None]
    is_broken = (face is not None and face.errors) or (drain is not None and (drain.errors or drain.breaches))
    is_broken = is_broken or any(part is not None and not part.is_sound for part in (down, abuse))
    is_missed = strict and not all(part.is_met for part in parts)
    if has_failed(rows, found, is_strict=strict) or is_broken or is_missed:
        raise typer.Exit(1)


def has_failed(rows: list[Row], found: list[Ratio], *, is_strict: bool) -> bool:
    if any(row.errors or row.breaches for row in rows):
        return True
    return is_strict and not all(ratio.is_met for ratio in found)


class Bench:
    """The stack under load: brings it to its start, measures a row on it, looks at the ledger."""

    def __init__(self, stack: Stack, *, seconds: int, warm_up_s: int, user_count: int) -> None:
        self._stack = stack
        self._seconds = seconds
        self._warm_up_s = warm_up_s
        self._user_count = user_count

    def start(self) -> None:
        self._stack.start_servers()
        self._settings = settings_of(self._stack)
        self._load_users = asyncio.run(LoadUsers.make(self._settings, self._user_count))
        self._requests = self._load_users.write_requests(self._stack.data_dir)
        self._start_api()

    def _start_api(self) -> None:
        self._stack.start_api(factory=_APP_FACTORY)

    def face(self) -> FaceBench:
        return FaceBench(self._stack, self._load_users, self._start_api, self.measure, self._seconds)

    def drain(self) -> DrainBench:
        return DrainBench(self._stack, self._load_users, self._settings, self._restart_api)

    def abuse(self) -> AbuseBench:
        return AbuseBench(self._stack, self._load_users, self._settings, self._restart_api)

    def outage(self) -> OutageBench:
        return OutageBench(self._stack, self._load_users, self._settings, self._restart_api)

    def _restart_api(self) -> None:
        self._stack.stop(API)
        self._start_api()

    def measure(self, cell: Cell) -> Run:
        if cell.traffic.moves_money:
            asyncio.run(self._load_users.start_afresh())
        target = self._target(cell.traffic)
        requests = self._requests[cell.traffic]
        run_wrk(target, requests, cell.connections, self._warm_up_s)
        self._wait_until_quiet()
        api_before_s, mongod_before_s = self._cpu_s()
        measurement = run_wrk(target, requests, cell.connections, self._seconds)
        api_after_s, mongod_after_s = self._cpu_s()
        self._wait_until_quiet()
        return Run(
            measurement,
            api_cores=(api_after_s - api_before_s) / measurement.seconds,
            mongod_cores=(mongod_after_s - mongod_before_s) / measurement.seconds,
            breaches=asyncio.run(self._check()) if cell.traffic.moves_money else [],
        )

    def _target(self, traffic: Traffic) -> Target:
        base = self._stack.base_url
        match traffic:
            case Traffic.PING:
                return Target("GET", base + PING_PATH, 200)
            case Traffic.SPREAD | Traffic.ONE:
                return Target("POST", base + _WITHDRAWALS_PATH, 202)
            case Traffic.TRANSFERS_SPREAD | Traffic.TRANSFERS_INTO_ONE | Traffic.TRANSFERS_TO_AND_FRO:
                return Target("POST", base + _TRANSFERS_PATH, 201)
            case Traffic.TRANSFER_BATCHES:
                return Target("POST", base + _TRANSFERS_PATH + "/batch", 201)
            case Traffic.PLAIN_SPREAD | Traffic.PLAIN_ONE:
                return Target("POST", base + PLAIN_PATH, 202)

    def _wait_until_quiet(self) -> None:
        def is_quiet() -> bool:
            return httpx.get(self._stack.base_url + OPEN_REQUESTS_PATH).text == "0"

        if not wait_until(is_quiet, _QUIET_LIMIT_S):
            raise EmbeddedServerError(f"Requests are still open {_QUIET_LIMIT_S:.0f} s after the load has ended.")
        # The log lines of the last request.
        time.sleep(POLL_S)

    def _cpu_s(self) -> tuple[float, float]:
        mongod = None if self._stack.mongo is None else self._stack.mongo.process
        return used_cpu_s(self._stack.children[API].pid), 0.0 if mongod is None else used_cpu_s(mongod.pid)

    async def _check(self) -> list[Breach]:
        databases = connect(self._settings.mongo_url.get_secret_value(), self._settings)
        try:
            return await check_ledger(databases)
        finally:
            await databases.close()


def settings_of(stack: Stack) -> Settings:
    """As the stack's own programs read them from their environment."""
    names = {f"WALLET_{name}".upper(): name for name in Settings.model_fields}
    # pydantic reads JSON from the environment only.
    values: dict[str, Any] = {
        names[name]: json.loads(value) if value.startswith("{") else value
        for name, value in stack.settings.items()
        if name in names
    }
    return Settings(**values, _env_file=None)


def _measure_all(bench: Bench, rounds: int) -> list[Row]:
    rows = {cell: Row(cell) for cell in CELLS}
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=rounds * len(CELLS))
        for number in range(rounds):
            # Back and forth, so that a machine that gets slower or faster does so to all alike.
            for cell in CELLS if number % 2 == 0 else reversed(CELLS):
                progress.update(task, description=str(cell))
                rows[cell].runs.append(bench.measure(cell))
                progress.advance(task)
    return list(rows.values())


def _measure_face(bench: Bench, rounds: int) -> Face:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("limits on and off, logins"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=FaceBench.steps(rounds))
        return bench.face().run(rounds, lambda: progress.advance(task))


def _measure_drain(bench: Bench, rounds: int) -> DrainReport:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("what a worker gets done"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=rounds)
        return bench.drain().run(rounds, lambda: progress.advance(task))


def _show(
    rows: list[Row], found: list[Ratio], face: Face | None, drain: DrainReport | None, down: OutageReport | None
) -> None:
    wide = Console(width=max(console.width, _WIDTH))
    if rows:
        wide.print(table_of_rows(rows))
        wide.print(table_of_ratios(found))
    if drain is not None:
        wide.print(table_of_drain(drain))
    if face is not None:
        wide.print(table_of_face(face))
    if down is not None:
        wide.print(table_of_outage(down))
    for breach in [] if drain is None else drain.breaches[:_LONGEST_LIST]:
        console.print(f"[red]BREACH[/red] drain: {escape(str(breach))}", soft_wrap=True)
    for row in rows:
        for breach in row.breaches[:_LONGEST_LIST]:
            console.print(f"[red]BREACH[/red] {row.cell}: {escape(str(breach))}", soft_wrap=True)
        if row.errors:
            statuses = [dict(run.measurement.statuses) for run in row.runs]
            console.print(f"[red]ERRORS[/red] {row.cell}: {row.errors}; statuses {statuses}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
