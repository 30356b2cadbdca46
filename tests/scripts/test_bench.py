"""The bench's arithmetic, and its load generator against a server that answers by rote."""

import asyncio
import json
import re
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from scripts.bench.__main__ import has_failed, settings_of
from scripts.bench.abuse import AbuseReport, Quiet, table_of_abuse
from scripts.bench.drain import DrainReport, DrainRun, table_of_drain
from scripts.bench.face import CONNECTIONS, Face, Flood, Timing, Turn, table_of_face
from scripts.bench.outage import OutageReport, Phase, Seen, table_of_outage
from scripts.bench.report import CELLS, Cell, Row, Run, Traffic, ratios, table_of_ratios, table_of_rows
from scripts.bench.wrk import Measurement, Target, WrkError, find_wrk, parse, run_wrk
from scripts.ledger_rules import Breach
from scripts.service_stack import Stack
from scripts.stack_environment import HOUSE_FLOORS

# What wrk 4.1 printed with our script, in a run with refusals.
WRK_OUTPUT = """\
Running 2s test @ http://127.0.0.1:18765/api/v1/withdrawals
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   450.45us  157.10us   3.95ms   83.37%
    Req/Sec    70.64k    11.37k   88.10k    65.00%
  140239 requests in 2.00s, 6.22MB read
  Non-2xx or 3xx responses: 14023
Requests/sec:  70096.12
Transfer/sec:      3.11MB
BENCH {"duration_us":2000667,"p50_us":402,"p99_us":780,"statuses":{"202":126216,"422":14023},\
"connect_errors":1,"read_errors":2,"write_errors":3,"timeouts":4}
"""

THROUGHPUTS = {
    Traffic.PING: 10_000.0,
    Traffic.SPREAD: 2_400.0,
    Traffic.ONE: 3_000.0,
    Traffic.PLAIN_SPREAD: 600.0,
    Traffic.PLAIN_ONE: 25.0,
    Traffic.TRANSFERS_SPREAD: 1_200.0,
    Traffic.TRANSFERS_INTO_ONE: 1_200.0,
    Traffic.TRANSFERS_TO_AND_FRO: 2_400.0,
    Traffic.TRANSFER_BATCHES: 5.0,
}


def make_measurement(per_second: float = 100.0, errors: int = 0) -> Measurement:
    return Measurement(
        seconds=10.0,
        requests=round(per_second * 10),
        errors=errors,
        p50_ms=1.0,
        p99_ms=2.0,
        statuses={202: round(per_second * 10), 503: errors},
        wrk_cpu_s=0.5,
    )


def make_row(traffic: Traffic = Traffic.SPREAD, *measurements: Measurement, breaches: tuple[Breach, ...] = ()) -> Row:
    return Row(Cell(traffic, 32), [Run(one, 0.9, 0.8, breaches) for one in measurements or (make_measurement(),)])


class TestTheSettings:
    def test_are_read_as_the_stacks_programs_read_them(self, tmp_path: Path) -> None:
        stack = Stack(tmp_path, settings={"WALLET_HOUSE_FLOORS": HOUSE_FLOORS, "WALLET_PORT": "8123"})
        settings = settings_of(stack)
        assert (settings.house_floors, settings.port) == (json.loads(HOUSE_FLOORS), 8123)


class TestReadingWrk:
    def test_counts_only_the_expected_status_as_done_and_everything_else_as_an_error(self) -> None:
        measurement = parse(WRK_OUTPUT, expected_status=202, wrk_cpu_s=1.5)
        assert measurement.requests == 126_216
        assert measurement.errors == 14_023 + 1 + 2 + 3 + 4
        assert measurement.statuses == {202: 126_216, 422: 14_023}
        assert measurement.per_second == pytest.approx(126_216 / 2.000667)
        assert (measurement.p50_ms, measurement.p99_ms) == (0.402, 0.78)

    def test_a_run_without_a_report_is_no_measurement(self) -> None:
        with pytest.raises(WrkError, match="unable to connect"):
            parse("unable to connect to 127.0.0.1:1 Connection refused", expected_status=202)

    def test_says_where_wrk_comes_from_when_it_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(WrkError, match="apt-get install wrk"):
            find_wrk()


