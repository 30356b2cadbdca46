"""What wraps every request: security headers, other origins and hosts, limits of the request itself."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Response

from service.controllers.middleware import HEADERS_LIMIT, URI_LIMIT_BYTES, add_middleware
from service.controllers.problems import add_problem_handlers
from service.settings import Environment, Settings
from tests.controllers.test_bad_input import _assert_problem
from tests.servers import NO_RATE_LIMITS
from tests.test_settings import PRODUCTION, STAND_INS

_ORIGIN = "https://shop.example"
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def small_app(settings: Settings) -> FastAPI:
    """Without rate limits, which need Redis."""
    app = FastAPI()

    @app.get("/own")
    async def own() -> Response:
        return Response(
            headers={"Cache-Control": "public, max-age=60", "Content-Security-Policy": "default-src 'self'"}
        )

    @app.get("/crash")
    async def crash() -> Response:
        raise RuntimeError("a defect")

    add_problem_handlers(app)
    add_middleware(app, settings.model_copy(update=NO_RATE_LIMITS))
    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example")


@pytest.fixture
async def open_to_shop() -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(_env_file=None, cors_origins=(_ORIGIN,), allowed_hosts=("wallet.example",))
    async with client_of(small_app(settings)) as client:
        yield client


class TestSecurityHeaders:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/livez", 200),
            ("GET", "/api/v1/me", 401),
            ("GET", "/nowhere", 404),
            ("DELETE", "/livez", 405),
            ("POST", "/api/v1/auth/login", 415),
            ("POST", "/webhooks/bank-callback", 401),
            ("GET", f"/{'x' * URI_LIMIT_BYTES}", 414),
        ],
    )
    async def test_are_on_every_answer(self, app: FastAPI, method: str, path: str, status: int) -> None:
        async with client_of(app) as client:
            response = await client.request(method, path)
        assert response.status_code == status
        assert {name: response.headers[name] for name in _ALWAYS} == _ALWAYS
        assert "strict-transport-security" not in response.headers

    async def test_are_on_that_of_a_defect_too(self) -> None:
        async with client_of(small_app(Settings(_env_file=None))) as client:
            response = await client.get("/crash")
        assert response.status_code == 500
        assert {name: response.headers[name] for name in _ALWAYS} == _ALWAYS
        assert "a defect" not in response.text

    async def test_give_way_to_a_routes_own(self) -> None:
        async with client_of(small_app(Settings(_env_file=None))) as client:
            response = await client.get("/own")
        own = {"cache-control": "public, max-age=60", "content-security-policy": "default-src 'self'"}
        assert {name: response.headers.get_list(name) for name in _ALWAYS} == {
            name: [value] for name, value in (_ALWAYS | own).items()
        }

    async def test_ask_for_https_in_production(self) -> None:
        settings = Settings(_env_file=None, env=Environment.PRODUCTION, **PRODUCTION, **STAND_INS)
        async with client_of(small_app(settings)) as client:
            response = await client.get("/own")
        assert response.headers["strict-transport-security"].startswith("max-age=63072000")


class TestOtherOrigins:
    async def test_are_not_let_in_unless_named(self, app: FastAPI) -> None:
        async with client_of(app) as client:
            preflight = await client.options(
                "/api/v1/withdrawals", headers={"Origin": _ORIGIN, "Access-Control-Request-Method": "POST"}
            )
            answer = await client.get("/livez", headers={"Origin": _ORIGIN})
        for response in (preflight, answer):
            assert not [name for name in response.headers if name.startswith("access-control")]

    async def test_that_are_named_may_send_our_headers_and_cookies_and_see_the_answer(
        self, open_to_shop: httpx.AsyncClient
    ) -> None:
        asked = {
            "Origin": _ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, idempotency-key, x-api-key, x-csrf-token",
        }
        preflight = await open_to_shop.options("/own", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == _ORIGIN
        for path, status in (("/own", 200), ("/crash", 500), ("/nowhere", 404)):
            answer = await open_to_shop.get(path, headers={"Origin": _ORIGIN})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, _ORIGIN)
            assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
            assert answer.headers["access-control-allow-credentials"] == "true"

    @pytest.mark.parametrize("origin", ["https://shop.example.evil.example", "http://shop.example", "null"])
    async def test_that_look_alike_are_not_let_in(self, open_to_shop: httpx.AsyncClient, origin: str) -> None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        for response in (
            await open_to_shop.options("/own", headers=asked),
            await open_to_shop.get("/own", headers={"Origin": origin}),
        ):
            assert "access-control-allow-origin" not in response.headers

    @pytest.mark.parametrize("wrong", ["*", "https://*.example", "shop.example", "https://shop.example/", "null"])
    def test_have_to_be_named_whole(self, wrong: str) -> None:
        with pytest.raises(ValueError, match="cors_origins"):
            Settings(_env_file=None, cors_origins=(wrong,))


class TestHosts:
    @pytest.mark.parametrize("host", ["wallet.example", "WALLET.example:8443"])
    async def test_that_are_named_are_answered(self, open_to_shop: httpx.AsyncClient, host: str) -> None:
        assert (await open_to_shop.get("/own", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "wallet.example.evil.example", "evil.example:wallet.example", ""])
    async def test_that_are_not_are_refused(self, open_to_shop: httpx.AsyncClient, host: str) -> None:
        _assert_problem(await open_to_shop.get("/own", headers={"Host": host}), 400, "malformed_request")

    async def test_do_not_matter_to_probes_nor_where_none_is_named(
        self, app: FastAPI, open_to_shop: httpx.AsyncClient
    ) -> None:
        # The small application has no such route; what counts is that it was asked.
        assert (await open_to_shop.get("/livez", headers={"Host": "10.1.2.3"})).status_code == 404
        async with client_of(app) as client:
            assert (await client.get("/livez", headers={"Host": "evil.example"})).status_code == 200


class TestRequestLimits:
    async def test_a_long_address_is_refused_at_its_limit(self, app: FastAPI) -> None:
        async with client_of(app) as client:
            fits = await client.get("/" + "x" * (URI_LIMIT_BYTES - 1))
            escaped = await client.get("/" + "%20" * (URI_LIMIT_BYTES // 3 + 1))
            asked = await client.get("/livez?" + "x" * URI_LIMIT_BYTES)
        assert fits.status_code == 404
        _assert_problem(escaped, 414, "uri_too_long")
        _assert_problem(asked, 414, "uri_too_long")

    async def test_too_many_headers_are_refused(self, app: FastAPI) -> None:
        async with client_of(app) as client:
            response = await client.get("/livez", headers=[(f"X-{n}", "y") for n in range(HEADERS_LIMIT + 1)])
        _assert_problem(response, 431, "headers_too_large")
