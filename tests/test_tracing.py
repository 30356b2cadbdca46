"""One withdrawal as one trace, on real servers; and what is carried, sent and hidden."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
import structlog
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.gateways.callback_lines import CallbackLines, Post, Trouble
from service.log import hide_in_text
from service.repositories import outbox as outbox_repository
from service.services.bank_callbacks import apply_callback
from service.services.outbox import pursue_row
from service.services.settlement import Desk
from service.settings import Settings
from service.startup import Resources
from service.tracing import continued, current_traceparent, parse_traceparent, tracing
from tests.controllers.test_middleware import client_of
from tests.factories import Account, bearer, make_account
from tests.workers.test_drain import GRACE_S, Aftercare
from workers.bank_simulation import BankWork
from workers.drain import Drain

_CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_TRACE_ID = int(_CALLER[3:35], 16)
_DESTINATION = "bank-account-0001-success"


@pytest.fixture
async def exporter() -> AsyncIterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    async with tracing("wallet-tests", endpoint=None, sample_ratio=1.0, processor=SimpleSpanProcessor(exporter)):
        yield exporter


@pytest.fixture
async def account(databases: Databases) -> Account:
    return await make_account(databases, balance=10_000)


async def withdraw(app: FastAPI, account: Account, settings: Settings, **headers: str) -> httpx.Response:
    async with client_of(app) as client:
        return await client.post(
            "/api/v1/withdrawals",
            json={"amount": 4_321, "currency": "INR", "destination": _DESTINATION},
            headers=bearer(account.user, settings) | {"Idempotency-Key": uuid4().hex} | headers,
        )


class InProcess(CallbackLines):
    """The bank's callbacks, straight to the application."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def post_all(self, series: Sequence[Sequence[Post]]) -> list[list[Trouble]]:
        async with client_of(self._app) as http:
            for post in [post for one in series for post in one]:
                answer = await http.post("/webhooks/bank-callback", headers=dict(post.headers), content=post.body)
                assert answer.status_code == 200
        return [[None] * len(one) for one in series]


class Way:
    """What the workers do for one withdrawal and no other, by drains as theirs."""

    def __init__(self, app: FastAPI, resources: Resources) -> None:
        self._app, self._resources = app, resources
        self._wallet, self._bank = resources.databases.wallet, resources.databases.bank

    async def go(self, operation_id: str) -> None:
        settings, ledger = self._resources.settings, self._resources.ledger
        desk = Desk(ledger, self._resources.bank, self._resources.mailbox, settings, self._resources.databases.client)
        row = await self._wallet["outbox"].find_one({"subject_id": operation_id})
        assert row is not None
        taken = outbox_repository._from_row(row)._replace(due_at=utc_now() + timedelta(seconds=settings.bank_recheck_s))
        await self._drain(taken, lambda one: pursue_row(one, desk))
        claimed = {"$set": {"claim": uuid4().hex}}
        order = await self._bank["orders"].find_one_and_update({"_id": operation_id}, claimed, return_document=True)
        assert order is not None
        bank = BankWork(settings)
        bank.close()
        bank.lines = InProcess(self._app)
        await asyncio.sleep(max(0.0, (order["execute_at"] - utc_now()).total_seconds()))
        await self._drain([order], bank.work)
        callback = await self._wallet["bank_callbacks"].find_one({"payload.reference": operation_id})
        await self._drain(callback, lambda one: apply_callback(one, ledger))

    async def _drain(self, row: Any, work: Callable[[Any], Awaitable[None]]) -> None:
        rows = [row]

        async def claim(_limit: int) -> list[Any]:
            taken, rows[:] = rows[:], []
            return taken

        drain = Drain(Queue.OUTBOX, self._resources.jobs, claim, work, 1, Aftercare())
        await drain.run()
        await drain.close(GRACE_S)


class Shown(NamedTuple):
    """A span as a person sees it: its own name, and the names of those that it is in, from the outermost one."""

    way: tuple[str, ...]
    kind: str


def shown(spans: tuple[ReadableSpan, ...], caller: int | None = None) -> list[Shown]:
    by_id = {span.context.span_id: span for span in spans if span.context is not None}

    def way(span: ReadableSpan) -> tuple[str, ...]:
        if span.parent is None or span.parent.span_id == caller:
            return (span.name,)
        return (*way(by_id[span.parent.span_id]), span.name)

    return sorted(Shown(way(span), span.kind.name) for span in spans)


