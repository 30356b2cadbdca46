"""The dashboard: what it shows of a look, at which size, in which colour, and what it does without its sources."""

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from scripts.dashboard.figures import Change, Figures
from scripts.dashboard.page import duration, line, needs, rate, render, sparkline
from scripts.dashboard.sources import Flow, Look, Sources
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.domain.workers import QueueState, Worker
from service.services.workers import Backlog
from service.settings import Settings
from tests.commands import run_module
from tests.receivers import running_receiver

_NOW = utc_now()
_API = """
# TYPE wallet_http_requests_total counter
wallet_http_requests_total{method="POST",route="/api/v1/withdrawals",status="202"} %(requests)s
wallet_http_requests_total{method="POST",route="/api/v1/withdrawals",status="503"} 3
# TYPE wallet_ledger_batch_size histogram
wallet_ledger_batch_size_bucket{le="+Inf"} %(batches)s
wallet_ledger_batch_size_count %(batches)s
wallet_ledger_batch_size_sum %(commands)s
# TYPE wallet_incidents_open gauge
wallet_incidents_open 2
# TYPE wallet_bank_breaker_state gauge
wallet_bank_breaker_state{state="closed"} 0
wallet_bank_breaker_state{state="open"} 1
"""
_WORKER = """
# TYPE wallet_ledger_batch_size histogram
wallet_ledger_batch_size_bucket{le="+Inf"} 10
wallet_ledger_batch_size_count 10
wallet_ledger_batch_size_sum 100
# TYPE wallet_incidents_open gauge
wallet_incidents_open 2
"""


def make_worker(**changes: Any) -> Worker:
    numbers = {"in_hand": {"outbox": 7}, "done": {"outbox": 1234}, "failed": {"outbox": 0}}
    return Worker("wkr_1", "till", 4711, "1.2.3", _NOW - timedelta(hours=3), _NOW, **(numbers | changes))


def make_look(**changes: Any) -> Look:
    outbox = QueueState(215, 93, _NOW - timedelta(seconds=2))
    queues = {Queue.OUTBOX: outbox, Queue.CALLBACKS: QueueState(0, 0, None), Queue.BANK: QueueState(3, 0, None)}
    fields: dict[str, Any] = {
        "at": _NOW,
        "taken": 100.0,
        "backlog": Backlog(queues, {"bank_order": outbox}, {}),
        "flow": Flow(52.0, 14.5, 0.5),
        "workers": [make_worker()],
        "health": {"checks": {"mongodb": "ok", "redis": "ok", "ledger": "ok", "bank": "ok", "workers": "ok"}},
        "figures": Figures(),
    }
    return Look(**(fields | changes))


def blind_look() -> Look:
    return make_look(backlog=None, flow=None, workers=None, health=None, trouble="AutoReconnect")


def shown(*looks: Look, width: int = 80, height: int | None = None, colours: bool = False) -> str:
    console = Console(file=StringIO(), width=width, record=True, force_terminal=colours, color_system="standard")
    console.print(render(looks, width=width, height=height, where="http://127.0.0.1:8000"))
    return console.export_text(styles=colours)


class TestThePage:
    @pytest.mark.parametrize("width", [60, 80, 110, 140, 200])
    @pytest.mark.parametrize("look", [make_look(), blind_look()], ids=["all there", "nothing there"])
    def test_fits_its_width(self, look: Look, width: int) -> None:
        lines = shown(look, look, width=width).splitlines()
        assert max(len(one) for one in lines) <= width

    @pytest.mark.parametrize("width", [80, 140])
    @pytest.mark.parametrize("height", [14, 20, 24, 30, 50])
    def test_fits_its_height_and_keeps_what_matters_most(self, width: int, height: int) -> None:
        page = shown(make_look(), make_look(), width=width, height=height)
        assert len(page.splitlines()) <= height
        for word in ("all is well", "outbox", "93", "215"):
            assert word in page

    def test_shows_everything_where_there_is_room(self) -> None:
        page = shown(make_look(), width=140, height=60)
        for word in ("bank_order", "accepted/s", "52", "14", "breaker", "closed", "till 4711", "1.2.3", "3 h", "1,234"):
            assert word in page, word

    def test_is_made_of_dashes_where_nothing_answers(self) -> None:
        page = shown(blind_look(), blind_look(), width=140)
        assert "MongoDB does not answer (AutoReconnect)" in page
        assert "the API does not answer" in page

    def test_has_what_changed_between_two_looks(self) -> None:
        first = Figures.read([_API % {"requests": 100, "batches": 50, "commands": 500}, _WORKER])
        second = Figures.read([_API % {"requests": 300, "batches": 60, "commands": 900}, _WORKER])
        looks = make_look(figures=first), make_look(figures=second, taken=102.0)
        page = shown(*looks, width=140)
        assert "of 40 commands" in page
        (requests,) = [one for one in page.splitlines() if "requests/s" in one]
        assert "100" in requests


