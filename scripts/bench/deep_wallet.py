"""`python -m scripts.bench.deep_wallet`: what reading costs in a wallet of a million entries, beside one of a hundred.

The entries are written directly, in transactions, with a right chain: by the API it would take an hour. Whoever wants
to know something else about the two wallets adds a Probe.
"""

import asyncio
import csv
import http.client
import logging
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlencode

import structlog
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scripts.bench.__main__ import SETTINGS, settings_of
from scripts.server_process import LOOPBACK, EmbeddedServerError
from scripts.service_stack import API, Stack
from service.controllers.pagination import make_cursor, open_page
from service.controllers.wallets import EntriesQuery
from service.database import Databases, bind_documents, connect, session_in_transaction
from service.documents import User
from service.domain.clock import to_rfc3339, utc_now
from service.domain.entries import Entry, EntryType
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import Movement, Wallet, apply_movement, new_wallet
from service.repositories import transaction_logs as log_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.services.access_tokens import issue_access_token
from service.settings import Settings

# Ten months, however many entries are spread over them.
_FIRST_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SPAN: Final = timedelta(days=300)
# As many as one transaction writes well within its second.
_CHUNK: Final = 2_000
_PAGE: Final = 20
# The page that most requests have to be made for otherwise: nine tenths of the way back.
_DEPTH: Final = 0.9
_WARM_UP_PART: Final = 10
_TARGET_RATIO: Final = 2.0
_TARGET_PEAK_MB: Final = 100
# Each four entries leave a balance of 485 more than before.
_PATTERN: Final = (
    (EntryType.CREDIT, 500, None),
    (EntryType.WITHDRAWAL, 10, "rent"),
    (EntryType.WITHDRAWAL_SETTLEMENT, 10, "rent"),
    (EntryType.DEBIT, 5, "fees"),
)

# A narrow terminal wraps the table's lines, which still tells more than cut-off figures.
_WIDTH: Final = 120

console = Console()


class Subject(NamedTuple):
    """A wallet under measurement, and how to ask for it as its owner."""

    wallet: Wallet
    token: str
    settings: Settings

    def path(self, rest: str = "", **query: str | int) -> str:
        return f"/api/v1/wallets/{self.wallet.id}{rest}" + (f"?{urlencode(query)}" if query else "")

    def moment(self, part: float) -> str:
        """A time so far into the wallet's history: 0 is its beginning, 1 its end."""
        return to_rfc3339(_FIRST_AT + _SPAN * part)


class Probe(NamedTuple):
    """One row of the table: a GET that is made of both wallets in turn. `chance` varies it from one to the next."""

    name: str
    path: Callable[[Subject, random.Random], str]
    target_ratio: float | None = _TARGET_RATIO


def _deep_page(subject: Subject) -> str:
    query = EntriesQuery(limit=_PAGE)
    page = open_page(query, subject.settings, "wallet_entries", subject.wallet.id, int)
    position = max(_PAGE + 1, round(subject.wallet.seq * (1 - _DEPTH)))
    return subject.path("/transactions", limit=_PAGE, cursor=make_cursor(position, page))


def _page_of_a_time(subject: Subject, chance: random.Random) -> str:
    return subject.path("/transactions", limit=_PAGE, created_to=subject.moment(chance.uniform(0.2, 1)))


PROBES: Final = (
    Probe("first page", lambda subject, _: subject.path("/transactions", limit=_PAGE)),
    Probe(f"page {_DEPTH:.0%} of the way back", lambda subject, _: _deep_page(subject)),
    Probe("page before some time", _page_of_a_time),
    Probe("balance at some time", lambda subject, chance: subject.path(at=subject.moment(chance.random()))),
    Probe("limits", lambda subject, _: subject.path("/limits")),
    Probe("balance now", lambda subject, _: f"/api/v1/users/{subject.wallet.user_id}/balance"),
    Probe(
        "statement of the last 20 entries",
        lambda subject, _: subject.path(
            "/statement",
            **{"from": subject.moment(1 - _PAGE / subject.wallet.seq), "to": subject.moment(1.1)},
        ),
    ),
)


class Reading(NamedTuple):
    """Medians of a probe, in milliseconds."""

    probe: Probe
    shallow_ms: float
    deep_ms: float

    @property
    def ratio(self) -> float:
        return self.deep_ms / self.shallow_ms

    @property
    def is_met(self) -> bool:
        return self.probe.target_ratio is None or self.ratio <= self.probe.target_ratio


