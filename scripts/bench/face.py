"""What the face costs, and what it gives away.

Limits on, at values that are never reached, beside limits off; other routes under a flood of logins; and whether the
time that a login takes tells an e-mail that is known from one that is not. What is compared takes turns on one machine.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final, NamedTuple

import httpx
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.stats import mannwhitneyu  # type: ignore[import-untyped]  # scipy ships no types

from scripts.bench.load_users import LoadUsers
from scripts.bench.report import Cell, Ratio, Run, Traffic
from scripts.bench.wrk import Measurement, Target, run_wrk
from scripts.service_stack import API, NO_LIMITS, Stack

CONNECTIONS: Final = (32, 128)
_FACE_TARGET: Final = 0.8
OFF: Final = NO_LIMITS
ON: Final = {**dict.fromkeys(NO_LIMITS, "100000000"), "WALLET_LOGIN_TRIES": "1000000"}

_FLOOD_CONNECTIONS: Final = 50
# So few that they do not stand in each other's way: it is the flood whose weight is to be seen.
_MEASURED_CONNECTIONS: Final = 4
_FLOOD_TARGET: Final = 3.0
# The flood has to be there before and after what is measured.
_FLOOD_MARGIN_S: Final = 1

_LOGIN_PATH: Final = "/api/v1/auth/login"
_LOGINS: Final = 500
_UNLIKELY: Final = 0.01
_WRONG: Final = "not-the-password-41"
_WARM_UP_LOGINS: Final = 20


class Turn(NamedTuple):
    """One row of the face's table: withdrawals with its limits on or off."""

    connections: int
    is_on: bool


class Timing(NamedTuple):
    known_ms: float
    unknown_ms: float
    p_value: float

    @property
    def is_met(self) -> bool:
        return self.p_value > _UNLIKELY


class Flood(NamedTuple):
    """p99 of a route beside nothing and beside the flood, medians over the rounds; and the flood's own throughput."""

    route: str
    quiet_ms: float
    flooded_ms: float
    logins_per_second: float

    @property
    def ratio(self) -> float:
        return self.flooded_ms / max(self.quiet_ms, 1e-9)

    @property
    def is_met(self) -> bool:
        return self.ratio <= _FLOOD_TARGET


class Face(NamedTuple):
    per_second: Mapping[Turn, float]
    floods: tuple[Flood, ...]
    timing: Timing
    errors: int

    @property
    def ratios(self) -> list[Ratio]:
        return [
            Ratio(
                f"withdrawals, limits on / off, {connections} connections",
                self.per_second[Turn(connections, is_on=True)] / self.per_second[Turn(connections, is_on=False)],
                _FACE_TARGET,
            )
            for connections in CONNECTIONS
        ]

    @property
    def is_met(self) -> bool:
        return all(
            (*(one.is_met for one in self.ratios), *(one.is_met for one in self.floods), self.timing.is_met),
        )

    def facts(self) -> dict[str, Any]:
        return {
            "limits": [{**turn._asdict(), "per_second": round(value, 1)} for turn, value in self.per_second.items()],
            "ratios": [{**ratio._asdict(), "is_met": ratio.is_met} for ratio in self.ratios],
            "floods": [{**flood._asdict(), "ratio": flood.ratio, "is_met": flood.is_met} for flood in self.floods],
            "timing": {**self.timing._asdict(), "is_met": self.timing.is_met},
            "errors": self.errors,
        }