_REQUEST = "POST /api/v1/withdrawals"
_VISIT = (_REQUEST, "outbox.visit")
_CALLBACK = (*_VISIT, "bank.submit", "POST /webhooks/bank-callback")
_ONE_WITHDRAWAL = sorted(
    [
        Shown((_REQUEST,), "SERVER"),
        # Accepted, and the money held.
        Shown((_REQUEST, "ledger.commit"), "INTERNAL"),
        Shown(_VISIT, "CONSUMER"),
        # Processing.
        Shown((*_VISIT, "ledger.commit"), "INTERNAL"),
        Shown((*_VISIT, "bank.submit"), "CLIENT"),
        Shown(_CALLBACK, "SERVER"),
        Shown((*_CALLBACK, "callback.apply"), "CONSUMER"),
        # Settled.
        Shown((*_CALLBACK, "callback.apply", "ledger.commit"), "INTERNAL"),
    ]
)


class TestOneWithdrawal:
    async def test_is_one_trace_from_its_request_to_the_commit_that_settles_it(
        self, app: FastAPI, resources: Resources, account: Account, exporter: InMemorySpanExporter
    ) -> None:
        answer = await withdraw(app, account, resources.settings)
        assert answer.status_code == 202
        await Way(app, resources).go(answer.json()["id"])
        operation = await resources.databases.wallet["withdrawals"].find_one({"_id": answer.json()["id"]})
        assert operation is not None
        assert operation["status"] == "success"
        spans = exporter.get_finished_spans()
        assert len({span.context.trace_id for span in spans if span.context is not None}) == 1
        assert shown(spans) == _ONE_WITHDRAWAL
        assert answer.headers["traceparent"][3:35] == f"{spans[0].context.trace_id:032x}"

    async def test_goes_on_with_the_trace_that_its_client_has_begun(
        self, app: FastAPI, resources: Resources, account: Account, exporter: InMemorySpanExporter
    ) -> None:
        answer = await withdraw(app, account, resources.settings, traceparent=_CALLER)
        await Way(app, resources).go(answer.json()["id"])
        spans = exporter.get_finished_spans()
        assert {span.context.trace_id for span in spans if span.context is not None} == {_TRACE_ID}
        assert shown(spans, caller=int(_CALLER[36:52], 16)) == _ONE_WITHDRAWAL

    async def test_shows_ids_and_statuses_and_nothing_about_anybody(
        self, app: FastAPI, resources: Resources, account: Account, exporter: InMemorySpanExporter
    ) -> None:
        answer = await withdraw(app, account, resources.settings)
        await Way(app, resources).go(answer.json()["id"])
        spans = exporter.get_finished_spans()
        said = " ".join(f"{span.name} {dict(span.attributes or {})} {span.events}" for span in spans)
        assert answer.json()["id"] in said
        for hidden in (_DESTINATION, "4321", "INR", account.user.email, account.user.id, account.wallet.id, "Bearer"):
            assert hidden not in said
        known = {"http.request.method", "http.route", "http.response.status_code", "wallet.command"}
        known |= {"wallet.operation_id", "wallet.topic", "wallet.attempt", "wallet.outcome"}
        assert {name for span in spans for name in (span.attributes or {})} == known

    async def test_that_is_refused_says_by_which_class_and_is_no_error_of_ours(
        self, app: FastAPI, resources: Resources, databases: Databases, exporter: InMemorySpanExporter
    ) -> None:
        poor = await make_account(databases)
        assert (await withdraw(app, poor, resources.settings)).status_code == 422
        (request,) = [span for span in exporter.get_finished_spans() if span.name == _REQUEST]
        assert request.attributes is not None
        assert request.attributes["http.response.status_code"] == 422
        assert request.status.is_unset

    async def test_is_carried_through_where_nothing_is_traced(
        self, app: FastAPI, resources: Resources, account: Account
    ) -> None:
        answer = await withdraw(app, account, resources.settings, traceparent=_CALLER)
        row = await resources.databases.wallet["outbox"].find_one({"subject_id": answer.json()["id"]})
        assert row is not None
        assert row["traceparent"] == answer.headers["traceparent"] == _CALLER
        await Way(app, resources).go(answer.json()["id"])
        order = await resources.databases.bank["orders"].find_one({"_id": answer.json()["id"]})
        callback = await resources.databases.wallet["bank_callbacks"].find_one(
            {"payload.reference": answer.json()["id"]}
        )
        assert order is not None
        assert callback is not None
        assert order["traceparent"] == callback["traceparent"] == _CALLER

    async def test_leaves_no_mark_where_nobody_traces(
        self, app: FastAPI, resources: Resources, account: Account
    ) -> None:
        answer = await withdraw(app, account, resources.settings)
        assert "traceparent" not in answer.headers
        row = await resources.databases.wallet["outbox"].find_one({"subject_id": answer.json()["id"]})
        assert row is not None
        assert "traceparent" not in row


