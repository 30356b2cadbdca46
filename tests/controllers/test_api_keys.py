"""API keys over HTTP: made once and shown once, as good as their user and no better, and dead at once when they end."""

import asyncio
import re
import secrets
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from service.controllers.api_keys import _EXAMPLE, _TEXT, ApiKeyView, IssuedKeyView
from service.controllers.schemas import PageView
from service.database import Databases
from service.domain.api_keys import PREFIX_ALPHABET, PREFIX_LENGTH, read_key_text
from service.domain.clock import to_rfc3339, utc_now
from service.domain.permissions import KEY_PERMISSIONS
from service.repositories import api_keys as key_repository
from service.settings import Settings
from service.startup import Resources
from tests.controllers.test_permissions import gated_routes
from tests.factories import make_account, make_funded_wallet, make_user, make_wallet
from tests.refusals import refusal
from tests.staff import Staff

_ALL = sorted(KEY_PERMISSIONS)
# What one admin may give a key alone.
_ORDINARY = ["wallets:read"]
_KEYS = "/admin/api-keys"


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


@pytest.fixture
async def relay(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "service")


async def make_key(boss: Staff, relay: Staff, permissions: list[str] | None = None, **more: Any) -> dict[str, Any]:
    order = {"user_id": relay.user.id, "name": "Till 4", "permissions": permissions or _ALL, **more}
    answer = await boss.post(_KEYS, **order)
    assert answer.status_code in (201, 202), answer.text
    await boss.confirmed(answer)
    key: dict[str, Any] = answer.json()
    return key


async def ask(api: httpx.AsyncClient, secret: str, path: str = "/wallets", **headers: str) -> httpx.Response:
    return await api.get(f"/api/v1{path}", headers={"X-API-Key": secret, **headers})


async def change(databases: Databases, key: dict[str, Any], **fields: Any) -> None:
    await databases.wallet["api_keys"].update_one({"_id": key["id"]}, {"$set": fields})


class TestMakingOne:
    async def test_shows_its_secret_once(self, boss: Staff, relay: Staff, databases: Databases) -> None:
        expires_at = to_rfc3339(utc_now() + timedelta(days=30))
        order: dict[str, Any] = {
            "user_id": relay.user.id,
            "name": "Till 4",
            "permissions": ["holds:read"],
            "expires_at": expires_at,
        }
        answer = await boss.post(_KEYS, **order)
        assert answer.status_code == 201, answer.text
        assert answer.headers["cache-control"] == "no-store"
        key = answer.json()
        assert IssuedKeyView(**key).model_dump(mode="json") == key
        secret = key.pop("secret")
        assert key.pop("proposal_id") is None
        assert re.fullmatch(re.escape(key["prefix"]) + "_[0-9a-f]{64}", secret)
        assert key == key | order | {"status": "active", "created_by": boss.user.id, "last_used_at": None}
        assert key["id"].startswith("key_")
        assert (await boss.get(f"{_KEYS}/{key['id']}")).json() == key
        kept = await databases.wallet["api_keys"].find_one({"_id": key["id"]})
        assert secret.rpartition("_")[2] not in str(kept)
        (event,) = await boss.events(subject_id=key["id"])
        assert (event["action"], event["actor_id"]) == ("api_key.created", boss.user.id)
        assert event["details"] == {"user_id": relay.user.id, "name": "Till 4", "permissions": "holds:read"}

    async def test_is_for_users_who_are_services(self, boss: Staff, databases: Databases) -> None:
        user = await make_user(databases)
        order: dict[str, Any] = {"name": "Till", "permissions": ["holds:read"]}
        assert refusal(await boss.post(_KEYS, user_id=user.id, **order)) == (422, "user_is_no_service")
        assert refusal(await boss.post(_KEYS, user_id="usr_nobody", **order)) == (404, "not_found")
        assert await databases.wallet["api_keys"].count_documents({"user_id": user.id}) == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            {"permissions": []},
            {"permissions": ["users:admin"]},
            {"permissions": ["profile:read"]},
            {"permissions": ["wallets:all"]},
            {"permissions": ["holds:read", "holds:read"]},
            {"permissions": {"$ne": 1}},
            {"name": ""},
            {"name": " "},
            {"name": "a\nb"},
            {"expires_at": "2020-01-01T00:00:00Z"},
            {"expires_at": 1_900_000_000},
            {"secret": "wsk_mine"},
        ],
        ids=str,
    )
    async def test_takes_nothing_that_a_key_cannot_have(self, boss: Staff, relay: Staff, wrong: dict[str, Any]) -> None:
        order = {"user_id": relay.user.id, "name": "Till", "permissions": ["holds:read"]} | wrong
        assert refusal(await boss.post(_KEYS, **order)) == (422, "invalid_fields")

    async def test_begins_anew_where_another_key_begins_alike(
        self, boss: Staff, relay: Staff, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = await make_key(boss, relay)
        fresh = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(PREFIX_LENGTH))
        drawn = iter(first["prefix"].removeprefix("wsk_") + fresh)
        monkeypatch.setattr("secrets.choice", lambda _alphabet: next(drawn))
        assert (await make_key(boss, relay))["prefix"] == f"wsk_{fresh}"

    def test_has_examples_that_are_right(self) -> None:
        assert ApiKeyView(**_EXAMPLE).model_dump(mode="json") == _EXAMPLE
        assert read_key_text(_TEXT) is not None
        assert _TEXT.startswith(_EXAMPLE["prefix"])


