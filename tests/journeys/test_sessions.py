"""Sessions on the real stack: two processes that share nothing but MongoDB, a worker that mails, a restart."""

import asyncio
import time
from uuid import uuid4

import httpx

from scripts.service_stack import API, Stack
from service.database import Databases
from tests.person import PASSWORD
from tests.refusals import refusal
from tests.stack_fixtures import mail_to

_TIMES = 20
_WAIT_LIMIT_S = 30.0
_POLL_S = 0.05
_NEW_PASSWORD = "amber-saddle-lantern-77"
_REFUSED = (401, "invalid_refresh_token")

Tokens = dict[str, str]


async def _register(http: httpx.AsyncClient) -> str:
    email = f"{uuid4().hex}@example.com"
    person = {"first_name": "Ada", "last_name": "Byron", "email": email, "password": PASSWORD}
    assert (await http.post("/api/v1/auth/register", json=person)).status_code == 201
    return email


async def _log_in(http: httpx.AsyncClient, email: str, password: str = PASSWORD) -> Tokens:
    answer = await http.post("/api/v1/auth/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    tokens: Tokens = answer.json()
    return tokens


async def _refresh(http: httpx.AsyncClient, token: str) -> httpx.Response:
    return await http.post("/api/v1/auth/refresh", json={"refresh_token": token})


class TestTwoProcesses:
    async def test_know_of_each_others_logouts_within_seconds(self, payment_http: httpx.AsyncClient) -> None:
        tokens = await _log_in(payment_http, await _register(payment_http))
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}

        async def read() -> int:
            # A connection of its own: which of the two answers is for the system to choose.
            async with httpx.AsyncClient(base_url=payment_http.base_url) as client:
                return (await client.get("/api/v1/wallets", headers=headers)).status_code

        assert {await read() for _ in range(_TIMES)} == {200}
        assert (await payment_http.post("/api/v1/auth/logout", headers=headers)).status_code == 204
        end = time.monotonic() + _WAIT_LIMIT_S
        while {await read() for _ in range(_TIMES)} != {401}:
            assert time.monotonic() < end, "one of the two still takes the token"
            await asyncio.sleep(_POLL_S)

    async def test_two_refreshes_at_once_bring_one_successor_which_is_good(
        self, payment_http: httpx.AsyncClient
    ) -> None:
        email = await _register(payment_http)
        for _ in range(_TIMES):
            token = (await _log_in(payment_http, email))["refresh_token"]
            answers = await asyncio.gather(*(_refresh(payment_http, token) for _ in range(2)))
            assert [answer.status_code for answer in answers] == [200, 200]
            (successor,) = {answer.json()["refresh_token"] for answer in answers}
            assert (await _refresh(payment_http, successor)).status_code == 200
            assert refusal(await _refresh(payment_http, token)) == _REFUSED
            assert refusal(await _refresh(payment_http, successor)) == _REFUSED


class TestAForgottenPassword:
    async def test_is_replaced_by_a_token_from_the_mail(self, http: httpx.AsyncClient, stack: Stack) -> None:
        email = await _register(http)
        before = await _log_in(http, email)
        asked = await http.post("/api/v1/auth/password-reset", json={"email": email})
        assert asked.status_code == 202
        mail = await mail_to(stack, email, "Choose a new password")
        (token,) = [word for word in mail.split() if word.startswith("wpr_")]
        body = {"token": token, "new_password": _NEW_PASSWORD}
        assert (await http.post("/api/v1/auth/password-reset/confirm", json=body)).status_code == 204
        assert refusal(await _refresh(http, before["refresh_token"])) == _REFUSED
        await _log_in(http, email, _NEW_PASSWORD)
        await mail_to(stack, email, "Your password was changed")


class TestARestart:
    async def test_leaves_sessions_as_they_are_and_loses_no_refused_login(
        self, http: httpx.AsyncClient, stack: Stack, stack_databases: Databases
    ) -> None:
        email = await _register(http)
        first = (await _log_in(http, email))["refresh_token"]
        second = (await _refresh(http, first)).json()["refresh_token"]
        wrong = await http.post("/api/v1/auth/login", json={"email": email, "password": _NEW_PASSWORD})
        stack.stop(API)
        stack.start_api()
        noted = {"request_id": wrong.json()["request_id"], "action": "user.login_refused"}
        assert await stack_databases.wallet["audit_events"].count_documents(noted) == 1
        answer = await _refresh(http, second)
        assert answer.status_code == 200
        assert refusal(await _refresh(http, first)) == _REFUSED
        assert refusal(await _refresh(http, answer.json()["refresh_token"])) == _REFUSED
