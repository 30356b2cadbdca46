"""What clients see of a server whose clock is wrong."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI

from service.database import Databases
from service.domain.clock import machine_now, utc_now
from service.domain.workers import Worker
from service.services.clock_watch import ClockWatch
from service.services.workers import beat
from service.settings import Settings
from service.startup import Resources
from tests.factories import bearer, make_account

TEN_MINUTES = timedelta(minutes=10)


@pytest.fixture
async def root(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without the API's prefix."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as client:
        yield client


@pytest.fixture
async def wrong(app: FastAPI, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ClockWatch]:
    """The API's machine is ten minutes ahead; its ledger asks the watch that knows it."""

    async def server() -> datetime:
        return machine_now()

    watch = ClockWatch(server, 5.0, lambda: machine_now() + TEN_MINUTES)
    await watch.look()
    monkeypatch.setattr(resources.ledger, "_require_clock", watch.require_right)
    app.state.resources = resources._replace(clock_watch=watch)
    yield watch
    app.state.resources = resources


class TestAServerWhoseClockIsWrong:
    async def test_takes_no_money_and_says_when_to_come_back(
        self, root: httpx.AsyncClient, wrong: ClockWatch, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases, balance=1_000)
        headers = bearer(account.user, settings)
        order = {"amount": 100, "currency": "INR"}
        for path, body in (
            ("withdrawals", order | {"destination": "bank-account-0001"}),
            ("deposits", order | {"source": "bank-account-0001"}),
        ):
            sent = await root.post(f"/api/v1/{path}", json=body, headers=headers | {"Idempotency-Key": f"off-{path}"})
            assert (sent.status_code, sent.json()["error"]) == (503, "clock_off")
            assert int(sent.headers["Retry-After"]) >= 1
        shown = await root.get(f"/api/v1/wallets/{account.wallet.id}", headers=headers)
        assert (shown.status_code, shown.json()["available"]) == (200, 1_000)
        # The same key, when the clock is right again.
        wrong.is_off = False
        sent = await root.post("/api/v1/deposits", json=body, headers=headers | {"Idempotency-Key": "off-deposits"})
        assert sent.status_code == 202

    async def test_is_alive_and_not_ready(self, root: httpx.AsyncClient, wrong: ClockWatch) -> None:
        assert (await root.get("/livez")).status_code == 200
        for path in ("/readyz", "/health"):
            answer = await root.get(path)
            assert (answer.status_code, answer.json()["checks"]["clock"]) == (503, "off")
            assert answer.json()["clock"]["difference_s"] == pytest.approx(600, abs=5)
            assert answer.json()["clock"]["bound_s"] == wrong.bound_s

    async def test_is_told_by_its_metrics(
        self, root: httpx.AsyncClient, resources: Resources, wrong: ClockWatch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resources.scrapes, "_clock", wrong)
        answer = await root.get("/metrics")
        figures = {
            name: float(value)
            for name, _, value in (line.partition(" ") for line in answer.text.splitlines())
            if name.startswith("wallet_clock_")
        }
        assert figures["wallet_clock_off"] == 1
        assert figures["wallet_clock_difference_seconds"] == pytest.approx(600, abs=5)


class TestPeers:
    async def test_are_held_against_this_process(self, root: httpx.AsyncClient, databases: Databases) -> None:
        now = utc_now()
        worker = Worker("wkr_clock", "here", 1, "1.0", now, now, {}, {}, {}, clock_difference_ms=-7_000)
        await beat(worker)
        clock = (await root.get("/health")).json()["clock"]
        await databases.wallet["workers"].update_one({"_id": worker.id}, {"$set": {"stopped_at": now}})
        assert clock["peers_difference_s"] == pytest.approx(7.0, abs=3)
        assert abs(clock["difference_s"]) < 3

    async def test_that_do_not_know_are_left_out(self, root: httpx.AsyncClient, databases: Databases) -> None:
        now = utc_now()
        await beat(Worker("wkr_old", "here", 1, "1.0", now, now, {}, {}, {}))
        # As a version before this one tells of itself.
        await databases.wallet["workers"].update_one({"_id": "wkr_old"}, {"$unset": {"clock_difference_ms": ""}})
        assert (await root.get("/health")).status_code == 200
        await databases.wallet["workers"].update_one({"_id": "wkr_old"}, {"$set": {"stopped_at": now}})
