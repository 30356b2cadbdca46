"""Rate limits over HTTP: who is counted where, and what a client is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from service.controllers.rate_limits import (
    BALANCE_PATHS,
    EXEMPT_PATHS,
    LOGIN_PATHS,
    TRANSACTIONS_PATHS,
    remember_api_key,
)
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.permissions import Permission
from service.gateways.quick_redis import QuickRedis
from service.gateways.rate_limits import RateLimits
from service.main import create_app
from service.services.api_keys import KeyOrder, create_key
from service.services.callers import Caller
from service.startup import Resources
from tests.factories import PASSWORD, bearer, make_account, make_email, make_user
from tests.logs import own_logs
from tests.servers import NO_RATE_LIMITS

OFF = NO_RATE_LIMITS
LIMITS = {
    "rate_limit_global": 100,
    "rate_limit_user": 12,
    "rate_limit_address": 8,
    "rate_limit_login": 5,
    "rate_limit_balance": 4,
    "rate_limit_transactions": 6,
}
ME = "/api/v1/me"
LOGIN = "/api/v1/auth/login"


class Face:
    """The application with limits of its own; they count in a space of their own, so that tests do not meet."""

    def __init__(self, resources: Resources, **limits: int) -> None:
        self.settings = resources.settings.model_copy(update={**OFF, **limits, "database": uuid4().hex})
        self.redis = QuickRedis(self.settings)
        self.limits = RateLimits(self.redis)
        self.app = create_app(self.settings)
        self.app.state.resources = resources._replace(rate_limits=self.limits)

    def client(self, address: str = "203.0.113.1", headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=(address, 4711), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://wallet.example", headers=headers)


@pytest.fixture
async def make_face(resources: Resources) -> AsyncIterator[Any]:
    made = []

    def make(**limits: int) -> Face:
        made.append(Face(resources, **limits))
        return made[-1]

    yield make
    for face in made:
        await face.redis.close()


@pytest.fixture
def face(make_face: Any) -> Face:
    made: Face = make_face(**LIMITS)
    return made


async def statuses(client: httpx.AsyncClient, path: str, times: int) -> list[int]:
    return [(await client.get(path)).status_code for _ in range(times)]


class TestTheAnswer:
    async def test_tells_of_the_nearest_limit_and_refuses_with_a_problem(
        self, face: Face, databases: Databases
    ) -> None:
        user = await make_user(databases)
        path = f"/api/v1/users/{user.id}/balance"
        async with face.client(headers=bearer(user, face.settings)) as client:
            before_s = time.time()
            for left in (3, 2, 1, 0):
                answer = await client.get(path)
                assert answer.status_code == 200
                assert answer.headers["x-ratelimit-limit"] == "4"
                assert answer.headers["x-ratelimit-remaining"] == str(left)
                assert before_s + 59 < int(answer.headers["x-ratelimit-reset"]) < time.time() + 62
            refused = await client.get(path, headers={"X-Request-ID": "a-request-of-mine"})
        body = refused.json()
        wait_s = body["retry_after"]
        assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
        assert refused.headers["retry-after"] == str(wait_s)
        assert 50 < wait_s <= 61
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert body == {
            "type": "urn:wallet:problem:rate_limit_exceeded",
            "title": "Too many requests; wait before the next one",
            "status": 429,
            "detail": body["message"],
            "error": "rate_limit_exceeded",
            "message": "Too many requests; wait before the next one",
            "request_id": "a-request-of-mine",
            "retry_after": wait_s,
        }

    async def test_errors_carry_the_headers_too(self, face: Face) -> None:
        async with face.client() as client:
            answers = [await client.get(ME), await client.get("/api/v1/nowhere"), await client.put(ME)]
        assert [answer.status_code for answer in answers] == [401, 404, 405]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["7", "6", "5"]

    async def test_a_crash_carries_the_headers_too(self, face: Face) -> None:
        router = APIRouter()

        @router.get("/crash")
        async def crash() -> None:
            raise RuntimeError

        face.app.include_router(router)
        async with face.client() as client:
            answer = await client.get("/crash")
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (500, "7")

    async def test_a_refusal_is_logged_like_any_other_answer(self, face: Face) -> None:
        async with face.client() as client:
            await statuses(client, ME, 8)
            with own_logs() as logs:
                assert await statuses(client, ME, 1) == [429]
        assert [(line["event"], line["status"]) for line in logs] == [("request.finished", 429)]

    async def test_no_limit_no_header_and_no_middleware(self, make_face: Any) -> None:
        face = make_face()
        async with face.client() as client:
            assert not [name for name in (await client.get(ME)).headers if name.startswith("x-ratelimit")]
        assert "RateLimiting" not in str(face.app.user_middleware)


class TestWhoIsCounted:
    async def test_users_are_counted_apart_wherever_they_are(self, face: Face, databases: Databases) -> None:
        asha, ravi = await make_user(databases), await make_user(databases)
        async with (
            face.client("203.0.113.1", bearer(asha, face.settings)) as at_home,
            face.client("203.0.113.2", bearer(asha, face.settings)) as on_the_way,
            face.client("203.0.113.1", bearer(ravi, face.settings)) as of_ravi,
        ):
            assert await statuses(at_home, ME, 6) == [200] * 6
            assert await statuses(on_the_way, ME, 7) == [200] * 6 + [429]
            assert await statuses(of_ravi, ME, 12) == [200] * 12

    async def test_a_browser_is_counted_as_the_user_of_its_cookie(self, face: Face, databases: Databases) -> None:
        asha = await make_user(databases)
        token = bearer(asha, face.settings)["Authorization"].removeprefix("Bearer ")
        cookie = {"Cookie": f"theme=dark; __Host-wallet_access={token}"}
        async with face.client("203.0.113.1", cookie) as browser, face.client("203.0.113.1") as nobody:
            assert await statuses(browser, ME, 13) == [200] * 12 + [429]
            assert await statuses(nobody, ME, 1) == [401]

    async def test_who_shows_nothing_that_holds_is_counted_by_address(self, face: Face) -> None:
        forged = [{"Authorization": f"Bearer {number}"} for number in range(4)]
        keys = [{"X-API-Key": f"wsk_0123456{number}_secret"} for number in range(4)]
        async with face.client() as client, face.client("203.0.113.2") as other:
            assert [(await client.get(ME, headers=one)).status_code for one in forged + keys] == [401] * 8
            assert await statuses(client, ME, 1) == [429]
            assert await statuses(other, ME, 8) == [401] * 8

    async def test_who_shows_two_tokens_is_counted_as_whom_the_first_says(
        self, face: Face, databases: Databases
    ) -> None:
        """That is who gets the answer: another token behind it must not find another count."""
        user = await make_user(databases)
        path = f"/api/v1/users/{user.id}/balance"
        sent = [*bearer(user, face.settings).items(), ("Authorization", "Bearer x")]
        async with face.client() as client:
            answers = [await client.get(path, headers=sent) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]

    async def test_an_api_key_counts_by_itself_once_it_has_held(self, face: Face, databases: Databases) -> None:
        service = await make_user(databases, roles=["service", "admin"])
        admin = Caller(service.id, ("admin",), 0)
        order = KeyOrder(service.id, "test", [Permission.WALLETS_READ], utc_now() + timedelta(days=1))
        key = (await create_key(databases.client, admin, order, None, timedelta(days=1, hours=1))).text
        async with face.client(headers={"X-API-Key": key}) as client:
            assert await statuses(client, "/api/v1/wallets", 14) == [200] * 13 + [429]
        # The first was counted by its address, as are those that only look like one.
        async with face.client(headers={"X-API-Key": key[:-1] + "!"}) as client:
            assert await statuses(client, "/api/v1/wallets", 8) == [401] * 7 + [429]

    async def test_nobody_takes_the_global_limit_by_being_refused(self, make_face: Any, databases: Databases) -> None:
        face = make_face(rate_limit_global=10, rate_limit_user=4)
        greedy, modest = await make_user(databases), await make_user(databases)
        async with (
            face.client(headers=bearer(greedy, face.settings)) as first,
            face.client(headers=bearer(modest, face.settings)) as second,
        ):
            assert await statuses(first, ME, 30) == [200] * 4 + [429] * 26
            assert await statuses(second, ME, 4) == [200] * 4

    async def test_those_who_show_no_token_have_one_limit_together(self, make_face: Any) -> None:
        face = make_face(rate_limit_anonymous=10)
        clients = [face.client(f"203.0.113.{number}") for number in range(5)]
        answers = await asyncio.gather(*(client.get(ME) for client in clients for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 90


class TestRoutes:
    async def test_both_lists_of_transactions_have_one_limit(self, face: Face, databases: Databases) -> None:
        user, wallet = await make_account(databases)
        async with face.client(headers=bearer(user, face.settings)) as client:
            assert await statuses(client, f"/api/v1/users/{user.id}/transactions", 3) == [200] * 3
            assert await statuses(client, f"/api/v1/wallets/{wallet.id}/transactions", 4) == [200] * 3 + [429]
            # Other routes go on, by their own limit.
            assert await statuses(client, ME, 6) == [200] * 6
            assert await statuses(client, ME, 1) == [429]

    async def test_every_spelling_of_a_path_that_is_routed_is_counted(self, face: Face, databases: Databases) -> None:
        user = await make_user(databases)
        paths = [f"/api/v1/users/{user.id}/balance{end}" for end in ("", "?", "?at=2026-01-01T00:00:00Z", "%0A", "?x")]
        async with face.client(headers=bearer(user, face.settings)) as client:
            answers = [await client.get(path) for path in paths]
        assert [answer.status_code for answer in answers].count(429) == 1
        assert answers[-1].status_code == 429

    async def test_logging_in_is_counted_by_address_with_or_without_a_token(
        self, make_face: Any, databases: Databases
    ) -> None:
        face = make_face(rate_limit_login=3)
        user = await make_user(databases)
        body = {"email": make_email(), "password": PASSWORD}
        async with face.client() as client:
            answers = [await client.post(LOGIN, json=body) for _ in range(2)]
            headers = bearer(user, face.settings)
            answers += [await client.post(LOGIN, json=body, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]

    async def test_health_and_the_bank_are_never_refused(self, make_face: Any) -> None:
        face = make_face(rate_limit_global=1, rate_limit_address=1)
        async with face.client() as client:
            for path in ("/livez", "/readyz", "/health"):
                for answer in [await client.get(path) for _ in range(3)]:
                    assert answer.status_code == 200
                    assert "x-ratelimit-limit" not in answer.headers
            refused = [await client.post("/webhooks/bank-callback", json={}) for _ in range(3)]
            assert [answer.status_code for answer in refused] == [401] * 3

    def test_the_paths_that_are_named_are_there(self, app: FastAPI) -> None:
        paths = app.openapi()["paths"]
        assert set(BALANCE_PATHS + TRANSACTIONS_PATHS) <= set(paths)
        # There are no metrics yet.
        assert EXEMPT_PATHS - {"/metrics"} <= set(paths)
        assert any(path.startswith(LOGIN_PATHS) for path in paths)


class TestWhatRedisHolds:
    async def test_no_token_no_key_and_no_address_of_an_e_mail(self, face: Face, databases: Databases) -> None:
        user = await make_user(databases)
        headers = bearer(user, face.settings)
        remember_api_key("wsk_01234567_mine", face.settings, face.limits)
        async with face.client(headers=headers) as client:
            await client.get(ME)
            await client.post(LOGIN, json={"email": user.email, "password": PASSWORD})
        async with face.client(headers={"X-API-Key": "wsk_01234567_mine"}) as client:
            await client.get(ME)
        keys = [key async for key in face.redis._client.scan_iter(f"{face.redis.prefix}*")]
        assert keys
        held = b" ".join(keys)
        for secret in (headers["Authorization"].removeprefix("Bearer "), "mine", "01234567", user.email, PASSWORD):
            assert secret.encode() not in held


class TestTheDocument:
    def test_declares_the_refusal_and_the_headers_of_each_limited_operation(self, app: FastAPI) -> None:
        document = app.openapi()
        seen = 0
        for path, item in document["paths"].items():
            for operation in item.values():
                assert ("X-RateLimit-Limit" in str(operation)) == (path not in EXEMPT_PATHS), path
                if path in EXEMPT_PATHS:
                    continue
                seen += 1
                for response in operation["responses"].values():
                    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(
                        response["headers"]
                    )
                refusal = operation["responses"]["429"]
                examples = refusal["content"]["application/problem+json"]["examples"]
                assert examples["rate_limit_exceeded"] == {"$ref": "#/components/examples/rate_limit_exceeded"}
                assert "Retry-After" in refusal["headers"]
        assert seen > 40
        assert document["components"]["examples"]["rate_limit_exceeded"]["value"]["retry_after"] == 12

    def test_keeps_what_a_route_says_about_its_own_refusals(self, app: FastAPI) -> None:
        refusal = app.openapi()["paths"][LOGIN]["post"]["responses"]["429"]
        examples = refusal["content"]["application/problem+json"]["examples"]
        assert set(examples) == {"too_many_attempts", "rate_limit_exceeded"}