class TestWhatNeedsSomebody:
    def test_is_nothing_in_a_sound_stack_and_nothing_is_red(self) -> None:
        assert needs(make_look()) == []
        assert "\x1b[1;31m" not in shown(make_look(), make_look(), width=140, colours=True)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"workers": []}, "no worker is there"),
            ({"workers": [make_worker(clock_difference_ms=-700, clock_is_off=True)]}, "the clock of worker till"),
            ({"health": None}, "the API does not answer"),
            ({"health": {"checks": {"redis": "unavailable"}}}, "redis is unavailable"),
            ({"backlog": Backlog({}, {}, {"outbox": 3})}, "3 dead letters"),
            (
                {"backlog": Backlog({Queue.OUTBOX: QueueState(9, 9, _NOW - timedelta(minutes=5))}, {}, {})},
                "outbox waits for 5 min",
            ),
            ({"figures": Figures.read([_API % {"requests": 1, "batches": 1, "commands": 1}, _WORKER])}, "2 incidents"),
        ],
    )  # fmt: skip
    def test_is_said_in_red(self, changes: dict[str, Any], said: str) -> None:
        look = make_look(**changes)
        assert any(text.plain.startswith(said) for text in needs(look))
        page = shown(look, width=140, colours=True)
        assert "\x1b[1;31m" in page
        assert said in page

    def test_is_no_clock_that_its_worker_takes_for_right(self) -> None:
        """The worker knows the bound, and how exactly it has measured."""
        look = make_look(workers=[make_worker(clock_difference_ms=7_000, clock_is_off=False)])
        assert needs(look) == []
        assert "\x1b[1;31m" not in shown(look, width=140, colours=True)

    def test_is_not_the_bank_that_is_down_which_comes_back_by_itself(self) -> None:
        look = make_look(health={"checks": {"bank": "open", "workers": "ok"}})
        assert [text.plain for text in needs(look)] == ["the bank is down (breaker open)"]
        assert "\x1b[1;31m" not in shown(look, width=140, colours=True)


class TestALine:
    def test_has_what_matters_for_those_without_a_terminal(self) -> None:
        said = line([make_look(workers=[])])
        for word in ("outbox=93/215", "oldest=2s", "accepted/s=52", "workers=0", "breaker=closed", "NEEDS SOMEBODY"):
            assert word in said, word
        assert line([blind_look()]).endswith("the API does not answer")


class TestFigures:
    def test_are_added_up_over_processes_but_for_what_stands_in_the_database(self) -> None:
        found = Figures.read([_API % {"requests": 5, "batches": 50, "commands": 500}, _WORKER])
        assert found.sum("wallet_ledger_batch_size_count") == 60
        assert found.sum("wallet_http_requests_total", status="202") == 5
        assert found.once("wallet_incidents_open") == 2
        assert found.by("wallet_bank_breaker_state", "state") == {"closed": 0, "open": 1}
        assert found.sum("wallet_nothing_of_that_name") is None

    def test_of_a_process_that_began_anew_count_from_nothing(self) -> None:
        before, now = (
            Figures.read([_API % {"requests": number, "batches": 1, "commands": 1}]) for number in (1000, 40)
        )
        assert Change(before, now, 2.0).rate("wallet_http_requests_total", status="202") == 20
        assert Change(Figures(), now, 2.0).rate("wallet_http_requests_total") is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "-"), (0.02, "20 ms"), (4, "4 s"), (300, "5 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_times_are_short(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def test_curves_are_as_high_as_their_highest() -> None:
    assert sparkline([0, 5, 10], 24) == "▁▅█"
    assert sparkline([0, 0], 24) == "▁▁"
    assert sparkline([], 24) == ""
    assert rate(0.25) == "0.2"


class TestSources:
    async def test_are_read_from_a_real_database_whatever_else_is_missing(self, databases: Databases) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json=["strange"]) if request.url.path == "/health" else httpx.Response(404)

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            look = await Sources(databases, http, "http://api", ["http://api/metrics"]).look()
        assert look.backlog is not None
        assert look.flow is not None
        assert look.trouble is None
        assert (look.health, look.figures) == (None, Figures())
        assert "Queues" in shown(look)

    async def test_once_prints_one_page(self, settings: Settings, tmp_path: Path) -> None:
        ended = await run_module(settings, tmp_path, "scripts.dashboard", "--once", WALLET_PORT="1")
        assert ended.status == 0, ended.err
        assert "Queues" in ended.out
        assert "the API does not answer" in ended.out

    async def test_of_the_settings_file_are_asked_with_its_token(self, settings: Settings, tmp_path: Path) -> None:
        async with running_receiver() as api, running_receiver() as worker:
            ports = f"WALLET_PORT={api.port}\nWALLET_WORKER_METRICS_PORT={worker.port}\n"
            (tmp_path / ".env").write_text(f"{ports}WALLET_METRICS_TOKEN=open-sesame\n")
            ended = await run_module(settings, tmp_path, "scripts.dashboard", "--once")
        assert ended.status == 0, ended.err
        for receiver in (api, worker):
            (asked, *_) = [one for one in receiver.requests if one.target == "/metrics"]
            assert asked.headers["authorization"] == "Bearer open-sesame"

    async def test_without_a_stack_it_says_so(self, settings: Settings, tmp_path: Path) -> None:
        nowhere = "mongodb://somebody:hush@127.0.0.1:1/?serverSelectionTimeoutMS=200"
        ended = await run_module(settings, tmp_path, "scripts.dashboard", "--once", WALLET_MONGO_URL=nowhere)
        assert ended.status == 2
        assert "finds no stack" in ended.err
        assert "hush" not in ended.err + ended.out
