"""Sessions in a browser's cookies: what a page of another site makes the browser send changes nothing."""

from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest

from service.database import Databases
from service.settings import Settings
from tests.factories import PASSWORD, bearer, make_account
from tests.logins import LOGIN, LOGOUT, OUT, PASSWORD_CHANGE, REFRESH, REFUSED, SESSIONS
from tests.refusals import refusal
from tests.security.findings import report, weigh
from tests.security.target import Target
from tests.security.world import send

ACCESS, REFRESH_COOKIE, CSRF = "__Host-wallet_access", "__Host-wallet_refresh", "__Host-wallet_csrf"
_NO_CSRF = (403, "csrf_token_invalid")
_ORDER = {"amount": 1, "currency": "INR", "source": "bank-account-0001"}


class Browser:
    """Keeps cookies as a browser does, and sends them with every request."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self.api = api
        self.cookies: dict[str, str] = {}
        self.answers: list[httpx.Response] = []

    @property
    def csrf(self) -> dict[str, str]:
        return {"X-CSRF-Token": self.cookies[CSRF]}

    def headers(self, **more: str) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **more}

    async def request(self, method: str, path: str, body: Any = None, **more: str) -> httpx.Response:
        answer = await self.api.request(method, path, json=body, headers=self.headers(**more))
        self._keep(answer)
        return answer

    async def post(self, path: str, body: Any = None, **more: str) -> httpx.Response:
        return await self.request("POST", path, body, **more)

    def _keep(self, answer: httpx.Response) -> None:
        self.answers.append(answer)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.cookies.pop(name, None)
                if morsel["max-age"] != "0":
                    self.cookies[name] = morsel.value


@pytest.fixture
async def browser(api: httpx.AsyncClient, databases: Databases) -> Browser:
    """Of somebody who is logged in by cookies."""
    browser = Browser(api)
    user = (await make_account(databases)).user
    answer = await browser.post(LOGIN, {"email": user.email, "password": PASSWORD, "cookies": True})
    assert answer.status_code == 200, answer.text
    return browser


class TestLoggingIn:
    async def test_leaves_no_token_where_a_script_could_read_it(self, browser: Browser) -> None:
        (answer,) = browser.answers
        assert answer.json()["token_type"] == "cookie"
        assert set(browser.cookies) == {ACCESS, REFRESH_COOKIE, CSRF}
        for secret in (browser.cookies[ACCESS], browser.cookies[REFRESH_COOKIE]):
            assert secret not in answer.text
        for line in answer.headers.get_list("set-cookie"):
            (name,) = SimpleCookie(line)
            assert ("HttpOnly" in line) is (name != CSRF)
            assert all(part in line for part in ("Secure", "SameSite=strict", "Path=/"))
            assert "Domain" not in line
        assert answer.json()["csrf_token"] == browser.cookies[CSRF]

    async def test_without_asking_for_cookies_sets_none(self, api: httpx.AsyncClient, databases: Databases) -> None:
        user = (await make_account(databases)).user
        answer = await api.post(LOGIN, json={"email": user.email, "password": PASSWORD})
        assert "set-cookie" not in answer.headers
        assert "csrf_token" not in answer.json()


class TestABrowser:
    async def test_reads_by_its_cookies_alone_and_changes_with_the_csrf_token(self, browser: Browser) -> None:
        assert (await browser.request("GET", "/api/v1/me")).status_code == 200
        key = {"Idempotency-Key": "a-deposit"}
        assert refusal(await browser.post("/api/v1/deposits", _ORDER, **key)) == _NO_CSRF
        assert (await browser.post("/api/v1/deposits", _ORDER, **key, **browser.csrf)).status_code == 202

    async def test_refreshes_by_its_cookie_and_is_told_no_token(self, browser: Browser) -> None:
        before = dict(browser.cookies)
        answer = await browser.post(REFRESH, {}, **browser.csrf)
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"csrf_token", "token_type", "expires_in", "refresh_expires_in"}
        assert browser.cookies[REFRESH_COOKIE] != before[REFRESH_COOKIE]
        assert browser.cookies[CSRF] == before[CSRF]
        assert (await browser.request("GET", "/api/v1/me")).status_code == 200

    async def test_changes_its_password_and_goes_on_by_new_cookies(self, browser: Browser) -> None:
        old = browser.headers()
        body = {"current_password": PASSWORD, "new_password": "amber-saddle-lantern-77"}
        answer = await browser.post(PASSWORD_CHANGE, body, **browser.csrf)
        assert (answer.status_code, answer.json()["token_type"]) == (200, "cookie")
        assert (await browser.request("GET", "/api/v1/me")).status_code == 200
        assert refusal(await browser.api.get("/api/v1/me", headers=old)) == OUT

    async def test_has_no_cookies_after_logging_out_and_old_ones_open_nothing(self, browser: Browser) -> None:
        old = dict(browser.cookies)
        assert (await browser.post(LOGOUT, **browser.csrf)).status_code == 204
        assert browser.cookies == {}
        browser.cookies = old
        assert refusal(await browser.request("GET", "/api/v1/me")) == OUT
        assert refusal(await browser.post(REFRESH, {}, **browser.csrf)) == REFUSED

    async def test_is_asked_for_cookies_only_where_it_shows_nothing_else(
        self, browser: Browser, databases: Databases, settings: Settings
    ) -> None:
        other = (await make_account(databases)).user
        answer = await browser.request("GET", "/api/v1/me", **bearer(other, settings))
        assert answer.json()["id"] == other.id
        assert refusal(await browser.request("GET", "/api/v1/me", Authorization="Bearer none")) == OUT


class TestAPageOfAnotherSite:
    """It makes the browser send its cookies, and has no CSRF token of the session."""

    async def test_changes_nothing_on_any_route(self, target: Target) -> None:
        findings, tried = [], 0
        for route in target.routes:
            if not route.is_secured or route.method == "GET":
                continue
            person = await target.world.someone(target.world.lowest_role(route), "victim")
            token = person.headers["Authorization"].removeprefix("Bearer ")
            ids, query, body = await person.ids_for(route), await person.query_for(route), await person.body_for(route)
            answer = await send(target.api, route, {"Cookie": f"{ACCESS}={token}"}, ids=ids, query=query, body=body)
            findings += weigh(answer, route, "cookies without a CSRF token", allowed={403})
            if not findings and answer.json()["error"] != "csrf_token_invalid":
                findings += weigh(answer, route, "cookies without a CSRF token", allowed=())
            tried += 1
        assert not findings, report(findings)
        assert tried > 30

    @pytest.mark.parametrize("made_up", ["", "0" * 64, "é"])
    async def test_guesses_no_csrf_token(self, browser: Browser, made_up: str) -> None:
        cookies = browser.headers()["Cookie"].encode()
        headers = [(b"cookie", cookies), (b"x-csrf-token", made_up.encode("latin-1"))]
        assert refusal(await browser.api.post(LOGOUT, headers=headers)) == _NO_CSRF

    async def test_may_not_use_the_csrf_token_of_a_session_of_its_own(
        self, browser: Browser, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        attacker = Browser(api)
        user = (await make_account(databases)).user
        await attacker.post(LOGIN, {"email": user.email, "password": PASSWORD, "cookies": True})
        browser.cookies[CSRF] = attacker.cookies[CSRF]
        assert refusal(await browser.post(LOGOUT, **browser.csrf)) == _NO_CSRF

    async def test_neither_uses_up_nor_ends_a_session_by_refreshing(self, browser: Browser) -> None:
        for _ in range(2):
            assert refusal(await browser.post(REFRESH, {})) == _NO_CSRF
        assert (await browser.post(REFRESH, {}, **browser.csrf)).status_code == 200
        assert (await browser.request("GET", SESSIONS)).status_code == 200