class Export(NamedTuple):
    """A whole wallet as CSV. Memory is the API process's resident one, in MB."""

    records: int
    size_mib: float
    seconds: float
    before_mb: float
    peak_mb: float
    others_ms: list[float]


class Caller:
    """One connection to the API, kept open; http.client, since it adds least to what is measured."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=600)

    def get(self, subject: Subject, path: str) -> http.client.HTTPResponse:
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {subject.token}"})
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            raise EmbeddedServerError(f"GET {path}: {response.status} {response.read().decode()}")
        return response

    def time_ms(self, subject: Subject, path: str) -> float:
        started = perf_counter()
        self.get(subject, path).read()
        return (perf_counter() - started) * 1000


def main(
    entries: Annotated[int, typer.Option(help="How many entries the deep wallet has.", min=_CHUNK)] = 1_000_000,
    shallow: Annotated[int, typer.Option(help="How many the other one has.", min=2 * _PAGE)] = 100,
    requests: Annotated[int, typer.Option(help="Requests of each kind, of each wallet.", min=1)] = 300,
    strict: Annotated[bool, typer.Option(help="A missed target fails the bench.")] = False,
) -> None:
    """Measure reads of a deep wallet; ends with 1 where an answer is wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        with tempfile.TemporaryDirectory(prefix="wallet-bench-") as folder, Stack(Path(folder), settings=SETTINGS) as s:
            s.start_servers()
            s.migrate()
            shallow_subject, deep_subject = asyncio.run(_make_subjects(settings_of(s), shallow, entries))
            s.start_api()
            readings = [_read(probe, s.api_port, shallow_subject, deep_subject, requests) for probe in PROBES]
            spending_ms = Caller(s.api_port).time_ms(
                deep_subject, deep_subject.path("/spending", from_month="2026-01", to_month="2026-12")
            )
            export = _export(s, deep_subject)
    except EmbeddedServerError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    _show(readings, spending_ms, export, shallow, entries)
    if strict and not (all(reading.is_met for reading in readings) and _memory_is_met(export)):
        raise typer.Exit(1)


async def _make_subjects(settings: Settings, *counts: int) -> list[Subject]:
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    try:
        await bind_documents(databases)
        with _progress("writing entries", sum(counts)) as advance:
            return [await _make_subject(databases, settings, count, advance) for count in counts]
    finally:
        await databases.close()


async def _make_subject(
    databases: Databases, settings: Settings, count: int, advance: Callable[[int], None]
) -> Subject:
    user = User(
        id=new_id(Prefix.USER),
        first_name="Deep",
        last_name=str(count),
        email=f"deep-{count}@example.com",
        password_hash="!",  # noqa: S106 no password: the token is issued here
        roles=["user"],
        is_active=True,
        token_version=1,
        created_at=_FIRST_AT,
        updated_at=_FIRST_AT,
    )
    wallet = new_wallet(new_id(Prefix.WALLET), user.id, settings.default_currency, _FIRST_AT)
    async with session_in_transaction(databases.client) as session:
        await user_repository.insert(user, session=session)
        await wallet_repository.insert(wallet, session=session)
    while wallet.seq < count:
        after, entries = _more(wallet, min(_CHUNK, count - wallet.seq), count)
        async with session_in_transaction(databases.client) as session:
            await wallet_repository.update_guarded([(wallet, after)], session=session)
            await log_repository.insert_many(entries, session=session)
        wallet = after
        advance(len(entries))
    return Subject(wallet, issue_access_token(user, settings, utc_now()), settings)


