"""`GET /metrics`: who gets an answer, in which format, and what counts as what."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from pydantic import SecretStr

from service.controllers.problems import _PATHS
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.outbox import OutboxTopic, outbox_row
from service.repositories import outbox as outbox_repository
from service.settings import Environment, Settings
from service.startup import Resources
from tests.controllers.test_middleware import client_of
from tests.factories import bearer, make_account
from tests.logs import own_logs
from tests.refusals import refusal
from tests.samples import Samples, samples_in
from tests.servers import Admin, fail_point

_TOKEN = "metrics-token-of-these-tests"


@pytest.fixture
async def root(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without the API's prefix, from this machine."""
    async with client_of(app) as client:
        yield client


@pytest.fixture
def with_token(app: FastAPI, resources: Resources) -> Iterator[None]:
    settings = resources.settings.model_copy(update={"metrics_token": SecretStr(_TOKEN)})
    app.state.resources = resources._replace(settings=settings)
    yield
    app.state.resources = resources


@pytest.fixture
def stale(resources: Resources) -> None:
    """What was read a moment ago is read anew."""
    resources.scrapes._stale_at_s = 0.0


async def scrape(root: httpx.AsyncClient) -> Samples:
    answer = await root.get("/metrics")
    assert answer.status_code == 200
    return samples_in(answer.text)