class TestRatios:
    def test_compares_rows_with_the_same_number_of_connections(self) -> None:
        per_second = {cell: THROUGHPUTS[cell.traffic] for cell in CELLS}
        per_second[Cell(Traffic.PLAIN_SPREAD, 128)] = 1_200.0
        found = {ratio.name: ratio for ratio in ratios(per_second)}
        assert {name: round(ratio.value, 2) for name, ratio in found.items()} == {
            "many wallets / plain, 32 connections": 4.0,
            "many wallets / plain, 128 connections": 2.0,
            "one wallet / plain, 32 connections": 120.0,
            "one wallet / plain, 128 connections": 120.0,
            "one wallet / many wallets, 32 connections": 1.25,
            "one wallet / many wallets, 128 connections": 1.25,
            "transfers / withdrawals, 32 connections": 0.5,
            "transfers / withdrawals, 128 connections": 0.5,
            "transfers into one / many, 32 connections": 1.0,
            "transfers into one / many, 128 connections": 1.0,
            "transfers between two, 64 connections / withdrawals, 128 connections": 1.0,
            "many wallets / authenticated GET, 128 connections": 0.24,
        }
        missed = [name for name, ratio in found.items() if not ratio.is_met]
        assert missed == [
            "many wallets / plain, 128 connections",
            "transfers / withdrawals, 32 connections",
            "transfers / withdrawals, 128 connections",
        ]

    def test_a_ratio_is_met_exactly_at_its_target(self) -> None:
        per_second = {cell: THROUGHPUTS[cell.traffic] for cell in CELLS}
        per_second[Cell(Traffic.SPREAD, 32)] = 2 * per_second[Cell(Traffic.PLAIN_SPREAD, 32)]
        assert ratios(per_second)[0].is_met

    def test_a_row_that_came_to_nothing_does_not_divide_by_zero(self) -> None:
        assert all(ratio.value >= 0 for ratio in ratios(dict.fromkeys(CELLS, 0.0)))


class TestRows:
    def test_shows_the_median_of_the_rounds_and_the_sum_of_requests_and_errors(self) -> None:
        row = make_row(Traffic.ONE, *(make_measurement(rate, errors=1) for rate in (100.0, 900.0, 200.0)))
        assert row.per_second == 200.0
        assert (row.requests, row.errors) == (12_000, 3)
        facts = row.facts()
        assert facts["per_second_by_round"] == [100.0, 900.0, 200.0]
        assert facts["wrk_cores"] == 0.05

    @pytest.mark.parametrize(
        ("rows", "is_strict", "fails"),
        [
            ([make_row()], False, False),
            ([make_row()], True, True),
            ([make_row(Traffic.ONE, make_measurement(errors=1))], False, True),
            ([make_row(breaches=(Breach("seq_gap", "wal_1", "follows 3"),))], False, True),
        ],
    )
    def test_fails_on_errors_and_breaches_and_only_when_strict_on_ratios(
        self, rows: list[Row], is_strict: bool, fails: bool
    ) -> None:
        missed = ratios(dict.fromkeys(CELLS, 1.0))
        assert has_failed(rows, missed, is_strict=is_strict) is fails

    def test_the_tables_name_what_is_wrong(self) -> None:
        rows = [make_row(breaches=(Breach("seq_gap", "wal_1", "follows 3"),)), make_row(Traffic.PING)]
        console = Console(width=120)
        with console.capture() as capture:
            console.print(table_of_rows(rows), table_of_ratios(ratios(dict.fromkeys(CELLS, 1.0))))
        shown = capture.get()
        assert "1 breaches" in shown
        assert re.search(r"many wallets / plain, 32 connections +1\.00 +≥ 2 +missed", shown)
        assert re.search(r"one wallet / many wallets, 32 connections +1\.00 +≥ 0\.9 +ok", shown)
        assert re.search(r"one wallet / plain, 32 connections +1\.00 +none *$", shown, re.MULTILINE)
        assert re.search(r"one wallet / plain, 128 connections +1\.00 +≥ 40 +missed", shown)


