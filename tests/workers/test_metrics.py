"""A worker's own `/metrics`: one path for Prometheus, and what drains count."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from scripts.server_process import free_port
from scripts.service_stack import Stack
from service import metrics
from service.startup import Resources
from tests.person import Person
from tests.samples import Samples, samples_in
from tests.workers.test_drain import GRACE_S, Rows, make_drain
from workers.metrics import serve_metrics

_TOKEN = "metrics-token-of-these-tests"


@pytest.fixture
async def worker(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    settings = resources.settings.model_copy(update={"worker_metrics_port": port})
    async with (
        serve_metrics(resources._replace(settings=settings)),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


def counted() -> Samples:
    body, _ = metrics.render("")
    return samples_in(body.decode())


class TestTheWorkersPort:
    async def test_answers_with_metrics(self, worker: httpx.AsyncClient) -> None:
        answer = await worker.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "wallet_queue_rows" in answer.text

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/", 404), ("GET", "/metrics/x", 404), ("GET", "/openapi.json", 404), ("POST", "/metrics", 405)],
    )
    async def test_has_nothing_else(self, worker: httpx.AsyncClient, method: str, path: str, status: int) -> None:
        answer = await worker.request(method, path)
        assert (answer.status_code, answer.text) == (status, "")

    @pytest.mark.parametrize("sent", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x00\xff\r\n\r\n", b"GET /metrics", b"x" * 20_000])
    async def test_outlives_what_is_no_http(self, worker: httpx.AsyncClient, sent: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.base_url.port)
        writer.write(sent)
        writer.write_eof()
        assert b"wallet_" not in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert (await worker.get("/metrics")).status_code == 200

    async def test_takes_the_token_where_one_is_set(self, resources: Resources) -> None:
        port = free_port()
        update = {"worker_metrics_port": port, "metrics_token": SecretStr(_TOKEN)}
        asked = resources._replace(settings=resources.settings.model_copy(update=update))
        async with serve_metrics(asked), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            refused = await client.get("/metrics")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            taken = await client.get("/metrics", headers={"Authorization": f"Bearer {_TOKEN}"})
            assert taken.status_code == 200

    async def test_that_is_taken_keeps_no_worker_from_working(
        self, worker: httpx.AsyncClient, resources: Resources
    ) -> None:
        settings = resources.settings.model_copy(update={"worker_metrics_port": worker.base_url.port})
        async with serve_metrics(resources._replace(settings=settings)):
            assert (await worker.get("/metrics")).status_code == 200


class TestDrains:
    async def test_count_what_they_did_and_what_failed(self, resources: Resources) -> None:
        before = counted()
        drain = make_drain(Rows("a", "broken", "b"), resources)
        await drain.run()
        await drain.close(GRACE_S)
        after = counted()
        for outcome, rows in (("done", 2), ("failed", 1)):
            labels = {"queue": "outbox", "outcome": outcome}
            assert after.of("wallet_jobs_total", labels) - before.of("wallet_jobs_total", labels) == rows

    async def test_tell_what_is_in_their_hands(self, resources: Resources) -> None:
        queue = Rows("slow", "slower")
        queue.gates = {"slow": asyncio.Event(), "slower": asyncio.Event()}
        drain = make_drain(queue, resources)
        running = asyncio.create_task(drain.run())
        while queue.most_at_once < 2:  # noqa: ASYNC110 the drain tells nobody
            await asyncio.sleep(0)
        assert counted().of("wallet_rows_in_hand", {"queue": "outbox"}) == 2
        for gate in queue.gates.values():
            gate.set()
        await running
        await drain.close(GRACE_S)
        assert counted().of("wallet_rows_in_hand", {"queue": "outbox"}) == 0


class TestTheRunningStack:
    async def test_tells_of_a_withdrawal_from_its_request_to_its_end(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        url = payment_stack.worker_metrics_url
        assert url is not None
        async with httpx.AsyncClient() as client:
            person = await Person.register(payment_http)
            # Whoever has done this has started.
            await person.fund(10_000)
            before = samples_in((await client.get(url)).text)
            await person.fund(10_000)
            after = samples_in((await client.get(url)).text)
        for name, labels in (
            ("wallet_bank_calls_total", {"call": "submit", "outcome": "answered"}),
            ("wallet_bank_call_duration_seconds_count", {"call": "submit"}),
            ("wallet_jobs_total", {"queue": "callbacks", "outcome": "done"}),
            ("wallet_ledger_commands_total", {"outcome": "accepted"}),
        ):
            assert after.of(name, labels) > before.of(name, labels), name
        assert after.of("wallet_ledger_batch_size_count") > 0
        assert after.of("process_resident_memory_bytes") > 0
