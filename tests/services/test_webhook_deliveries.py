"""Events on their way to endpoints: signed, sent once more where they did not arrive, and in nobody's way."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.database import Databases
from service.documents import User
from service.domain.clock import utc_now
from service.domain.dead_letters import DeadLetter, Queue
from service.domain.events import EventType
from service.domain.identifiers import Prefix, new_id
from service.domain.outbox import OutboxTopic
from service.domain.webhook_deliveries import DeliveryStatus, WebhookDelivery
from service.domain.webhook_endpoints import DisabledReason, EndpointStatus, WebhookEndpoint
from service.gateways.webhook_addresses import Failure, WebhookAddresses
from service.gateways.webhook_client import WebhookClient
from service.repositories import webhook_endpoints as endpoint_repository
from service.services import dead_letters, webhook_courier
from service.services.callers import Caller
from service.services.dead_letters import Claimed, Reason
from service.services.outbox import claim_rows, pursue_row
from service.services.settlement import Desk
from service.services.webhook_deliveries import redeliver, send_test
from service.services.webhook_endpoints import Registrar, change, delete, rotate_secret
from service.startup import Resources
from tests.certificates import make_tls
from tests.factories import make_user
from tests.receivers import LOOPBACK, Received, Receiver, Reply, running_receiver
from tests.webhooks import (
    change_delivery,
    change_endpoint,
    deliver_due,
    deliveries_of,
    make_courier,
    make_due,
    make_endpoint,
    make_event,
    queue,
    sender_of,
)
from tests.workers.test_drain import GRACE_S, Aftercare
from workers.drain import Drain


@pytest.fixture
async def user(databases: Databases) -> User:
    return await make_user(databases)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def registrar(resources: Resources) -> Registrar:
    return Registrar(resources.databases.client, resources.settings, resources.webhook_addresses)


async def _current(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    found = await endpoint_repository.find(endpoint.id)
    assert found is not None
    return found


async def _tried(resources: Resources, endpoint: WebhookEndpoint, **settings: Any) -> WebhookDelivery:
    """Its only delivery, after one more round."""
    await deliver_due(make_courier(resources, **settings))
    (delivery,) = await deliveries_of(endpoint)
    return delivery


class Bookkeeper:
    """A receiver that knows the specification and nothing of us: it verifies, drops what is double, and sorts."""

    def __init__(self, secret: str) -> None:
        self.webhook = Webhook(secret)
        self.seen: set[str] = set()
        self.by_wallet: dict[str, dict[int, Any]] = defaultdict(dict)

    async def take(self, received: Received) -> Reply:
        try:
            event = self.webhook.verify(received.body, dict(received.headers))
        except WebhookVerificationError:
            return Reply(401)
        if received.headers["webhook-id"] not in self.seen:
            self.seen.add(received.headers["webhook-id"])
            data = event["data"]
            assert data["sequence"] not in self.by_wallet[data["wallet_id"]]
            self.by_wallet[data["wallet_id"]][data["sequence"]] = event
        return Reply(204)


class TestSignatures:
    """Done when: a receiver written only from the specification verifies what comes, over TLS, in rotation too."""

    async def test_hold_over_tls_for_a_receiver_that_knows_only_the_specification(
        self, resources: Resources, user: User, tmp_path: Path
    ) -> None:
        tls = make_tls(tmp_path, "shop.example")

        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return [LOOPBACK]

        addresses = WebhookAddresses(resources.settings, resolve)
        client = WebhookClient(addresses, resources.settings.webhook_timeout_s, tls=tls.client)
        async with running_receiver(tls.server) as receiver:
            given = resources._replace(webhook_addresses=addresses)
            issued = await make_endpoint(given, user, f"https://shop.example:{receiver.port}/events")
            bookkeeper = Bookkeeper(issued.secret)
            receiver.answer = bookkeeper.take
            event = make_event(user, 7)
            await queue(resources, event)
            await deliver_due(make_courier(resources, client))
        assert bookkeeper.by_wallet[event.wallet_id][7] == {
            "type": "withdrawal.succeeded",
            "timestamp": f"{event.created_at:%Y-%m-%dT%H:%M:%S}.{event.created_at.microsecond // 1000:03d}Z",
            "data": {
                "event_id": event.id,
                "wallet_id": event.wallet_id,
                "sequence": 7,
                "subject_id": event.subject_id,
                "status": "success",
                "previous_status": "processing",
                "subject": event.data,
            },
        }
        (delivery,) = await deliveries_of(issued.endpoint)
        assert (delivery.status, delivery.tries[0]["code"]) == (DeliveryStatus.DELIVERED, 204)

    async def test_hold_by_either_secret_while_it_is_changed_and_by_the_new_one_alone_after(
        self, resources: Resources, registrar: Registrar, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        new = await rotate_secret(registrar, user.id, issued.endpoint.id, timedelta(hours=24), None)
        await queue(resources, make_event(user))
        await deliver_due(make_courier(resources))
        (during,) = receiver.requests
        assert len(during.headers["webhook-signature"].split(" ")) == 2
        for secret in (issued.secret, new.secret):
            Webhook(secret).verify(during.body, dict(during.headers))
        await change_endpoint(databases, issued.endpoint.id, previous_secret_until=utc_now())
        await queue(resources, make_event(user))
        await deliver_due(make_courier(resources))
        after = receiver.requests[-1]
        Webhook(new.secret).verify(after.body, dict(after.headers))
        with pytest.raises(WebhookVerificationError):
            Webhook(issued.secret).verify(after.body, dict(after.headers))

    async def test_end_at_once_where_no_overlap_is_wanted_and_with_the_next_rotation(
        self, resources: Resources, registrar: Registrar, user: User, receiver: Receiver
    ) -> None:
        first = await make_endpoint(resources, user, receiver.url())
        second = await rotate_secret(registrar, user.id, first.endpoint.id, timedelta(days=1), None)
        third = await rotate_secret(registrar, user.id, first.endpoint.id, timedelta(days=1), None)
        fourth = await rotate_secret(registrar, user.id, first.endpoint.id, timedelta(0), None)
        for issued, count in ((third, 2), (fourth, 1)):
            assert len(issued.endpoint.sealed_secrets(utc_now())) == count
        await queue(resources, make_event(user))
        await deliver_due(make_courier(resources))
        (received,) = receiver.requests
        Webhook(fourth.secret).verify(received.body, dict(received.headers))
        for gone in (first, second, third):
            with pytest.raises(WebhookVerificationError):
                Webhook(gone.secret).verify(received.body, dict(received.headers))

    async def test_are_of_the_time_of_the_try_and_the_id_is_of_the_delivery(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(500), Reply(200))
        await queue(resources, make_event(user))
        delivery = await _tried(resources, issued.endpoint)
        await make_due(databases, [delivery])
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.DELIVERED
        first, second = receiver.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery.id
        assert first.body == second.body
        for one in (first, second):
            Webhook(issued.secret).verify(one.body, dict(one.headers))


class TestDuplicatesAndOrder:
    """Done when: duplicates and order can be told from the payload."""

    async def test_what_comes_double_and_shuffled_is_put_together_again(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        bookkeeper = Bookkeeper(issued.secret)
        drawn = random.Random(5)  # noqa: S311 no secret

        async def take(received: Received) -> Reply:
            reply = await bookkeeper.take(received)
            # Taken, and we do not hear of it.
            return Reply(503) if drawn.random() < 0.3 else reply

        receiver.answer = take
        wallets = [new_id(Prefix.WALLET) for _ in range(2)]
        events = [make_event(user, number, wallet_id=wallet) for wallet in wallets for number in range(1, 13)]
        drawn.shuffle(events)
        await queue(resources, *events)
        await queue(resources, *events[:5])
        for _ in range(20):
            await deliver_due(make_courier(resources))
            waiting = [one for one in await deliveries_of(issued.endpoint) if one.status is DeliveryStatus.PENDING]
            await make_due(databases, waiting)
        for delivery in drawn.sample(await deliveries_of(issued.endpoint), 6):
            await redeliver(user.id, issued.endpoint.id, delivery.id, sender_of(resources))
        receiver.answer = bookkeeper.take
        await deliver_due(make_courier(resources))
        assert len(receiver.requests) > len(events) + 6
        for wallet in wallets:
            wanted = sorted((one for one in events if one.wallet_id == wallet), key=lambda one: one.sequence)
            told = [bookkeeper.by_wallet[wallet][number] for number in range(1, 13)]
            assert [one["data"]["event_id"] for one in told] == [one.id for one in wanted]

    async def test_who_dies_before_the_answer_is_noted_sends_the_same_again(
        self,
        resources: Resources,
        user: User,
        receiver: Receiver,
        databases: Databases,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        await queue(resources, make_event(user))

        def die(_point: object) -> None:
            if receiver.requests:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(webhook_courier, "reach", die)
            with pytest.raises(KeyboardInterrupt):
                await deliver_due(make_courier(resources))
        (delivery,) = await deliveries_of(issued.endpoint)
        assert (delivery.status, delivery.tries) == (DeliveryStatus.PENDING, [])
        assert delivery.due_at is not None
        assert delivery.due_at > utc_now()
        await make_due(databases, [delivery])
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.DELIVERED
        first, second = receiver.requests
        assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


class TestEnqueue:
    async def test_makes_one_delivery_for_each_endpoint_that_wants_it_however_often(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        everything = await make_endpoint(resources, user, receiver.url())
        deposits = await make_endpoint(resources, user, receiver.url(), EventType.DEPOSIT_SUCCEEDED)
        withdrawal, deposit = make_event(user), make_event(user, type=EventType.DEPOSIT_SUCCEEDED)
        for _ in range(2):
            await queue(resources, withdrawal, deposit)
            await asyncio.gather(*(queue(resources, deposit, withdrawal) for _ in range(3)))
        assert {one.event_id for one in await deliveries_of(everything.endpoint)} == {withdrawal.id, deposit.id}
        assert [one.event_id for one in await deliveries_of(deposits.endpoint)] == [deposit.id]

    async def test_does_not_start_anew_what_has_arrived(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        event = make_event(user)
        await queue(resources, event)
        await _tried(resources, issued.endpoint)
        await queue(resources, event)
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.DELIVERED
        assert len(receiver.requests) == 1

    async def test_leaves_out_the_disabled_the_deleted_and_the_deactivated(
        self, resources: Resources, registrar: Registrar, receiver: Receiver, databases: Databases
    ) -> None:
        users = [await make_user(databases) for _ in range(3)]
        endpoints = [(await make_endpoint(resources, user, receiver.url())).endpoint for user in users]
        await change(registrar, users[0].id, endpoints[0].id, {"status": EndpointStatus.DISABLED}, None)
        await delete(registrar, users[1].id, endpoints[1].id, None)
        await databases.wallet["users"].update_one({"_id": users[2].id}, {"$set": {"is_active": False}})
        await queue(resources, *(make_event(user) for user in users))
        assert [await deliveries_of(endpoint) for endpoint in endpoints] == [[], [], []]


class TestOutcomes:
    @pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
    async def test_2xx_is_delivered(self, resources: Resources, user: User, receiver: Receiver, code: int) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(code))
        await queue(resources, make_event(user))
        delivery = await _tried(resources, issued.endpoint)
        assert (delivery.status, delivery.due_at) == (DeliveryStatus.DELIVERED, None)
        assert delivery.delivered_at == (await _current(issued.endpoint)).last_delivered_at

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            (301, "redirect_refused"),
            (307, "redirect_refused"),
            (400, "status_not_2xx"),
            (404, "status_not_2xx"),
            (500, "status_not_2xx"),
        ],
    )
    async def test_anything_else_is_tried_again(
        self, resources: Resources, user: User, receiver: Receiver, code: int, error: str
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(code, {"location": receiver.url("/elsewhere")}))
        await queue(resources, make_event(user))
        delivery = await _tried(resources, issued.endpoint)
        assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 1)
        assert [(one["code"], one["error"]) for one in delivery.tries] == [(code, error)]
        assert len(receiver.requests) == 1

    async def test_410_disables_the_endpoint_at_once_and_its_owner_gets_a_mail(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(410))
        events = [make_event(user) for _ in range(3)]
        await queue(resources, *events)
        await deliver_due(make_courier(resources))
        endpoint = await _current(issued.endpoint)
        assert (endpoint.status, endpoint.disabled_reason) == (EndpointStatus.DISABLED, DisabledReason.GONE)
        statuses = sorted(one.status for one in await deliveries_of(endpoint))
        assert statuses == [DeliveryStatus.CANCELED, DeliveryStatus.CANCELED, DeliveryStatus.FAILED]
        assert len(receiver.requests) == 1
        (mail,) = await _mails_to(user, resources)
        assert endpoint.id in mail["text"]
        assert "410" in mail["text"]

    @pytest.mark.parametrize(
        ("code", "said", "least_s", "most_s"),
        [
            (429, "120", 119, 121),
            (503, "120", 119, 121),
            # No longer than a day, and no sooner than usual.
            (429, "9999999999999", 86399, 86401),
            (429, "0", 3, 7),
            (429, "-5", 3, 7),
            (503, "soon", 3, 7),
            (503, "Fri, 31 Dec 9999 23:59:59 GMT", 86399, 86401),
            # Where it means nothing.
            (500, "120", 3, 7),
        ],
    )
    async def test_a_pause_that_is_asked_for_is_kept_within_bounds(
        self, resources: Resources, user: User, receiver: Receiver, code: int, said: str, least_s: int, most_s: int
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(code, {"retry-after": said}))
        await queue(resources, make_event(user))
        delivery = await _tried(resources, issued.endpoint)
        assert delivery.due_at is not None
        wait_s = (delivery.due_at - delivery.tries[0]["at"]).total_seconds()
        # How long the try itself took is not our matter here.
        assert least_s <= wait_s <= most_s + delivery.tries[0]["duration_ms"] / 1000 + 5

    async def test_silence_and_closed_doors_are_noted(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        async def say_nothing(_received: Received) -> Reply:
            await asyncio.Event().wait()
            return Reply()

        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answer = say_nothing
        await queue(resources, make_event(user))
        delivery = await _tried(resources, issued.endpoint, webhook_timeout_s=0.2)
        assert (delivery.tries[0]["code"], delivery.tries[0]["error"]) == (None, Failure.TIMEOUT)
        other = await make_user(resources.databases)
        closed = await make_endpoint(resources, other, f"http://{LOOPBACK}:9/events")
        await queue(resources, make_event(other))
        assert (await _tried(resources, closed.endpoint)).tries[0]["error"] == Failure.CONNECTION_FAILED

    async def test_an_address_that_is_not_allowed_any_more_is_not_asked(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        await queue(resources, make_event(user))
        delivery = await _tried(resources, issued.endpoint, webhook_allow_loopback=False)
        assert (delivery.status, delivery.tries[0]["error"]) == (DeliveryStatus.PENDING, Failure.ADDRESS_REFUSED)
        assert receiver.connections == 0

    async def test_an_answer_is_kept_in_part_and_shows_all_that_is_invisible(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(500, {}, b"\r\n[error] made up\x1b[2J\xff\xe2\x80\xae" + b"x" * 5000))
        await queue(resources, make_event(user))
        response = (await _tried(resources, issued.endpoint)).tries[0]["response"]
        assert response.startswith("\\r\\n[error] made up\\u001b[2J\ufffd\\u202exxx")
        assert response.isprintable()
        assert len(response) <= 1024

    async def test_an_answer_of_what_is_invisible_is_no_longer_for_being_written_out(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(500, {}, b"\0" * 5000))
        await queue(resources, make_event(user))
        response = (await _tried(resources, issued.endpoint)).tries[0]["response"]
        assert response == "\\u0000" * (1024 // 6)


class TestNotices:
    """An endpoint outlives the token or key that made it, so that its owner has to know of it."""

    async def test_tell_its_owner_of_a_new_one_of_another_url_and_of_another_secret(
        self, resources: Resources, registrar: Registrar, user: User
    ) -> None:
        endpoint = (await make_endpoint(resources, user, "http://127.0.0.1:9/events")).endpoint
        await change(registrar, user.id, endpoint.id, {"description": "Books"}, None)
        await change(registrar, user.id, endpoint.id, {"url": "http://localhost:9/events?secret"}, None)
        await rotate_secret(registrar, user.id, endpoint.id, timedelta(0), None)
        mails = {mail["subject"]: mail["text"] for mail in await _mails_to(user, resources, about="")}
        assert set(mails) == {
            "A webhook endpoint was added",
            "Your webhook endpoint has another URL",
            "Your webhook endpoint has another secret",
        }
        assert all(endpoint.id in text and "/events" not in text for text in mails.values())
        assert "at 127.0.0.1," in mails["A webhook endpoint was added"]
        assert "at localhost," in mails["Your webhook endpoint has another URL"]


class TestGivingUp:
    async def test_comes_after_three_days_of_ever_rarer_tries_and_disables_the_endpoint(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        receiver.answers(Reply(500))
        await queue(resources, make_event(user))
        delays_s = resources.settings.webhook_retry_delays_s
        assert timedelta(days=2.5) < timedelta(seconds=sum(delays_s)) < timedelta(days=3.5)
        for delay_s in delays_s:
            delivery = await _tried(resources, issued.endpoint)
            assert delivery.due_at is not None
            waited_s = (delivery.due_at - delivery.tries[-1]["at"]).total_seconds()
            assert 0.8 * delay_s <= waited_s <= 1.2 * delay_s + 5
            await make_due(databases, [delivery])
        assert (await _current(issued.endpoint)).status is EndpointStatus.ACTIVE
        delivery = await _tried(resources, issued.endpoint)
        assert (delivery.status, len(delivery.tries)) == (DeliveryStatus.FAILED, len(delays_s) + 1)
        endpoint = await _current(issued.endpoint)
        assert (endpoint.status, endpoint.disabled_reason) == (EndpointStatus.DISABLED, DisabledReason.FAILING)
        (mail,) = await _mails_to(user, resources)
        assert "taken nothing" in mail["text"]

    async def test_leaves_an_endpoint_that_took_something_meanwhile(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        await queue(resources, make_event(user))
        (delivery,) = await deliveries_of(issued.endpoint)
        await change_endpoint(databases, issued.endpoint.id, last_delivered_at=utc_now() + timedelta(seconds=1))
        await change_delivery(databases, delivery.id, attempts=len(resources.settings.webhook_retry_delays_s))
        receiver.answers(Reply(500))
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.FAILED
        assert (await _current(issued.endpoint)).status is EndpointStatus.ACTIVE

    async def test_leaves_an_endpoint_that_its_owner_has_changed_meanwhile(
        self, resources: Resources, registrar: Registrar, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        await queue(resources, make_event(user))
        (delivery,) = await deliveries_of(issued.endpoint)
        await change_delivery(
            databases,
            delivery.id,
            attempts=len(resources.settings.webhook_retry_delays_s),
            queued_at=utc_now() - timedelta(days=3),
        )
        await change(registrar, user.id, issued.endpoint.id, {"url": receiver.url("/other")}, None)
        receiver.answers(Reply(500))
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.FAILED
        assert (await _current(issued.endpoint)).status is EndpointStatus.ACTIVE

    @pytest.mark.parametrize("way", ["another URL", "enabled anew"])
    async def test_a_410_from_where_it_was_leaves_it_where_it_is_now(
        self, resources: Resources, registrar: Registrar, user: User, receiver: Receiver, way: str
    ) -> None:
        """The answer comes when its owner has changed the endpoint already."""
        issued = await make_endpoint(resources, user, receiver.url())
        ways: dict[str, list[dict[str, Any]]] = {
            "another URL": [{"url": receiver.url("/other")}],
            "enabled anew": [{"status": EndpointStatus.DISABLED}, {"status": EndpointStatus.ACTIVE}],
        }

        async def change_and_refuse(_received: Received) -> Reply:
            for changes in ways[way]:
                await change(registrar, user.id, issued.endpoint.id, changes, None)
            return Reply(410)

        receiver.answer = change_and_refuse
        await queue(resources, make_event(user))
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.FAILED
        assert (await _current(issued.endpoint)).status is EndpointStatus.ACTIVE

    async def test_a_test_event_is_tried_once_and_disables_nothing(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url(), EventType.WALLET_CLOSED)
        receiver.answers(Reply(500))
        await send_test(user.id, issued.endpoint.id, sender_of(resources), None)
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.FAILED
        assert (await _current(issued.endpoint)).status is EndpointStatus.ACTIVE
        payload = json.loads(receiver.requests[0].body)
        assert (payload["type"], payload["data"]["subject_id"]) == ("webhook.test", issued.endpoint.id)


class TestCancelling:
    async def test_what_waits_is_canceled_with_its_endpoint_and_what_is_due_with_its_owner(
        self, resources: Resources, registrar: Registrar, receiver: Receiver, databases: Databases
    ) -> None:
        users = [await make_user(databases) for _ in range(3)]
        endpoints = [(await make_endpoint(resources, user, receiver.url())).endpoint for user in users]
        await queue(resources, *(make_event(user) for user in users))
        await change(registrar, users[0].id, endpoints[0].id, {"status": EndpointStatus.DISABLED}, None)
        await delete(registrar, users[1].id, endpoints[1].id, None)
        await databases.wallet["users"].update_one({"_id": users[2].id}, {"$set": {"is_active": False}})
        await deliver_due(make_courier(resources))
        assert receiver.requests == []
        for endpoint in endpoints:
            assert [one.status for one in await deliveries_of(endpoint)] == [DeliveryStatus.CANCELED]

    @pytest.mark.parametrize("tries", [0, 10])
    async def test_a_late_failure_changes_nothing_of_what_was_sent_again(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases, tries: int
    ) -> None:
        """The first worker was slow: what it says comes when another has the row."""
        issued = await make_endpoint(resources, user, receiver.url())
        slow = make_courier(resources)
        await queue(resources, make_event(user))
        (queued,) = await deliveries_of(issued.endpoint)
        await change_delivery(databases, queued.id, attempts=tries)
        (held,) = [one for one in await slow.claim(100) if one.endpoint_id == issued.endpoint.id]
        await redeliver(user.id, issued.endpoint.id, held.id, sender_of(resources))
        receiver.answers(Reply(500), Reply(200))
        await slow.deliver(held)
        (delivery,) = await deliveries_of(issued.endpoint)
        assert (delivery.status, delivery.tries) == (DeliveryStatus.PENDING, [])
        assert (await _current(issued.endpoint)).status is EndpointStatus.ACTIVE
        assert (await _tried(resources, issued.endpoint)).status is DeliveryStatus.DELIVERED


class TestDeadLetters:
    """A delivery that was put aside, and that came back by another way than its letter's replay."""

    @pytest.mark.parametrize("way", ["its owner", "a slow worker"])
    async def test_a_letter_brings_back_nothing_that_has_arrived_meanwhile(
        self, resources: Resources, user: User, receiver: Receiver, way: str
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        await queue(resources, make_event(user))
        courier = make_courier(resources)
        (held,) = [one for one in await courier.claim(100) if one.endpoint_id == issued.endpoint.id]
        letter = await _bury(held, resources)
        if way == "its owner":
            await redeliver(user.id, issued.endpoint.id, held.id, sender_of(resources))
            await deliver_due(courier)
        else:
            await courier.deliver(held)
        await _replay(letter, user, resources)
        await deliver_due(courier)
        (delivery,) = await deliveries_of(issued.endpoint)
        assert (delivery.status, delivery.due_at) == (DeliveryStatus.DELIVERED, None)
        assert len(receiver.requests) == 1

    async def test_what_arrives_is_over_whatever_it_was_thought_to_be(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        await queue(resources, make_event(user))
        delivered = await _tried(resources, issued.endpoint)
        await make_due(databases, [delivered])
        assert (await _tried(resources, issued.endpoint)).due_at is None


async def _bury(held: WebhookDelivery, resources: Resources) -> DeadLetter:
    claimed = Claimed(held.id, held.attempts, held.claim)
    reason = Reason("Unreadable", "in a test")
    letter = await dead_letters.bury(Queue.DELIVERIES, claimed, reason, 1, resources.databases.client)
    assert letter is not None
    return letter


async def _replay(letter: DeadLetter, admin: User, resources: Resources) -> None:
    caller = Caller(admin.id, ("admin",), 0)
    await dead_letters.replay(resources.databases.client, caller, letter.id, None, resources.jobs)


class TestShares:
    async def test_a_silent_endpoint_keeps_its_share_of_hands_and_no_more(
        self, resources: Resources, receiver: Receiver, databases: Databases
    ) -> None:
        """Forty wait for one that says nothing; those behind them, of somebody else, go past."""
        gate = asyncio.Event()
        async with running_receiver() as silent:

            async def wait(_received: Received) -> Reply:
                await gate.wait()
                return Reply()

            silent.answer = wait
            first, second = [await make_user(databases) for _ in range(2)]
            stuck = await make_endpoint(resources, first, silent.url())
            quick = await make_endpoint(resources, second, receiver.url())
            await queue(resources, *(make_event(first) for _ in range(40)))
            await queue(resources, *(make_event(second) for _ in range(40)))
            courier = make_courier(resources, webhook_endpoint_concurrency=3)
            drain = Drain(Queue.DELIVERIES, resources.jobs, courier.claim, courier.deliver, 8, Aftercare())
            while len(receiver.requests) < 40:
                await asyncio.wait_for(drain.run(), 10)
                await asyncio.sleep(0.005)
            assert {one.status for one in await deliveries_of(quick.endpoint)} <= {
                DeliveryStatus.DELIVERED,
                DeliveryStatus.PENDING,
            }
            assert silent.most_at_once == 3
            gate.set()
            while len(silent.requests) < 40:
                await asyncio.wait_for(drain.run(), 10)
                await asyncio.sleep(0.005)
            await drain.close(GRACE_S)
            assert silent.most_at_once == 3
            assert {one.status for one in await deliveries_of(stuck.endpoint)} == {DeliveryStatus.DELIVERED}

    async def test_all_endpoints_of_one_user_have_one_share_together(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        endpoints = [(await make_endpoint(resources, user, receiver.url())).endpoint for _ in range(4)]
        await queue(resources, *(make_event(user) for _ in range(5)))
        courier = make_courier(resources, webhook_user_concurrency=6)
        rows = await courier.claim(1000)
        ours = [row for row in rows if row.user_id == user.id]
        assert len(ours) == 6
        assert not [row for row in await courier.claim(1000) if row.user_id == user.id]
        for row in rows:
            await courier.deliver(row)
        await deliver_due(courier)
        assert len(receiver.requests) == 5 * len(endpoints)

    async def test_nobody_waits_behind_the_backlogs_of_a_few(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        """Enough of them to fill all hands by their shares."""
        for _ in range(8):
            busy = await make_user(databases)
            for _ in range(2):
                await make_endpoint(resources, busy, receiver.url())
            await queue(resources, *(make_event(busy) for _ in range(20)))
        await make_endpoint(resources, user, receiver.url())
        await queue(resources, make_event(user))
        courier = make_courier(resources)
        rows = await courier.claim(resources.settings.webhook_concurrency)
        assert [row.user_id for row in rows].count(user.id) == 1
        for row in rows:
            await courier.deliver(row)
        await deliver_due(courier)

    async def test_some_hands_are_left_for_those_who_come_while_all_others_are_busy(
        self, resources: Resources, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        await deliver_due(make_courier(resources))
        for _ in range(8):
            busy = await make_user(databases)
            for _ in range(2):
                await make_endpoint(resources, busy, receiver.url())
            await queue(resources, *(make_event(busy) for _ in range(20)))
        courier, hands = make_courier(resources), resources.settings.webhook_concurrency
        rows: list[WebhookDelivery] = []
        while more := await courier.claim(hands - len(rows)):
            rows += more
        assert len(rows) == hands * 3 // 4
        await make_endpoint(resources, user, receiver.url())
        await queue(resources, *(make_event(user) for _ in range(3)))
        rows += (late := await courier.claim(hands - len(rows)))
        assert [row.user_id for row in late] == [user.id]
        for row in rows:
            await courier.deliver(row)
        await deliver_due(courier)

    async def test_no_two_workers_take_the_same(self, resources: Resources, user: User, receiver: Receiver) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        await queue(resources, *(make_event(user) for _ in range(30)))
        lavish: dict[str, Any] = {"webhook_endpoint_concurrency": 100, "webhook_user_concurrency": 100}
        couriers = [make_courier(resources, **lavish) for _ in range(4)]
        while any(claimed := await asyncio.gather(*(courier.claim(10) for courier in couriers))):
            await asyncio.gather(
                *(courier.deliver(row) for courier, rows in zip(couriers, claimed, strict=True) for row in rows)
            )
        assert len(receiver.requests) == 30
        assert {one.attempts for one in await deliveries_of(issued.endpoint)} == {1}


class TestKeys:
    async def test_a_secret_opens_under_the_key_before_while_keys_are_changed(
        self, resources: Resources, user: User, receiver: Receiver
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        (delivery,) = [await send_test(user.id, issued.endpoint.id, sender_of(resources), None)]
        changing = resources.settings.model_copy(
            update={
                "encryption_key": SecretStr("eHh4" * 10 + "eHg="),
                "encryption_key_previous": resources.settings.encryption_key,
            }
        )
        headers = webhook_courier.signed_headers(delivery, issued.endpoint, changing, utc_now())
        Webhook(issued.secret).verify(delivery.body, headers)

    async def test_no_secret_lies_in_clear(
        self, resources: Resources, registrar: Registrar, user: User, receiver: Receiver, databases: Databases
    ) -> None:
        issued = await make_endpoint(resources, user, receiver.url())
        new = await rotate_secret(registrar, user.id, issued.endpoint.id, timedelta(days=1), None)
        kept = repr(await databases.wallet["webhook_endpoints"].find_one({"_id": issued.endpoint.id}))
        for secret in (issued.secret, new.secret):
            assert secret not in kept
            assert secret.removeprefix("whsec_") not in kept
        await delete(registrar, user.id, issued.endpoint.id, None)
        row = await databases.wallet["webhook_endpoints"].find_one({"_id": issued.endpoint.id}) or {}
        assert (row["secret_sealed"], row["previous_secret_sealed"]) == (None, None)


async def _mails_to(user: User, resources: Resources, about: str = "was disabled") -> list[dict[str, Any]]:
    """After the worker has been at the outbox."""
    desk = Desk(resources.ledger, resources.bank, resources.mailbox, resources.settings, resources.databases.client)
    for row in await claim_rows(1000, resources.settings, (OutboxTopic.WEBHOOK_NOTICE,)):
        await pursue_row(row, desk)
    lines = Path(resources.settings.mailbox_path).read_text(encoding="utf-8").splitlines()  # noqa: ASYNC240 a short file
    return [mail for mail in map(json.loads, lines) if mail["to"] == user.email and about in mail["subject"]]