class FaceBench:
    """On the stack of the other rows, whose API is started anew for each change of settings."""

    def __init__(
        self,
        stack: Stack,
        users: LoadUsers,
        start_api: Callable[[], None],
        measure: Callable[[Cell], Run],
        seconds: int,
    ) -> None:
        self._stack = stack
        self._users = users
        self._start_api = start_api
        self._measure = measure
        self._seconds = seconds
        self._errors = 0

    def run(self, rounds: int, advance: Callable[[], None]) -> Face:
        per_second: dict[Turn, list[float]] = {}
        for number in range(rounds):
            for is_on in (False, True) if number % 2 == 0 else (True, False):
                self._restart(ON if is_on else OFF)
                for connections in CONNECTIONS:
                    measured = self._measure(Cell(Traffic.SPREAD, connections)).measurement
                    self._errors += measured.errors
                    per_second.setdefault(Turn(connections, is_on), []).append(measured.per_second)
                    advance()
        # From here on with all limits on, as in real life, but never reached.
        self._restart(ON)
        asyncio.run(self._users.start_afresh())
        timing = self._time_logins()
        advance()
        floods = self._flood(rounds, advance)
        self._restart(OFF)
        return Face({turn: median(values) for turn, values in per_second.items()}, floods, timing, self._errors)

    @staticmethod
    def steps(rounds: int) -> int:
        return rounds * (2 * len(CONNECTIONS) + 2) + 1

    def _restart(self, limits: Mapping[str, str]) -> None:
        self._stack.stop(API)
        self._stack.settings |= limits
        self._start_api()

    def _time_logins(self) -> Timing:
        """Wrong passwords, one after the other: for one that is known and one that is not, in a random order."""
        shuffle = random.Random(1)  # noqa: S311 an order, not a secret
        known, unknown = self._users.known_emails(_LOGINS), [f"none-{number}@example.com" for number in range(_LOGINS)]
        took_ms: dict[bool, list[float]] = {True: [], False: []}
        with httpx.Client(base_url=self._stack.base_url, timeout=30) as client:
            for number in range(_WARM_UP_LOGINS):
                self._log_in(client, f"warm-{number}@example.com")
            for pair in zip(known, unknown, strict=True):
                both = [(True, pair[0]), (False, pair[1])]
                shuffle.shuffle(both)
                for is_known, email in both:
                    took_ms[is_known].append(self._log_in(client, email))
        p_value = float(mannwhitneyu(took_ms[True], took_ms[False]).pvalue)
        return Timing(median(took_ms[True]), median(took_ms[False]), p_value)

    def _log_in(self, client: httpx.Client, email: str) -> float:
        started = time.perf_counter()
        answer = client.post(_LOGIN_PATH, json={"email": email, "password": _WRONG})
        took_ms = (time.perf_counter() - started) * 1000
        self._errors += answer.status_code != httpx.codes.UNAUTHORIZED
        return took_ms

    def _flood(self, rounds: int, advance: Callable[[], None]) -> tuple[Flood, ...]:
        base = self._stack.base_url
        files = self._users.write_face_requests(self._stack.data_dir)
        routes = {
            "GET balance": (Target("GET", base, 200), files["balances"]),
            "POST withdrawals": (Target("POST", base, 202), files["withdrawals"]),
        }
        logins = Target("POST", base, 401)
        quiet: dict[str, list[Measurement]] = {route: [] for route in routes}
        flooded: dict[str, list[Measurement]] = {route: [] for route in routes}
        rates: dict[str, list[float]] = {route: [] for route in routes}
        for _ in range(rounds):
            for route, (target, requests) in routes.items():
                quiet[route].append(run_wrk(target, requests, _MEASURED_CONNECTIONS, self._seconds))
                with ThreadPoolExecutor(1) as beside:
                    flood_s = self._seconds + 2 * _FLOOD_MARGIN_S
                    flood = beside.submit(run_wrk, logins, files["logins"], _FLOOD_CONNECTIONS, flood_s)
                    time.sleep(_FLOOD_MARGIN_S)
                    flooded[route].append(run_wrk(target, requests, _MEASURED_CONNECTIONS, self._seconds))
                    rates[route].append(flood.result().per_second)
                    self._errors += flood.result().errors
                self._errors += quiet[route][-1].errors + flooded[route][-1].errors
                advance()
        return tuple(
            Flood(
                route,
                median(one.p99_ms for one in quiet[route]),
                median(one.p99_ms for one in flooded[route]),
                median(rates[route]),
            )
            for route in routes
        )


def table_of_face(face: Face) -> Table:
    table = Table(box=SIMPLE_HEAD, caption=f"errors: {face.errors}", caption_justify="left")
    table.add_column("the face", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("")
    for connections, ratio in zip(CONNECTIONS, face.ratios, strict=True):
        on, off = (face.per_second[Turn(connections, is_on)] for is_on in (True, False))
        shown = f"{ratio.value:.2f} ({on:,.0f} and {off:,.0f} per s)"
        table.add_row(ratio.name, shown, f"≥ {ratio.target:g}", _verdict(is_met=ratio.is_met))
    for flood in face.floods:
        shown = f"{flood.ratio:.2f} ({flood.flooded_ms:.1f} and {flood.quiet_ms:.1f} ms)"
        name = f"p99 of {flood.route}, {flood.logins_per_second:.0f} logins a second / quiet"
        table.add_row(name, shown, f"≤ {_FLOOD_TARGET:g}", _verdict(is_met=flood.is_met))
    timing = face.timing
    shown = f"p = {timing.p_value:.2g} ({timing.known_ms:.2f} and {timing.unknown_ms:.2f} ms)"
    name = f"time of a login, e-mail known and unknown, {_LOGINS} each (Mann-Whitney)"
    table.add_row(name, shown, f"> {_UNLIKELY:g}", _verdict(is_met=timing.is_met))
    return table


def _verdict(*, is_met: bool) -> str:
    return "[green]ok[/green]" if is_met else "[red]missed[/red]"