class TestTheFace:
    @pytest.mark.parametrize(
        ("on", "flooded_ms", "p_value", "is_met"),
        [(800.0, 30.0, 0.5, True), (799.0, 30.0, 0.5, False), (800.0, 30.1, 0.5, False), (800.0, 30.0, 0.01, False)],
    )
    def test_holds_its_cost_its_calm_under_a_flood_and_what_time_tells(
        self, on: float, flooded_ms: float, p_value: float, is_met: bool
    ) -> None:
        per_second = {Turn(c, is_on): on if is_on else 1000.0 for c in CONNECTIONS for is_on in (True, False)}
        face = Face(per_second, (Flood("GET balance", 10.0, flooded_ms, 90.0),), Timing(20.1, 20.0, p_value), 0)
        assert face.is_met is is_met
        console = Console(width=140)
        with console.capture() as capture:
            console.print(table_of_face(face))
        assert ("missed" not in capture.get()) is is_met


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
class TestLoadGenerator:
    async def test_every_withdrawal_has_a_key_of_its_own_and_statuses_are_counted(self, tmp_path: Path) -> None:
        tokens = tmp_path / "tokens"
        tokens.write_text("token-a\t{}\ntoken-b\t{}\n")
        heads: list[str] = []

        def answer(head: str) -> int:
            heads.append(head)
            return 202 if len(heads) % 10 else 422

        async with await asyncio.start_server(_answering(answer), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            target = Target("POST", f"http://127.0.0.1:{port}/api/v1/withdrawals", 202)
            measurement = await asyncio.to_thread(run_wrk, target, tokens, 4, 1)
        keys = Counter(re.findall(r"Idempotency-Key: (\S+)", "".join(heads)))
        assert len(keys) == len(heads)
        assert {"token-a", "token-b"} == set(re.findall(r"Authorization: Bearer (\S+)", "".join(heads)))
        assert 0 < measurement.requests <= len(heads)
        assert measurement.errors == measurement.statuses[422] > 0
        assert measurement.p50_ms > 0


def _answering(
    answer: Callable[[str], int],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"Content-Length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(f"HTTP/1.1 {answer(head)} Status\r\nContent-Length: 2\r\n\r\nok".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return serve


def rendered(table: Table) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def make_drain_run(drained: int, seconds: float) -> DrainRun:
    return DrainRun([make_measurement()], drained, seconds, 2.0, 1.5, 0.5, 1.0, [])


class TestTheDrain:
    def test_the_median_of_the_rounds_has_to_reach_the_target(self) -> None:
        assert DrainReport([make_drain_run(3000, seconds) for seconds in (5.0, 10.0, 20.0)]).is_met
        assert not DrainReport([make_drain_run(2990, 10.0)]).is_met

    def test_shows_accepted_and_drained_apart_and_processor_time_for_a_thousand(self) -> None:
        facts = DrainReport([make_drain_run(1500, 3.0)]).facts()
        assert (facts["accepted_per_second"], facts["drained_per_second"], facts["oldest_s"]) == (100.0, 500.0, 2.0)
        assert facts["worker_cpu_s_per_thousand"] == 1.0
        assert "500" in rendered(table_of_drain(DrainReport([make_drain_run(1500, 3.0)])))


class TestTheAbuse:
    def make(self, **more: Any) -> AbuseReport:
        alone, beside = (Quiet([took_ms] * 100, Counter()) for took_ms in (10.0, 29.0))
        return AbuseReport(alone, beside, 0.5, {"sockets": {503: 7, 0: 1}}, [])._replace(**more)

    def test_is_met_where_a_quiet_user_is_served_nearly_as_if_alone(self) -> None:
        assert self.make().is_met
        assert not self.make(beside=Quiet([31.0] * 100, Counter())).is_met
        assert not self.make(beside=Quiet([10.0] * 100, Counter({429: 1}))).is_sound
        assert not self.make(livez_worst_s=1.1).is_met

    def test_shows_what_the_abusers_were_answered(self) -> None:
        shown = rendered(table_of_abuse(self.make()))
        assert "2.90" in shown
        assert "1 x no answer, 7 x 503" in shown


class TestTheOutage:
    def make(self, **more: Any) -> OutageReport:
        seen = {phase: Seen(Counter({202: 100}), [10.0] * 100) for phase in Phase}
        report = OutageReport(seen, 60.0, 6000, 20.0, 2, {"success": 400}, [])
        return report._replace(**more)

    def test_is_met_where_nothing_is_refused_or_lost_and_all_is_settled_in_time(self) -> None:
        assert self.make().is_met
        assert not self.make(settled_s=61.0).is_met
        assert not self.make(statuses={"success": 399, "requires_review": 1}).is_met
        assert not self.make(seen=self.make().seen | {Phase.AFTER: Seen(Counter({202: 99, 503: 1}))}).is_met

    def test_a_request_may_take_twice_as_long_meanwhile(self) -> None:
        slow = {Phase.DOWN: Seen(Counter({202: 100}), [21.0] * 100)}
        assert not self.make(seen=self.make().seen | slow).is_met
        assert "2.10" in rendered(table_of_outage(self.make(seen=self.make().seen | slow)))
