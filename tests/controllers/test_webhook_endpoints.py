"""Webhook endpoints over HTTP: one's own only, few of them, at addresses that may be asked; secrets shown once."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from standardwebhooks.webhooks import Webhook

from service.controllers.schemas import PageView
from service.controllers.webhook_endpoints import (
    IssuedEndpointView,
    WebhookDeliveryView,
    WebhookEndpointView,
    WebhookEventView,
)
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.webhook_deliveries import payload_of
from service.domain.webhook_endpoints import DisabledReason
from service.gateways.webhook_addresses import WebhookAddresses
from service.repositories import webhook_endpoints as endpoint_repository
from service.services.webhook_endpoints import disable_by_itself
from service.settings import Settings
from service.startup import Resources
from tests.factories import make_user
from tests.receivers import running_receiver
from tests.refusals import refusal
from tests.staff import Staff
from tests.webhooks import change_delivery, deliver_due, make_courier, make_event, queue

_PATH = "/webhook-endpoints"
# Nobody listens there.
_URL = "http://127.0.0.1:9/events"


@pytest.fixture
async def owner(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings)


@pytest.fixture
async def stranger(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings)


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


async def _make(owner: Staff, **body: Any) -> dict[str, Any]:
    answer = await owner.post(_PATH, **{"url": _URL, **body})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def _patch(owner: Staff, endpoint_id: str, **body: Any) -> httpx.Response:
    return await owner.api.patch(f"/api/v1{_PATH}/{endpoint_id}", json=body, headers=owner.headers)


class TestMakingOne:
    async def test_shows_its_secret_once(self, owner: Staff) -> None:
        made = await _make(owner, event_types=["withdrawal.succeeded"], description="Books")
        IssuedEndpointView.model_validate(made, extra="forbid")
        assert len(Webhook(made["secret"])._whsecret) == 32
        shown = (await owner.get(f"{_PATH}/{made['id']}")).json()
        assert shown == {name: value for name, value in made.items() if name != "secret"}
        WebhookEndpointView.model_validate(shown, extra="forbid")
        assert (shown["status"], shown["event_types"], shown["url"]) == ("active", ["withdrawal.succeeded"], _URL)
        listed = await owner.get(_PATH)
        PageView[WebhookEndpointView].model_validate(listed.json())
        assert listed.json()["data"] == [shown]
        assert made["secret"] not in listed.text

    async def test_takes_all_types_unless_some_are_named(self, owner: Staff) -> None:
        assert (await _make(owner))["event_types"] is None

    @pytest.mark.parametrize(
        "wrong",
        [
            {"event_types": []},
            {"event_types": ["payment.settled"]},
            {"event_types": ["wallet.closed", "wallet.closed"]},
            {"description": "x" * 257},
            {"description": "a\nb"},
            {"url": ""},
            {"url": 1},
            {"secret": "whsec_AAAA"},
            {"user_id": "usr_1"},
        ],
        ids=str,
    )
    async def test_takes_nothing_that_makes_no_sense(self, owner: Staff, wrong: dict[str, Any]) -> None:
        assert refusal(await owner.post(_PATH, **{"url": _URL, **wrong})) == (422, "invalid_fields")

    async def test_is_refused_where_nothing_would_be_sent(
        self, owner: Staff, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The corpus is in tests/security/ssrf.py; here it is what a client is told."""
        strict = WebhookAddresses(resources.settings.model_copy(update={"webhook_allow_loopback": False}))
        monkeypatch.setattr(resources.webhook_addresses, "check", strict.check)
        for url, code in (
            (_URL, "scheme_not_allowed"),
            ("https://localhost/", "address_not_allowed"),
            ("https://nobody.invalid/", "address_not_allowed"),
            ("https://169.254.169.254/latest", "address_not_allowed"),
            ("https://user:word@shop.example/", "credentials_not_allowed"),
            ("https://shop.example:22/", "port_not_allowed"),
        ):
            answer = await owner.post(_PATH, url=url)
            assert refusal(answer) == (422, "invalid_fields")
            (field,) = answer.json()["errors"]
            assert (field["pointer"], field["code"]) == ("/url", code)
        assert (await owner.get(_PATH)).json()["data"] == []

    async def test_is_put_off_where_the_host_cannot_be_looked_up_in_time(
        self, owner: Staff, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def resolve(_host: str, _port: int) -> list[str]:
            raise TimeoutError

        monkeypatch.setattr(resources.webhook_addresses, "_resolve", resolve)
        answer = await owner.post(_PATH, url="https://shop.example/")
        assert refusal(answer) == (503, "service_unavailable")
        assert answer.headers["Retry-After"] == "5"

    async def test_is_possible_ten_times_and_no_more_however_many_ask_at_once(
        self, owner: Staff, settings: Settings
    ) -> None:
        answers = await asyncio.gather(
            *(owner.post(_PATH, url=_URL) for _ in range(settings.webhook_endpoints_per_user + 6))
        )
        made = [answer.json() for answer in answers if answer.status_code == 201]
        refused = [answer for answer in answers if answer.status_code != 201]
        # Who lost every race for a place may be told to come back; nobody gets one too many.
        assert len(made) <= settings.webhook_endpoints_per_user
        while len(made) < settings.webhook_endpoints_per_user:
            made.append(await _make(owner))
        assert all(answer.status_code in (409, 503) for answer in refused)
        full = await owner.post(_PATH, url=_URL)
        assert refusal(full) == (409, "too_many_webhook_endpoints")
        assert full.json()["limit"] == settings.webhook_endpoints_per_user
        assert (await owner.delete(f"{_PATH}/{made[3]['id']}")).status_code == 204
        await _make(owner)


class TestSomebodyElses:
    async def test_is_not_there(self, owner: Staff, stranger: Staff) -> None:
        endpoint_id = (await _make(owner))["id"]
        delivery_id = (await owner.post(f"{_PATH}/{endpoint_id}/test")).json()["id"]
        one = f"{_PATH}/{endpoint_id}"
        answers = [
            await stranger.get(one),
            await _patch(stranger, endpoint_id, status="disabled"),
            await stranger.delete(one),
            await stranger.post(f"{one}/rotate-secret"),
            await stranger.post(f"{one}/test"),
            await stranger.get(f"{one}/deliveries"),
            await stranger.get(f"{one}/deliveries/{delivery_id}"),
            await stranger.post(f"{one}/deliveries/{delivery_id}/redeliver"),
        ]
        assert {refusal(answer) for answer in answers} == {(404, "not_found")}
        assert (await stranger.get(_PATH)).json()["data"] == []
        own = (await _make(stranger))["id"]
        # By way of an endpoint of their own, too.
        assert refusal(await stranger.get(f"{_PATH}/{own}/deliveries/{delivery_id}")) == (404, "not_found")
        assert refusal(await stranger.post(f"{_PATH}/{own}/deliveries/{delivery_id}/redeliver")) == (404, "not_found")
        assert (await owner.get(one)).json()["status"] == "active"

    async def test_is_shut_to_those_who_are_deactivated(self, owner: Staff, databases: Databases) -> None:
        await databases.wallet["users"].update_one({"_id": owner.user.id}, {"$set": {"is_active": False}})
        assert refusal(await owner.post(_PATH, url=_URL)) == (403, "account_deactivated")


class TestChangingOne:
    async def test_changes_what_is_sent_and_nothing_else(self, owner: Staff) -> None:
        made = await _make(owner, event_types=["wallet.closed"], description="Books")
        changed = (await _patch(owner, made["id"], url="http://127.0.0.1:9/other")).json()
        assert (changed["url"], changed["event_types"], changed["description"]) == (
            "http://127.0.0.1:9/other",
            ["wallet.closed"],
            "Books",
        )
        changed = (await _patch(owner, made["id"], event_types=None, description=None)).json()
        assert (changed["event_types"], changed["description"]) == (None, None)
        for wrong in ({"url": None}, {"status": None}, {"status": "gone"}, {"url": "https://"}, {"secret": "x"}):
            assert refusal(await _patch(owner, made["id"], **wrong)) == (422, "invalid_fields")

    async def test_disables_it_and_enables_it_again(self, owner: Staff) -> None:
        endpoint_id = (await _make(owner))["id"]
        off = (await _patch(owner, endpoint_id, status="disabled")).json()
        assert (off["status"], off["disabled_reason"]) == ("disabled", "by_owner")
        assert off["disabled_at"] is not None
        refused = await owner.post(f"{_PATH}/{endpoint_id}/test")
        assert refusal(refused) == (409, "webhook_endpoint_disabled")
        assert refused.json()["reason"] == "by_owner"
        on = (await _patch(owner, endpoint_id, status="active")).json()
        assert (on["status"], on["disabled_reason"], on["disabled_at"]) == ("active", None, None)
        assert (await owner.post(f"{_PATH}/{endpoint_id}/test")).status_code == 202

    async def test_is_in_the_audit_events(self, owner: Staff, boss: Staff, resources: Resources) -> None:
        endpoint_id = (await _make(owner, url="http://127.0.0.1:9/a-path-that-is-secret"))["id"]
        await owner.post(f"{_PATH}/{endpoint_id}/rotate-secret")
        await _patch(owner, endpoint_id, description="Books", status="disabled")
        await _patch(owner, endpoint_id, status="active")
        endpoint = await endpoint_repository.find(endpoint_id)
        assert endpoint is not None
        client = resources.databases.client
        assert await disable_by_itself(client, endpoint, DisabledReason.GONE, endpoint.created_at, None)
        assert not await disable_by_itself(client, endpoint, DisabledReason.GONE, endpoint.created_at, None)
        await owner.delete(f"{_PATH}/{endpoint_id}")
        events = (await boss.events(subject_id=endpoint_id))[::-1]
        assert [(event["action"], event["actor_id"]) for event in events] == [
            ("webhook_endpoint.created", owner.user.id),
            ("webhook_endpoint.secret_rotated", owner.user.id),
            ("webhook_endpoint.changed", owner.user.id),
            ("webhook_endpoint.disabled", owner.user.id),
            ("webhook_endpoint.enabled", owner.user.id),
            ("webhook_endpoint.disabled", "service"),
            ("webhook_endpoint.deleted", owner.user.id),
        ]
        assert "a-path" not in str(events)


class TestRotating:
    async def test_gives_another_secret_once_and_says_how_long_both_sign(self, owner: Staff) -> None:
        made = await _make(owner)
        rotated = (await owner.post(f"{_PATH}/{made['id']}/rotate-secret")).json()
        IssuedEndpointView.model_validate(rotated, extra="forbid")
        assert rotated["secret"] != made["secret"]
        assert rotated["previous_secret_until"] > rotated["updated_at"]
        at_once = (await owner.post(f"{_PATH}/{made['id']}/rotate-secret", overlap_s=0)).json()
        assert at_once["previous_secret_until"] is None
        for wrong in (-1, 8 * 86400, 1.5, "1"):
            answer = await owner.post(f"{_PATH}/{made['id']}/rotate-secret", overlap_s=wrong)
            assert refusal(answer) == (422, "invalid_fields")


class TestDeliveries:
    async def test_show_every_try_and_are_sent_again_on_demand(self, owner: Staff, resources: Resources) -> None:
        async with running_receiver() as receiver:
            endpoint_id = (await _make(owner, url=receiver.url()))["id"]
            deliveries = f"{_PATH}/{endpoint_id}/deliveries"
            queued = await owner.post(f"{_PATH}/{endpoint_id}/test")
            assert (queued.status_code, queued.json()["status"]) == (202, "pending")
            await deliver_due(make_courier(resources))
            shown = (await owner.get(f"{deliveries}/{queued.json()['id']}")).json()
            WebhookDeliveryView.model_validate(shown, extra="forbid")
            assert (shown["status"], shown["attempts"], shown["next_try_at"]) == ("delivered", 1, None)
            assert [(one["code"], one["error"]) for one in shown["tries"]] == [(200, None)]
            again = await owner.post(f"{deliveries}/{shown['id']}/redeliver")
            assert (again.status_code, again.json()["status"], again.json()["attempts"]) == (202, "pending", 0)
            await deliver_due(make_courier(resources))
            assert len((await owner.get(f"{deliveries}/{shown['id']}")).json()["tries"]) == 2
        first, second = receiver.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == shown["id"]
        assert first.body == second.body

    async def test_of_tests_one_is_on_its_way_at_a_time(self, owner: Staff, resources: Resources) -> None:
        async with running_receiver() as receiver:
            path = f"{_PATH}/{(await _make(owner, url=receiver.url()))['id']}/test"
            assert (await owner.post(path)).status_code == 202
            assert refusal(await owner.post(path)) == (409, "webhook_test_pending")
            await deliver_due(make_courier(resources))
            assert (await owner.post(path)).status_code == 202

    async def test_are_asked_for_so_often_in_an_hour_by_one_user(
        self, app: FastAPI, owner: Staff, stranger: Staff, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Tests and redeliveries together, at whichever endpoint; what is refused otherwise does not count."""
        settings = resources.settings.model_copy(update={"webhook_sends_per_hour": 3})
        monkeypatch.setitem(app.state._state, "resources", resources._replace(settings=settings))
        async with running_receiver() as receiver:
            one, other = [f"{_PATH}/{(await _make(owner, url=receiver.url()))['id']}" for _ in range(2)]
            delivery_id = (await owner.post(f"{one}/test")).json()["id"]
            assert refusal(await owner.post(f"{one}/test")) == (409, "webhook_test_pending")
            assert refusal(await owner.post(f"{one}/deliveries/whd_none/redeliver")) == (404, "not_found")
            assert (await owner.post(f"{other}/test")).status_code == 202
            await deliver_due(make_courier(resources))
            assert (await owner.post(f"{one}/deliveries/{delivery_id}/redeliver")).status_code == 202
            await deliver_due(make_courier(resources))
            for path in (f"{one}/test", f"{one}/deliveries/{delivery_id}/redeliver"):
                refused = await owner.post(path)
                assert refusal(refused) == (429, "rate_limit_exceeded")
                assert 3_590 < int(refused.headers["Retry-After"]) <= 3_601
            assert (await stranger.post(f"{_PATH}/{(await _make(stranger))['id']}/test")).status_code == 202
        assert len(receiver.requests) == 3

    async def test_in_a_list_show_the_answer_of_the_last_try_only(
        self, owner: Staff, resources: Resources, databases: Databases
    ) -> None:
        """Thirty answers of each of a hundred deliveries would be megabytes."""
        endpoint_id = (await _make(owner))["id"]
        path = f"{_PATH}/{endpoint_id}/deliveries"
        await queue(resources, make_event(owner.user))
        (delivery,) = (await owner.get(path)).json()["data"]
        one = {"at": utc_now(), "duration_ms": 1, "code": 500, "error": "status_not_2xx"}
        tries = [one | {"response": f"answer {number}"} for number in range(3)]
        await change_delivery(databases, delivery["id"], tries=tries)
        (listed,) = (await owner.get(path)).json()["data"]
        assert [shown["response"] for shown in listed["tries"]] == [None, None, "answer 2"]
        WebhookDeliveryView.model_validate(listed, extra="forbid")
        alone = (await owner.get(f"{path}/{delivery['id']}")).json()
        assert [shown["response"] for shown in alone["tries"]] == ["answer 0", "answer 1", "answer 2"]

    async def test_are_listed_newest_first_by_status_and_type(self, owner: Staff, resources: Resources) -> None:
        endpoint_id = (await _make(owner))["id"]
        events = [make_event(owner.user, number) for number in range(1, 4)]
        await queue(resources, *events)
        await owner.post(f"{_PATH}/{endpoint_id}/test")
        path = f"{_PATH}/{endpoint_id}/deliveries"
        page = (await owner.get(path, limit=3)).json()
        PageView[WebhookDeliveryView].model_validate(page)
        rest = (await owner.get(path, limit=3, cursor=page["next_cursor"])).json()
        ids = [row["id"] for row in page["data"] + rest["data"]]
        assert (len(ids), ids) == (4, sorted(ids, reverse=True))
        tests = (await owner.get(path, event_type="webhook.test")).json()["data"]
        assert [row["event_type"] for row in tests] == ["webhook.test"]
        assert (await owner.get(path, status="delivered")).json()["data"] == []
        assert len((await owner.get(path, status="pending")).json()["data"]) == 4
        other = (await _make(owner))["id"]
        assert refusal(await owner.get(f"{_PATH}/{other}/deliveries", cursor=page["next_cursor"])) == (
            400,
            "invalid_cursor",
        )


class TestServices:
    async def test_may_do_it_by_a_key_that_has_the_permission(
        self, api: httpx.AsyncClient, boss: Staff, databases: Databases, settings: Settings
    ) -> None:
        """An endpoint is told all that events say: that takes the permission to read them, beside that to make one."""
        relay = await Staff.hire(api, databases, settings, "service")
        one = f"/api/v1{_PATH}/{(await _make(relay))['id']}"
        for permissions, making, changing, testing in (
            (["webhooks:read", "events:read"], 403, 403, 403),
            (["webhooks:write"], 403, 403, 202),
            (["webhooks:write", "events:read"], 201, 200, 409),
        ):
            order: dict[str, Any] = {"user_id": relay.user.id, "name": "Relay", "permissions": permissions}
            issued = await boss.post("/admin/api-keys", **order)
            await boss.confirmed(issued)
            headers = {"X-API-Key": issued.json()["secret"]}
            made = await api.post(f"/api/v1{_PATH}", json={"url": _URL}, headers=headers)
            changed = await api.patch(one, json={"url": f"{_URL}/2"}, headers=headers)
            tested = await api.post(f"{one}/test", headers=headers)
            assert [answer.status_code for answer in (made, changed, tested)] == [making, changing, testing]
            assert all(refusal(answer) == (403, "forbidden") for answer in (made, changed) if answer.status_code == 403)


async def test_the_document_says_what_is_sent(api: httpx.AsyncClient, databases: Databases) -> None:
    document = (await api.get("/openapi.json")).json()
    webhook = document["webhooks"]["event"]["post"]
    assert webhook["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/WebhookEventView"
    }
    assert {one["name"] for one in webhook["parameters"]} == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    sent = payload_of(make_event(await make_user(databases)))
    WebhookEventView.model_validate(sent, extra="forbid")
    example = webhook["requestBody"]["content"]["application/json"]["example"]
    assert example.keys() == sent.keys()
    assert example["data"].keys() == sent["data"].keys()
