"""What holds for every route, sent as no schema-minded client would: the same boring answer everywhere."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from scripts.service_stack import Stack
from service.settings import Settings
from tests.api_routes import ApiRoute, routes_of
from tests.factories import bearer, make_user

_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE")
# Not declared in the document, and not strict about how they are asked.
_LENIENT = ("/docs", "/openapi.json", "/livez", "/readyz", "/health", "/metrics")


@pytest.fixture(scope="module")
async def root(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without the API's prefix."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as client:
        yield client


@pytest.fixture(scope="module")
def routes(app: FastAPI) -> list[ApiRoute]:
    return [route for route in routes_of(app) if not route.path.startswith(_LENIENT)]


def _problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, (response.request.method, response.request.url, response.text)
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["error"] == code
    assert problem["request_id"] == response.headers["X-Request-ID"]
    return problem


class TestMethods:
    async def test_those_that_a_path_does_not_have_are_refused_with_those_that_it_has(
        self, root: httpx.AsyncClient, routes: list[ApiRoute]
    ) -> None:
        by_path: dict[str, set[str]] = {}
        for route in routes:
            by_path.setdefault(route.path, set()).add(route.method)
        for path, allowed in by_path.items():
            for method in _METHODS:
                # These are paths of their own, but GET on them asks for something of that name.
                if method in allowed or (
                    path.endswith(("/batch", "/keys", "/dead-letters/replay")) and method == "GET"
                ):
                    continue
                response = await root.request(method, path.replace("{number}", "1").replace("{", "").replace("}", ""))
                assert response.headers["Allow"] == ", ".join(sorted(allowed)), (method, path)
                if method == "HEAD":
                    assert response.status_code == 405
                else:
                    _problem(response, 405, "method_not_allowed")


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "status", "code"),
        [("nobody_knows=1", 422, "invalid_fields"), ("a=%FF", 400, "malformed_request")],
        ids=["unknown", "not UTF-8"],
    )
    async def test_strange_ones_are_refused_by_every_route(
        self, root: httpx.AsyncClient, routes: list[ApiRoute], query: str, status: int, code: str
    ) -> None:
        for route in routes:
            headers = {"content-type": "application/json"}
            response = await root.request(route.method, f"{route.url}?{query}", headers=headers, content="{}")
            problem = _problem(response, status, code)
            if status == 422:
                assert problem["errors"][0]["pointer"] == "/query/nobody_knows", route

    @pytest.mark.parametrize("query", ["limit=1&limit=2", "cursor=&cursor=", "status=success&status=failed"])
    async def test_what_is_asked_twice_is_refused_except_where_it_is_a_list(
        self, root: httpx.AsyncClient, settings: Settings, databases: Any, query: str
    ) -> None:
        headers = bearer(await make_user(databases), settings)
        problem = _problem(await root.get(f"/api/v1/withdrawals?{query}", headers=headers), 422, "invalid_fields")
        assert [one["code"] for one in problem["errors"]] == ["repeated"]

    async def test_a_list_of_types_may_be_asked(
        self, root: httpx.AsyncClient, settings: Settings, databases: Any
    ) -> None:
        user = await make_user(databases)
        path = f"/api/v1/users/{user.id}/transactions?type=DEPOSIT&type=WITHDRAWAL"
        assert (await root.get(path, headers=bearer(user, settings))).status_code == 200

    async def test_endless_ones_are_refused(self, root: httpx.AsyncClient) -> None:
        _problem(await root.get("/api/v1/withdrawals?" + "a=1&" * 200), 400, "malformed_request")


class TestPaths:
    @pytest.mark.parametrize(
        "odd", ["%2F", "a%2Fb", "%00", "%FF%FE", "%ED%A0%80", "x" * 65, "x" * 6000, "$ne", "[$ne]", "é"]
    )
    async def test_odd_ids_are_of_nothing(
        self, root: httpx.AsyncClient, settings: Settings, databases: Any, odd: str
    ) -> None:
        headers = bearer(await make_user(databases), settings)
        response = await root.get(f"/api/v1/withdrawals/{odd}", headers=headers)
        _problem(response, *((422, "invalid_fields") if len(odd) > 64 else (404, "not_found")))

    async def test_paths_that_are_not_there_are_problems(self, root: httpx.AsyncClient) -> None:
        for path in ("/", "/api/v1", "/api/v1/withdrawals/", "//api/v1/withdrawals", "/API/V1/withdrawals", "/%00"):
            _problem(await root.get(path), 404, "not_found")


class TestTheWire:
    """What HTTP's own parser says, over a socket: never a crash, and the connection is closed."""

    @pytest.mark.parametrize(
        "lines",
        [
            ["Content-Length: -1"],
            ["Content-Length: 1, 2"],
            ["Content-Length: 5", "Content-Length: 6"],
            ["Content-Length: 99999999999999999999"],
            ["Transfer-Encoding: chunked", "Content-Length: 5"],
            ["Transfer-Encoding: gzip, chunked, x"],
        ],
        ids=str,
    )
    async def test_lengths_that_contradict_each_other_get_a_4xx(self, stack: Stack, lines: list[str]) -> None:
        head = ["POST /api/v1/withdrawals HTTP/1.1", "Host: wallet", "Content-Type: application/json", *lines]
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.api_port)
        writer.write("\r\n".join([*head, "", "5\r\n{}   \r\n0\r\n\r\n"]).encode())
        answer = await asyncio.wait_for(reader.read(4096), 20)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 4"), answer

    async def test_a_connection_that_rests_is_still_there_for_the_next_request(self, stack: Stack) -> None:
        """Proxies keep theirs for a minute: closed under one, the request that just comes would be lost."""
        patient = httpx.Limits(keepalive_expiry=60)
        async with httpx.AsyncClient(base_url=stack.base_url, limits=patient) as client:
            connections = []
            for rest_s in (6, 0):
                async with client.stream("GET", "/livez") as answer:
                    await answer.aread()
                    connections.append(answer.extensions["network_stream"].get_extra_info("client_addr"))
                await asyncio.sleep(rest_s)
        assert connections[0] == connections[1]