class TestAskingWithOne:
    async def test_is_asking_as_its_user(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff, databases: Databases
    ) -> None:
        mine = await make_wallet(databases, relay.user)
        theirs = await make_funded_wallet(databases, 100)
        secret = (await make_key(boss, relay))["secret"]
        assert [wallet["id"] for wallet in (await ask(api, secret)).json()["data"]] == [mine.id]
        body = {"amount": 50, "currency": "INR", "reason": "Charged twice"}
        headers = {"X-API-Key": secret, "Idempotency-Key": uuid4().hex}
        answer = await api.post(f"/api/v1/wallets/{theirs.id}/credits", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        assert (answer.json()["requested_by"], answer.json()["available_after"]) == (relay.user.id, 150)

    async def test_reaches_as_far_as_its_permissions_on_every_route(
        self, app: FastAPI, api: httpx.AsyncClient, boss: Staff, databases: Databases, settings: Settings
    ) -> None:
        # Who may do anything, with keys that may do one thing each, or what some route takes.
        everything = await Staff.hire(api, databases, settings, "service", "admin")
        routes = gated_routes(app)
        wanted = {frozenset[str]([permission]) for permission in _ALL}
        wanted |= {needed for route in routes if (needed := frozenset(route.permissions)) <= {*_ALL}}
        headers = {
            permissions: {"X-API-Key": (await make_key(boss, everything, sorted(permissions)))["secret"]}
            for permissions in wanted
        }
        for route in routes:
            for permissions, key in headers.items():
                answer = await api.request(route.method, route.url, json={}, headers=key)
                if permissions >= {*route.permissions}:
                    assert answer.status_code not in (401, 403), (route.method, route.path, answer.text)
                else:
                    assert refusal(answer) == (403, "forbidden"), (route.method, route.path, permissions)

    async def test_makes_nobody_an_admin_who_is_one_besides(
        self, api: httpx.AsyncClient, boss: Staff, databases: Databases, settings: Settings
    ) -> None:
        both = await Staff.hire(api, databases, settings, "service", "admin")
        secret = (await make_key(boss, both))["secret"]
        wallet = await make_funded_wallet(databases, 100)
        assert (await both.get(f"/wallets/{wallet.id}/limits")).status_code == 200
        assert refusal(await ask(api, secret, f"/wallets/{wallet.id}/limits")) == (404, "not_found")
        body: dict[str, Any] = {"amount": 10, "currency": "INR", "reason": "Charged twice"}
        adjusted = (await boss.post(f"/wallets/{wallet.id}/credits", **body)).json()
        assert (await both.get(f"/adjustments/{adjusted['id']}")).status_code == 200
        assert refusal(await ask(api, secret, f"/adjustments/{adjusted['id']}")) == (404, "not_found")

    async def test_together_with_a_token_is_asking_as_two(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff
    ) -> None:
        secret = (await make_key(boss, relay))["secret"]
        assert refusal(await ask(api, secret, **relay.headers)) == (401, "unauthenticated")

    async def test_is_noted_once_a_minute(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff, databases: Databases, resources: Resources
    ) -> None:
        async def last_use() -> Any:
            await resources.key_uses.close()
            return (await databases.wallet["api_keys"].find_one({"_id": key["id"]}) or {})["last_used_at"]

        key = await make_key(boss, relay)
        assert await last_use() is None
        await asyncio.gather(*(ask(api, key["secret"]) for _ in range(5)))
        first = await last_use()
        assert first is not None
        assert (await boss.get(f"{_KEYS}/{key['id']}")).json()["last_used_at"] == to_rfc3339(first)
        lately = utc_now() - timedelta(seconds=30)
        await change(databases, key, last_used_at=lately)
        await ask(api, key["secret"])
        assert await last_use() == lately
        await change(databases, key, last_used_at=utc_now() - timedelta(seconds=61))
        await ask(api, key["secret"])
        assert await last_use() > lately

    async def test_is_noted_once_a_minute_by_all_processes_together(
        self, boss: Staff, relay: Staff, databases: Databases
    ) -> None:
        key, now = await make_key(boss, relay), utc_now()
        for seconds in (0, 30, 59):
            await key_repository.note_use(key["id"], now + timedelta(seconds=seconds))
        assert (await databases.wallet["api_keys"].find_one({"_id": key["id"]}) or {})["last_used_at"] == now
        await key_repository.note_use(key["id"], now + timedelta(seconds=60))
        assert (await databases.wallet["api_keys"].find_one({"_id": key["id"]}) or {})["last_used_at"] > now


class TestAKeyThatIsNoneOrNoMore:
    async def test_is_refused_alike_whatever_is_wrong_with_its_text(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff
    ) -> None:
        secret: str = (await make_key(boss, relay))["secret"]
        other: str = (await make_key(boss, relay))["secret"]
        last = "0" if secret[-1] != "0" else "1"
        wrong = (
            secret[:-1] + last,
            secret[:-1],
            secret + "0",
            secret[:13] + other[13:],
            "wsk_aaaaaaaa_" + secret[13:],
            secret.upper(),
            secret.partition("_")[2],
            "",
            "x" * 5000,
        )
        answers = [await ask(api, text) for text in wrong]
        assert {(*refusal(answer), answer.json()["detail"]) for answer in answers} == {
            (401, "unauthenticated", "The API key is not valid")
        }
        assert (await ask(api, secret)).status_code == 200

    async def test_ends_at_once_when_it_is_revoked(self, api: httpx.AsyncClient, boss: Staff, relay: Staff) -> None:
        key = await make_key(boss, relay)
        assert (await ask(api, key["secret"])).status_code == 200
        revoked = await boss.delete(f"{_KEYS}/{key['id']}", reason="Lost")
        assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")
        assert refusal(await ask(api, key["secret"])) == (401, "unauthenticated")
        again = await boss.delete(f"{_KEYS}/{key['id']}")
        assert (again.status_code, again.json()) == (200, revoked.json())
        event, _ = await boss.events(subject_id=key["id"])
        assert (event["action"], event["reason"]) == ("api_key.revoked", "Lost")
        assert refusal(await boss.post(f"{_KEYS}/{key['id']}/rotate")) == (409, "api_key_ended")

    async def test_ends_when_it_expires(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff, databases: Databases
    ) -> None:
        key = await make_key(boss, relay)
        await change(databases, key, expires_at=utc_now() - timedelta(milliseconds=1))
        assert refusal(await ask(api, key["secret"])) == (401, "unauthenticated")
        assert (await boss.get(f"{_KEYS}/{key['id']}")).json()["status"] == "expired"
        assert refusal(await boss.post(f"{_KEYS}/{key['id']}/rotate")) == (409, "api_key_ended")

    @pytest.mark.parametrize(
        "changes",
        [{"is_active": False}, {"roles": ["user"]}, {"roles": ["user", "admin"]}],
        ids=["deactivated", "no service", "an admin but no service"],
    )
    async def test_ends_with_what_its_user_was(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff, databases: Databases, changes: dict[str, Any]
    ) -> None:
        key = await make_key(boss, relay)
        await databases.wallet["users"].update_one({"_id": relay.user.id}, {"$set": changes})
        assert refusal(await ask(api, key["secret"])) == (401, "unauthenticated")

    async def test_outlives_the_tokens_of_its_user(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff, databases: Databases
    ) -> None:
        """A password that was changed ends tokens; keys have their own way to end."""
        wallet = (await make_account(databases)).wallet
        secret = (await make_key(boss, relay))["secret"]
        await databases.wallet["users"].update_one({"_id": relay.user.id}, {"$inc": {"token_version": 1}})
        headers = {"X-API-Key": secret, "Idempotency-Key": uuid4().hex}
        body = {"amount": 50, "currency": "INR", "reason": "Charged twice"}
        answer = await api.post(f"/api/v1/wallets/{wallet.id}/credits", json=body, headers=headers)
        assert answer.status_code == 201, answer.text


class TestRotating:
    async def test_ends_the_secret_before_at_once(self, api: httpx.AsyncClient, boss: Staff, relay: Staff) -> None:
        key = await make_key(boss, relay, _ORDINARY)
        answer = await boss.post(f"{_KEYS}/{key['id']}/rotate")
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        rotated = answer.json()
        assert IssuedKeyView(**rotated).model_dump(mode="json") == rotated
        assert (rotated["prefix"], rotated["previous_secret_until"]) == (key["prefix"], None)
        assert refusal(await ask(api, key["secret"])) == (401, "unauthenticated")
        assert (await ask(api, rotated["secret"])).status_code == 200
        event, _ = await boss.events(subject_id=key["id"])
        assert (event["action"], event["details"]["overlap_s"]) == ("api_key.rotated", 0)

    async def test_leaves_the_secret_before_for_the_overlap(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff, databases: Databases
    ) -> None:
        key = await make_key(boss, relay, _ORDINARY)
        rotated = (await boss.post(f"{_KEYS}/{key['id']}/rotate", overlap_s=3600)).json()
        assert rotated["previous_secret_until"] is not None
        for secret in (key["secret"], rotated["secret"]):
            assert (await ask(api, secret)).status_code == 200
        await change(databases, key, previous_until=utc_now())
        assert refusal(await ask(api, key["secret"])) == (401, "unauthenticated")
        assert (await ask(api, rotated["secret"])).status_code == 200

    async def test_takes_a_day_of_overlap_at_most(self, boss: Staff, relay: Staff) -> None:
        key = await make_key(boss, relay, _ORDINARY)
        for overlap_s in (-1, 86_401, 1.5, "60", True):
            answer = await boss.post(f"{_KEYS}/{key['id']}/rotate", overlap_s=overlap_s)
            assert refusal(answer) == (422, "invalid_fields")

    async def test_by_several_at_once_leaves_one_secret(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff
    ) -> None:
        key = await make_key(boss, relay, _ORDINARY)
        answers = await asyncio.gather(*(boss.post(f"{_KEYS}/{key['id']}/rotate") for _ in range(4)))
        given = [answer.json()["secret"] for answer in answers]
        good = [secret for secret in (key["secret"], *given) if (await ask(api, secret)).status_code == 200]
        assert len(good) == 1
        assert len(await boss.events(subject_id=key["id"])) == 5

    async def test_at_the_same_time_as_revoking_leaves_none(
        self, api: httpx.AsyncClient, boss: Staff, relay: Staff
    ) -> None:
        key = await make_key(boss, relay, _ORDINARY)
        rotated, revoked, again = await asyncio.gather(
            boss.post(f"{_KEYS}/{key['id']}/rotate", overlap_s=60),
            boss.delete(f"{_KEYS}/{key['id']}"),
            boss.delete(f"{_KEYS}/{key['id']}"),
        )
        assert revoked.status_code == again.status_code == 200
        assert rotated.status_code in (200, 409)
        for secret in (key["secret"], rotated.json().get("secret", key["secret"])):
            assert refusal(await ask(api, secret)) == (401, "unauthenticated")
        actions = [event["action"] for event in await boss.events(subject_id=key["id"])]
        assert actions.count("api_key.revoked") == 1


class TestLooking:
    async def test_lists_them_newest_first_page_by_page(self, boss: Staff, relay: Staff) -> None:
        made = [await make_key(boss, relay, ["holds:read"]) for _ in range(3)]
        expected = [key["id"] for key in reversed(made)]
        first = (await boss.get(_KEYS, user_id=relay.user.id, limit=2)).json()
        assert PageView[ApiKeyView](**first).model_dump(mode="json") == first
        second = (await boss.get(_KEYS, user_id=relay.user.id, limit=2, cursor=first["next_cursor"])).json()
        assert [key["id"] for key in first["data"] + second["data"]] == expected
        assert not second["has_more"]
        assert "secret" not in {field for key in first["data"] for field in key}
        assert [key["id"] for key in (await boss.get(_KEYS, limit=3)).json()["data"]] == expected

    async def test_finds_nothing_that_is_not_there(self, boss: Staff) -> None:
        assert refusal(await boss.get(f"{_KEYS}/key_nothing")) == (404, "not_found")
        assert refusal(await boss.post(f"{_KEYS}/key_nothing/rotate")) == (404, "not_found")
        assert refusal(await boss.delete(f"{_KEYS}/key_nothing")) == (404, "not_found")


class TestTheDocument:
    def test_says_where_keys_are_taken(self, app: FastAPI) -> None:
        document = app.openapi()
        assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
        for route in gated_routes(app):
            operation = document["paths"][route.path][route.method.lower()]
            takes_keys = {"ApiKey": route.permissions} in operation["security"]
            assert takes_keys == ({*route.permissions} <= KEY_PERMISSIONS), (route.method, route.path)
            for status, code in (("401", "unauthenticated"), ("403", "forbidden")):
                examples = operation["responses"][status]["content"]["application/problem+json"]["examples"]
                assert code in examples, (route.method, route.path)