def _more(wallet: Wallet, count: int, all_in_all: int) -> tuple[Wallet, list[Entry]]:
    """So many further entries, at their place in the wallet's whole span."""
    entries = []
    for seq in range(wallet.seq + 1, wallet.seq + count + 1):
        kind, amount, category = _PATTERN[(seq - 1) % len(_PATTERN)]
        at = _FIRST_AT + timedelta(milliseconds=_SPAN // timedelta(milliseconds=1) * seq // all_in_all)
        movement = Movement(
            wallet_id=wallet.id,
            type=kind,
            amount=amount,
            status="success",
            reference=f"wdr_{seq:032x}",
            transaction_id=f"txn_{seq:032x}",
            counterparty="bank",
            entry_id=new_id(Prefix.ENTRY),
            at=at,
            category=category,
        )
        wallet, entry = apply_movement(wallet, movement)
        entries.append(entry)
    return wallet, entries


def _read(probe: Probe, port: int, shallow: Subject, deep: Subject, requests: int) -> Reading:
    """The two wallets by turns, so that they meet the same machine."""
    caller = Caller(port)
    chance = random.Random(probe.name)  # noqa: S311 the same times in each run
    of_shallow: list[float] = []
    of_deep: list[float] = []
    for _ in range(requests // _WARM_UP_PART):
        for subject in (shallow, deep):
            caller.time_ms(subject, probe.path(subject, chance))
    for _ in range(requests):
        for subject, taken in ((shallow, of_shallow), (deep, of_deep)):
            taken.append(caller.time_ms(subject, probe.path(subject, chance)))
    return Reading(probe, median(of_shallow), median(of_deep))


def _export(stack: Stack, deep: Subject) -> Export:
    """The whole wallet as CSV, while somebody else goes on asking for a balance."""
    pid = stack.children[API].pid
    # "5" sets the peak back to what is resident now, proc(5).
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before_mb = _memory_mb(pid, "VmRSS")
    others_ms: list[float] = []
    has_ended = threading.Event()

    def ask_for_balances() -> None:
        caller = Caller(stack.api_port)
        while not has_ended.wait(0.05):
            others_ms.append(caller.time_ms(deep, f"/api/v1/users/{deep.wallet.user_id}/balance"))

    other = threading.Thread(target=ask_for_balances, daemon=True)
    other.start()
    started = perf_counter()
    path = deep.path("/statement", **{"from": deep.moment(0), "to": deep.moment(2), "format": "csv"})
    response = Caller(stack.api_port).get(deep, path)
    size, records, last = 0, 0, b""
    for line in response:
        size += len(line)
        records += 1
        last = line
    seconds = perf_counter() - started
    has_ended.set()
    other.join()
    closing = next(csv.reader([last.decode()]))
    if records != deep.wallet.seq + 3 or closing[:2] != ["closing", str(deep.wallet.seq)]:
        raise EmbeddedServerError(f"The export has {records} records and ends with {last.decode()}")
    return Export(records, size / 2**20, seconds, before_mb, _memory_mb(pid, "VmHWM"), others_ms)


def _memory_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 10**6
    raise EmbeddedServerError(f"/proc/{pid}/status does not tell {name}")


def _memory_is_met(export: Export) -> bool:
    """Of the whole process, of which the export is next to nothing, whatever its length."""
    return export.peak_mb < _TARGET_PEAK_MB


def _show(readings: list[Reading], spending_ms: float, export: Export, shallow: int, entries: int) -> None:
    wide = Console(width=max(console.width, _WIDTH))
    table = Table(box=SIMPLE_HEAD, caption="medians, one client", caption_justify="left")
    table.add_column("reading", no_wrap=True)
    for heading in (f"{shallow:,} entries, ms", f"{entries:,}, ms", "ratio", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for reading in readings:
        target = reading.probe.target_ratio
        verdict = "[green]ok[/green]" if reading.is_met else "[red]missed[/red]"
        table.add_row(
            reading.probe.name,
            f"{reading.shallow_ms:.2f}",
            f"{reading.deep_ms:.2f}",
            f"{reading.ratio:.2f}",
            "none" if target is None else f"≤ {target:g}",
            verdict,
        )
    wide.print(table)
    wide.print(f"spending of a year, all {entries:,} entries added up: {spending_ms:,.0f} ms")
    wide.print(
        f"CSV of the whole wallet: {export.records:,} records, {export.size_mib:,.0f} MiB in {export.seconds:.1f} s "
        f"({export.records / export.seconds:,.0f} a second)"
    )
    verdict = "[green]ok[/green]" if _memory_is_met(export) else "[red]missed[/red]"
    wide.print(
        f"API's resident memory: {export.before_mb:.1f} MB before, {export.peak_mb:.1f} MB at its peak; "
        f"target < {_TARGET_PEAK_MB} MB {verdict}"
    )
    if export.others_ms:
        wide.print(
            f"balance asked for meanwhile: median {median(export.others_ms):.1f} ms, "
            f"longest {max(export.others_ms):.1f} ms of {len(export.others_ms)}"
        )


@contextmanager
def _progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total)

        def advance(count: int) -> None:
            progress.advance(task, count)

        yield advance


if __name__ == "__main__":
    typer.run(main)