def client_from(app: FastAPI, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://wallet.example")


class TestWhoMayAsk:
    @pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
    async def test_whoever_is_on_this_machine(self, app: FastAPI, address: str) -> None:
        async with client_from(app, address) as client:
            assert (await client.get("/metrics")).status_code == 200

    @pytest.mark.parametrize("address", ["10.0.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1", "unix", ""])
    async def test_nobody_from_elsewhere(self, app: FastAPI, address: str) -> None:
        async with client_from(app, address) as client:
            answer = await client.get("/metrics")
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
        assert "wallet_" not in answer.text

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"])
    async def test_nobody_from_elsewhere_by_a_proxy_on_this_machine(self, root: httpx.AsyncClient, header: str) -> None:
        assert (await root.get("/metrics", headers={header: "192.0.2.1"})).status_code == 404

    async def test_nobody_in_production_without_a_token_to_show(
        self, app: FastAPI, resources: Resources, root: httpx.AsyncClient
    ) -> None:
        """A proxy on this machine looks as whoever is on it where it adds no header, as they come."""
        settings = resources.settings.model_copy(update={"env": Environment.PRODUCTION})
        app.state.resources = resources._replace(settings=settings)
        try:
            assert refusal(await root.get("/metrics")) == (404, "not_found")
        finally:
            app.state.resources = resources

    @pytest.mark.usefixtures("with_token")
    @pytest.mark.parametrize(
        "sent", [None, f"Basic {_TOKEN}", _TOKEN, "Bearer ", "Bearer another", f"Bearer {_TOKEN}x", "Bearer \xfc"]
    )
    async def test_with_a_token_set_nobody_without_it(self, root: httpx.AsyncClient, sent: str | None) -> None:
        headers = [] if sent is None else [(b"Authorization", sent.encode("latin-1"))]
        answer = await root.get("/metrics", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.usefixtures("with_token")
    async def test_with_a_token_set_whoever_has_it(self, app: FastAPI) -> None:
        async with client_from(app, "10.0.0.1") as client:
            answer = await client.get("/metrics", headers={"Authorization": f"Bearer {_TOKEN}"})
        assert answer.status_code == 200


class TestTheAnswer:
    async def test_is_text_unless_openmetrics_is_asked_for(self, root: httpx.AsyncClient) -> None:
        text = await root.get("/metrics", headers={"Accept": "text/plain;version=abc"})
        assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        other = await root.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
        assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert list(parse_openmetrics(other.text))  # type: ignore[no-untyped-call]  # the library's own lack

    async def test_names_no_user_no_wallet_and_no_path(
        self, root: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases)
        headers = bearer(account.user, settings)
        for path in (f"/api/v1/wallets/{account.wallet.id}", f"/api/v1/{account.user.id}", "/made-up/path"):
            await root.get(path, headers=headers)
        await root.request("BREW", "/api/v1/me", headers=headers)
        shown = (await root.get("/metrics")).text
        assert "/api/v1/wallets/{wallet_id}" in shown
        for hidden in (account.user.id, account.wallet.id, "made-up", "BREW"):
            assert hidden not in shown
        assert not re.search(r"[a-z]{3}_[0-9a-f]{8}", shown)

    async def test_is_in_no_log(self, root: httpx.AsyncClient) -> None:
        with own_logs() as lines:
            await root.get("/metrics")
        assert [line for line in lines if line["log_level"] != "debug"] == []


class TestRequests:
    @pytest.mark.parametrize(
        ("method", "path", "route", "status"),
        [
            ("GET", "/api/v1/me", "/api/v1/me", "401"),
            ("GET", "/api/v1/wallets/wal_1", "/api/v1/wallets/{wallet_id}", "401"),
            ("DELETE", "/livez", "/livez", "405"),
            ("GET", "/nowhere", "none", "404"),
            ("GET", "/livez", "/livez", "200"),
        ],
    )
    async def test_count_by_method_route_and_status(
        self, root: httpx.AsyncClient, method: str, path: str, route: str, status: str
    ) -> None:
        before = await scrape(root)
        for _ in range(3):
            await root.request(method, path)
        after = await scrape(root)
        labels = {"method": method, "route": route}
        total = ("wallet_http_requests_total", {**labels, "status": status})
        seconds = ("wallet_http_request_duration_seconds_count", labels)
        assert after.of(*total) - before.of(*total) == 3
        assert after.of(*seconds) - before.of(*seconds) == 3

    def test_each_handler_has_one_path(self, app: FastAPI) -> None:
        """Or the two would count as one."""
        assert set(_PATHS.values()) == set(app.state.methods_by_path)


class TestFiguresFromMongoDB:
    @pytest.mark.usefixtures("stale")
    async def test_tell_what_is_due_and_for_how_long(self, root: httpx.AsyncClient, resources: Resources) -> None:
        before = (await scrape(root)).of("wallet_queue_rows", {"queue": "outbox"})
        now = utc_now()
        rows = [
            outbox_row(OutboxTopic.PASSWORD_NOTICE, f"usr_metrics_{age_s}", None, now, now - timedelta(seconds=age_s))
            for age_s in (86_400, 3_600, -3_600)
        ]
        await outbox_repository.insert_many(rows, session=None)
        try:
            resources.scrapes._stale_at_s = 0.0
            found = await scrape(root)
        finally:
            for row in rows:
                await outbox_repository.delete(row)
        assert found.of("wallet_queue_rows", {"queue": "outbox"}) == before + 2
        assert 86_400 <= found.of("wallet_queue_oldest_age_seconds", {"queue": "outbox"}) < 86_500
        assert {labels["queue"] for labels in found.labels_of("wallet_queue_rows")} >= {"outbox", "callbacks", "bank"}

    @pytest.mark.usefixtures("stale")
    async def test_are_read_once_however_many_ask(
        self, root: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, resources: Resources
    ) -> None:
        reads = 0
        real = resources.scrapes._reads[0]

        async def read() -> Any:
            nonlocal reads
            reads += 1
            return await real()

        monkeypatch.setattr(resources.scrapes, "_reads", [read])
        # However slow the machine is: what was read once is still fresh.
        monkeypatch.setattr("service.services.metrics._FRESH_S", 600.0)
        await asyncio.gather(*(scrape(root) for _ in range(5)))
        await scrape(root)
        assert reads == 1

    @pytest.mark.usefixtures("stale")
    async def test_are_absent_where_mongodb_does_not_answer_and_the_rest_is_there(
        self, root: httpx.AsyncClient, admin: Admin, resources: Resources
    ) -> None:
        with fail_point(admin, 1000, failCommands=["find", "aggregate"], blockConnection=True, blockTimeMS=2_500):
            found = await scrape(root)
        assert not found.labels_of("wallet_queue_rows")
        assert found.labels_of("wallet_http_requests_total")
        resources.scrapes._stale_at_s = 0.0
        assert (await scrape(root)).labels_of("wallet_queue_rows")
