"""Health, and what clients see of a database or a Redis that does not answer."""

from collections.abc import AsyncIterator
from datetime import date, timedelta

import httpx
import pytest
from fastapi import FastAPI

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.workers import ALIVE_S, Worker
from service.gateways.bank import BankOrder, BankOutcomeUnknown, BankReport, StatementLine
from service.gateways.bank_breaker import BankBreaker
from service.gateways.quick_redis import QuickRedis
from service.main import create_app
from service.services.workers import beat
from service.settings import Settings
from tests.factories import bearer, make_account
from tests.servers import Admin, Servers, fail_point, make_settings


@pytest.fixture
async def root(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without the API's prefix."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as client:
        yield client


class _NoBank:
    async def submit(self, order: BankOrder) -> BankReport:
        raise BankOutcomeUnknown(order.reference)

    async def find(self, reference: str) -> BankReport | None:
        raise BankOutcomeUnknown(reference)

    async def statement(self, day: date) -> list[StatementLine]:
        raise BankOutcomeUnknown(str(day))


@pytest.fixture
async def open_breaker(app: FastAPI, servers: Servers) -> AsyncIterator[BankBreaker]:
    """The API's breaker is open for a minute; nobody else hears of it."""
    settings = make_settings(servers, bank_breaker_failures=1, bank_breaker_open_s=60)
    redis = QuickRedis(settings)
    breaker = BankBreaker(_NoBank(), redis, settings)
    with pytest.raises(BankOutcomeUnknown):
        await breaker.find("wdr_1")
    resources = app.state.resources
    app.state.resources = resources._replace(breaker=breaker)
    yield breaker
    app.state.resources = resources
    await breaker.close()
    await redis.close()


class TestHealth:
    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
    async def test_is_ok_while_everything_answers(self, root: httpx.AsyncClient, path: str) -> None:
        response = await root.get(path)
        assert (response.status_code, response.json()["status"]) == (200, "ok")

    async def test_names_every_part(self, root: httpx.AsyncClient) -> None:
        checks = (await root.get("/health")).json()["checks"]
        assert set(checks) == {"mongodb", "redis", "ledger", "bank", "clock", "workers"}
        assert {checks[name] for name in ("mongodb", "redis", "ledger")} == {"ok"}

    @pytest.mark.parametrize("path", ["/readyz", "/health"])
    async def test_tells_of_workers_and_is_well_without_any(
        self, root: httpx.AsyncClient, databases: Databases, path: str
    ) -> None:
        now = utc_now()
        await beat(Worker("wkr_health", "here", 1, "1.0", now, now, {}, {}, {}))
        response = (await root.get(path)).json()
        assert response["checks"]["workers"] == "ok"
        assert response["workers"]["alive"] >= 1
        assert 0 <= response["workers"]["last_seen_age_s"] < ALIVE_S
        silent = {"$set": {"seen_at": now - timedelta(seconds=ALIVE_S + 1)}}
        await databases.wallet["workers"].update_many({}, silent)
        without = await root.get(path)
        assert (without.status_code, without.json()["status"]) == (200, "ok")
        assert without.json()["checks"]["workers"] == "none"
        assert without.json()["workers"]["alive"] == 0
        assert without.json()["workers"]["last_seen_age_s"] > ALIVE_S

    async def test_a_bank_that_is_down_makes_nothing_of_ours_unhealthy(
        self, root: httpx.AsyncClient, open_breaker: BankBreaker
    ) -> None:
        for path in ("/readyz", "/health"):
            response = await root.get(path)
            assert (response.status_code, response.json()["checks"]["bank"]) == (200, "open")
        assert open_breaker.state_now == "open"

    async def test_without_mongodb_it_lives_but_is_not_ready(self, root: httpx.AsyncClient, admin: Admin) -> None:
        with fail_point(admin, 100, failCommands=["ping"], closeConnection=True):
            assert (await root.get("/livez")).status_code == 200
            for path in ("/readyz", "/health"):
                response = await root.get(path)
                assert response.status_code == 503
                assert response.json()["checks"]["mongodb"] == "unavailable"
        assert (await root.get("/readyz")).status_code == 200


class TestOutages:
    async def test_a_read_that_mongodb_does_not_answer_is_a_503_with_a_time_to_come_back(
        self, root: httpx.AsyncClient, admin: Admin, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases)
        path = f"/api/v1/wallets/{account.wallet.id}"
        with fail_point(admin, 10, failCommands=["find"], closeConnection=True):
            response = await root.get(path, headers=bearer(account.user, settings))
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["error"] == "service_unavailable"
        assert response.headers["Retry-After"] == "2"
        assert (await root.get(path, headers=bearer(account.user, settings))).status_code == 200

    async def test_while_the_bank_is_down_what_is_accepted_says_when_to_ask_about_it(
        self,
        root: httpx.AsyncClient,
        databases: Databases,
        settings: Settings,
        open_breaker: BankBreaker,
        app: FastAPI,
    ) -> None:
        account = await make_account(databases)
        order = {"amount": 100, "currency": "INR"}

        async def send(path: str, **more: str) -> httpx.Response:
            headers = {**bearer(account.user, settings), "Idempotency-Key": f"down-{path}-{len(more)}"}
            return await root.post(f"/api/v1/{path}", json=order | more, headers=headers)

        accepted = await send("deposits", source="bank-account-0001")
        assert (accepted.status_code, accepted.json()["status"]) == (202, "pending")
        assert 59 <= int(accepted.headers["Retry-After"]) <= 60
        replayed = await send("deposits", source="bank-account-0001")
        assert (replayed.content, replayed.headers["Retry-After"]) == (
            accepted.content,
            accepted.headers["Retry-After"],
        )
        refused = await send("withdrawals", destination="bank-account-0001")
        assert (refused.status_code, "Retry-After" in refused.headers) == (422, False)
        app.state.resources = app.state.resources._replace(
            breaker=BankBreaker(_NoBank(), open_breaker._redis, settings)
        )
        assert "Retry-After" not in (await send("deposits", source="bank-account-0001")).headers


class TestTheApplication:
    def test_can_be_described_without_any_server(self) -> None:
        document = create_app(Settings(_env_file=None)).openapi()
        assert document["openapi"].startswith("3.1")
        assert "409" in document["paths"]["/api/v1/withdrawals"]["post"]["responses"]
