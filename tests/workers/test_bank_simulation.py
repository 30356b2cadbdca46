"""The simulated bank at work: real posts to a receiver of the test's own, each signed, and none forgotten."""

import asyncio
import http.server
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from service.domain.identifiers import Prefix, new_id
from service.domain.server_clock import ServerTime
from service.gateways.bank import BankOrder, OrderKind
from service.gateways.bank_behaviours import Behaviour, journal_row
from service.repositories import bank_orders as journal
from service.repositories import due_rows
from service.startup import Resources
from tests.servers import Admin
from tests.workers.test_drain import GRACE_S
from workers.bank_simulation import BankWork, bank_drain


class Server(http.server.ThreadingHTTPServer):
    # All lines call at once.
    request_queue_size = 64


class Receiver:
    """`refuses` is how many posts it does not take before it takes one."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.refuses = 0
        self.connections: set[Any] = set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.connections.add(self.client_address)
                outer.said.append((self.headers["webhook-id"], dict(self.headers) | {"body": body, "path": self.path}))
                outer.refuses -= 1
                self.send_response(200 if outer.refuses < 0 else 503)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/webhooks/bank-callback?from=bank"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def of(self, reference: str) -> list[tuple[str, dict[str, Any]]]:
        told = [(webhook_id, orjson.loads(post["body"])) for webhook_id, post in self.said]
        return [(webhook_id, payload) for webhook_id, payload in told if webhook_id.startswith(f"msg_{reference}")]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def work(receiver: Receiver, resources: Resources, admin: Admin) -> Iterator[BankWork]:
    """With nothing due of other tests."""
    orders = admin[resources.settings.bank_database]["orders"]
    orders.update_many({"due_at": {"$exists": True}}, {"$unset": {"due_at": ""}})
    work = BankWork(resources.settings.model_copy(update={"bank_callback_url": receiver.url}))
    yield work
    work.close()


async def _accept(work: BankWork, resources: Resources, *behaviours: Behaviour) -> list[str]:
    now = await work.conditions.now()
    orders = [
        BankOrder(new_id(Prefix.WITHDRAWAL), OrderKind.PAYOUT, 500, "INR", "bank-account-0001") for _ in behaviours
    ]
    settings = resources.settings.model_copy(update={"bank_late_s": 0.0, "bank_return_after_s": 0.0})
    rows = [journal_row(order, one, now, 0.0, settings) for order, one in zip(orders, behaviours, strict=True)]
    assert await journal.insert_missing(rows) == []
    return [order.reference for order in orders]


async def _work_off(work: BankWork, resources: Resources) -> None:
    drain = bank_drain(resources, work)
    await drain.run()
    await drain.close(GRACE_S)


async def _is_due(reference: str) -> bool:
    return "due_at" in await journal.get(reference)


class TestAClockThatWasSetBack:
    async def test_keeps_no_order_waiting_that_was_taken_by_it(
        self, receiver: Receiver, work: BankWork, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(due_rows, "SPREAD_S", 0.0)
        ahead, now = timedelta(minutes=10), await work.conditions.now()
        order = BankOrder(new_id(Prefix.WITHDRAWAL), OrderKind.PAYOUT, 500, "INR", "bank-account-0001")
        settings = resources.settings.model_copy(update={"bank_return_after_s": 0.0})
        row = journal_row(order, Behaviour.RETURNED, now + ahead, 0.0, settings)
        await journal.insert_missing([row])
        await _work_off(work, resources)
        assert receiver.of(order.reference) == []
        assert await journal.bring_forward(ServerTime(now, now + ahead), lease_s=30.0) == 1
        await _work_off(work, resources)
        told = [payload["type"] for _, payload in receiver.of(order.reference)]
        assert told == ["payment.settled", "payment.returned"]
        assert not await _is_due(order.reference)


class TestReports:
    async def test_go_out_signed_once_each_in_their_order_over_connections_that_stay(
        self, receiver: Receiver, work: BankWork, resources: Resources
    ) -> None:
        contrary = [Behaviour.SUCCESS_THEN_FAILED] * 100
        references = await _accept(work, resources, *contrary)
        await _work_off(work, resources)
        for reference in references:
            assert [payload["status"] for _, payload in receiver.of(reference)] == ["success", "failed"]
            assert not await _is_due(reference)
        assert len(receiver.connections) <= len(work.lines._lines)
        webhook = Webhook(resources.settings.bank_webhook_secret.get_secret_value())
        for _, post in receiver.said:
            webhook.verify(post["body"], {name.lower(): value for name, value in post.items() if name != "body"})
            assert post["path"] == "/webhooks/bank-callback?from=bank"

    async def test_say_all_that_is_planned(self, receiver: Receiver, work: BankWork, resources: Resources) -> None:
        taken = [Behaviour.SILENT, Behaviour.DUPLICATE, Behaviour.RETURNED, Behaviour.UNKNOWN_REFERENCE]
        silent, twice, returned, astray = await _accept(work, resources, *taken)
        await _work_off(work, resources)
        assert receiver.of(silent) == []
        assert [webhook_id for webhook_id, _ in receiver.of(twice)] == [f"msg_{twice}"] * 2
        assert [payload["type"] for _, payload in receiver.of(returned)] == ["payment.settled", "payment.returned"]
        assert [payload["reference"] == astray for _, payload in receiver.of(astray)] == [False, True]
        moved = [await journal.get(reference) for reference in (silent, twice, returned, astray)]
        assert [(len(row["payments"]), len(row["returns"])) for row in moved] == [(1, 0), (1, 0), (1, 1), (1, 0)]
        # What was taken stands there, as a witness; what was said astray is about no order.
        ids = [
            [webhook_id for webhook_id, payload in receiver.of(row["_id"]) if payload["reference"] == row["_id"]]
            for row in moved
        ]
        assert [row["said"] for row in moved] == ids

    async def test_that_are_not_taken_come_again_under_the_same_id_and_overtake_nothing(
        self, receiver: Receiver, work: BankWork, resources: Resources, admin: Admin
    ) -> None:
        receiver.refuses = 1
        (reference,) = await _accept(work, resources, Behaviour.SUCCESS_THEN_FAILED)
        await _work_off(work, resources)
        assert len(receiver.said) == 1
        row = await journal.get(reference)
        assert (len(row["reports"]), row["said"]) == (2, [])
        assert row["due_at"] > row["executed_at"]
        past = {"$set": {"due_at": row["executed_at"] - timedelta(seconds=1)}}
        admin[resources.settings.bank_database]["orders"].update_one({"_id": reference}, past)
        await _work_off(work, resources)
        told = [(webhook_id, payload["status"]) for webhook_id, payload in receiver.of(reference)]
        first, second = f"msg_{reference}", f"msg_{reference}_2"
        assert told == [(first, "success"), (first, "success"), (second, "failed")]
        assert len((await journal.get(reference))["payments"]) == 1

    async def test_wait_where_nobody_answers(self, receiver: Receiver, work: BankWork, resources: Resources) -> None:
        receiver.server.shutdown()
        receiver.server.server_close()
        references = await _accept(work, resources, *[Behaviour.SUCCESS] * 20)
        await _work_off(work, resources)
        rows = [await journal.get(reference) for reference in references]
        assert all(row["state"] == "success" and len(row["reports"]) == 1 and "due_at" in row for row in rows)

    async def test_survive_a_connection_that_the_receiver_has_ended(
        self, receiver: Receiver, work: BankWork, resources: Resources
    ) -> None:
        # One for each line, and then once more.
        each = [Behaviour.SUCCESS] * len(work.lines._lines)
        first = await _accept(work, resources, *each)
        await _work_off(work, resources)
        for line in work.lines._lines:
            # As a server ends one that was idle: both ways, and the other side has not noticed.
            line._connection.sock.shutdown(socket.SHUT_RDWR)
        second = await _accept(work, resources, *each)
        await _work_off(work, resources)
        assert {len(receiver.of(reference)) for reference in (*first, *second)} == {1}


class TestAWorkerThatDies:
    async def test_between_money_and_report_leaves_the_report_to_the_next_and_pays_once(
        self, receiver: Receiver, work: BankWork, resources: Resources, admin: Admin
    ) -> None:
        (reference,) = await _accept(work, resources, Behaviour.RETURNED)
        ((order,),) = await work.claim(1)
        await journal.execute_many([reference], await work.conditions.now())
        lease = {"$set": {"due_at": order["execute_at"]}}
        admin[resources.settings.bank_database]["orders"].update_one({"_id": reference}, lease)
        await _work_off(work, resources)
        row = await journal.get(reference)
        assert (len(row["payments"]), len(row["returns"]), len(receiver.of(reference))) == (1, 1, 2)

    async def test_and_one_that_was_only_slow_move_money_once_between_them(
        self, receiver: Receiver, work: BankWork, resources: Resources
    ) -> None:
        references = await _accept(work, resources, *[Behaviour.RETURNED] * 10)
        (orders,) = await work.claim(1)
        await asyncio.gather(work.work(orders), work.work(orders))
        rows = [await journal.get(reference) for reference in references]
        assert {(len(row["payments"]), len(row["returns"])) for row in rows} == {(1, 1)}
        assert {webhook_id for webhook_id, _ in receiver.of(references[0])} == {
            f"msg_{references[0]}",
            f"msg_{references[0]}_2",
        }