class TestLogs:
    async def test_say_which_trace_a_line_belongs_to(
        self, app: FastAPI, resources: Resources, account: Account, exporter: InMemorySpanExporter
    ) -> None:
        processors = [structlog.contextvars.merge_contextvars]
        with capture_logs(processors=processors) as lines:
            await withdraw(app, account, resources.settings)
        (finished,) = [line for line in lines if line["event"] == "request.finished"]
        assert finished["trace_id"] == f"{exporter.get_finished_spans()[0].context.trace_id:032x}"

    async def test_say_nothing_of_the_trace_before(self, app: FastAPI) -> None:
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            async with client_of(app) as client:
                await client.get("/api/v1/me", headers={"traceparent": _CALLER})
                await client.get("/api/v1/me")
        first, second = [line for line in lines if line["event"] == "request.finished"]
        assert first["trace_id"] == _CALLER[3:35]
        assert "trace_id" not in second


class TestTraceparents:
    """Trace Context, Level 1, section 3.2.2."""

    @pytest.mark.parametrize(
        ("sent", "taken"),
        [
            (_CALLER, _CALLER),
            (_CALLER[:-2] + "00", _CALLER[:-2] + "00"),
            ("cc" + _CALLER[2:], _CALLER),
            ("cc" + _CALLER[2:] + "-what-the-future-will-be-like", _CALLER),
        ],
    )
    def test_that_are_right_are_taken(self, sent: str, taken: str) -> None:
        assert parse_traceparent(sent) == taken

    @pytest.mark.parametrize(
        "sent",
        [
            "",
            "00",
            _CALLER.upper(),
            _CALLER + "-more",
            _CALLER + "0",
            _CALLER[:-1],
            "ff" + _CALLER[2:],
            "cc" + _CALLER[2:] + ".what",
            "00-" + "0" * 32 + _CALLER[35:],
            _CALLER[:36] + "0" * 16 + "-01",
            _CALLER.replace("a", "g"),
            _CALLER + "\n",
        ],
    )
    def test_that_are_wrong_are_as_if_none_was_sent(self, sent: str) -> None:
        assert parse_traceparent(sent) is None

    async def test_of_which_two_came_are_not_taken(self, app: FastAPI) -> None:
        async with client_of(app) as client:
            answer = await client.get("/api/v1/me", headers=[("traceparent", _CALLER), ("traceparent", _CALLER)])
        assert "traceparent" not in answer.headers

    def test_end_with_what_they_are_for(self) -> None:
        with continued(_CALLER, "anything", "server"):
            assert current_traceparent() == _CALLER
        assert current_traceparent() is None

    def test_stay_readable_in_logs(self) -> None:
        assert re.fullmatch(r"[0-9a-f]{32}", hide_in_text(_CALLER[3:35]))


class TestSampling:
    @pytest.mark.parametrize(("flags", "spans"), [("00", 0), ("01", 1)])
    async def test_is_the_callers_choice_where_there_is_one(self, flags: str, spans: int) -> None:
        exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(exporter)
        async with tracing("wallet-tests", endpoint=None, sample_ratio=0.5, processor=processor):
            with continued(_CALLER[:-2] + flags, "anything", "server"):
                assert (current_traceparent() or "")[-2:] == flags
        assert len(exporter.get_finished_spans()) == spans

    async def test_is_ours_where_there_is_none(self) -> None:
        exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(exporter)
        async with tracing("wallet-tests", endpoint=None, sample_ratio=0.0, processor=processor):
            with continued(None, "anything", "server"):
                pass
        assert exporter.get_finished_spans() == ()


class TestSending:
    async def test_goes_to_the_endpoint_by_otlp(self) -> None:
        bodies: list[tuple[bytes, bytes]] = []

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
            bodies.append((head, await reader.readexactly(length)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with tracing("wallet-tests", endpoint=f"http://127.0.0.1:{port}/", sample_ratio=1.0):
                with continued(_CALLER, "anything", "server"):
                    pass
        ((head, body),) = bodies
        assert head.startswith(b"POST /v1/traces ")
        (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
        assert {one.key: one.value.string_value for one in resource.resource.attributes}[
            "service.name"
        ] == "wallet-tests"
        assert resource.scope_spans[0].spans[0].trace_id.hex() == _CALLER[3:35]

    async def test_to_nobody_ends_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.tracing._FLUSH_ENDS_S", 0.2)
        async with (
            asyncio.timeout(5),
            tracing("wallet-tests", endpoint="http://127.0.0.1:9", sample_ratio=1.0),
        ):
            with continued(_CALLER, "anything", "server"):
                pass
