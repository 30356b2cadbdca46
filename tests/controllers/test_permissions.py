"""Permissions beside routes: each route has one or is public, and roles reach as far as theirs go."""

import httpx
import pytest
from fastapi import FastAPI

from service.database import Databases
from service.domain.permissions import KEY_PERMISSIONS, Permission, permissions_of
from service.settings import Settings
from tests.api_routes import ApiRoute, routes_of
from tests.factories import bearer, make_user
from tests.refusals import refusal

# For those who have no token yet, or are no users at all.
_PUBLIC = {
    ("POST", "/api/v1/auth/register"),
    ("POST", "/api/v1/auth/register/confirm"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/refresh"),
    ("POST", "/api/v1/auth/password-reset"),
    ("POST", "/api/v1/auth/password-reset/confirm"),
    ("GET", "/api/v1/checkpoints/keys"),
    ("GET", "/api/v1/ws"),
    ("POST", "/webhooks/bank-callback"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/{name}"),
}
_ROLES: list[tuple[str, ...]] = [(), ("user",), ("service",), ("admin",), ("user", "service"), ("janitor",)]


def gated_routes(app: FastAPI) -> list[ApiRoute]:
    return [route for route in routes_of(app) if (route.method, route.path) not in _PUBLIC]


class TestEveryRoute:
    def test_declares_one_permission_or_is_public(self, app: FastAPI) -> None:
        routes = routes_of(app)
        assert len(routes) > 70
        assert {(route.method, route.path) for route in routes} >= _PUBLIC
        for route in routes:
            expected = 0 if (route.method, route.path) in _PUBLIC else 1
            assert len(route.gates) == expected, (route.method, route.path)

    def test_shows_its_permission_in_openapi(self, app: FastAPI) -> None:
        document = app.openapi()
        for route in gated_routes(app):
            operation = document["paths"][route.path][route.method.lower()]
            assert operation["x-permission"] == route.permission
            assert operation["security"][:2] == [
                {"AccessToken": route.permissions},
                {"SessionCookie": route.permissions},
            ]
        for method, path in _PUBLIC:
            operation = document["paths"].get(path, {}).get(method.lower(), {})
            assert "x-permission" not in operation
            # The bank has no token: it signs.
            assert operation.get("security", []) == ([{"bankSignature": []}] if "bank" in path else [])

    def test_takes_a_permission_of_everybodys_below_admin(self, app: FastAPI) -> None:
        for route in gated_routes(app):
            if "/admin/" in route.path:
                assert route.permission not in permissions_of(("user", "service")), (route.method, route.path)

    async def test_is_shut_to_those_without_a_token(self, app: FastAPI, api: httpx.AsyncClient) -> None:
        for route in gated_routes(app):
            answer = await api.request(route.method, route.url, json={})
            assert refusal(answer) == (401, "unauthenticated"), (route.method, route.path)

    @pytest.mark.parametrize("roles", _ROLES, ids=lambda roles: "+".join(roles) or "none")
    async def test_is_open_to_the_roles_that_have_its_permission_and_to_no_others(
        self, app: FastAPI, api: httpx.AsyncClient, databases: Databases, settings: Settings, roles: tuple[str, ...]
    ) -> None:
        allowed = permissions_of(tuple(role for role in roles if role != "janitor"))
        for route in gated_routes(app):
            # One each: some routes change what their caller may do next.
            user = await make_user(databases, roles=[role for role in roles if role != "janitor"])
            user.roles = list(roles)
            answer = await api.request(route.method, route.url, json={}, headers=bearer(user, settings))
            if allowed.issuperset(route.permissions):
                assert answer.status_code not in (401, 403), (route.method, route.path, answer.text)
                assert answer.status_code < 500, (route.method, route.path, answer.text)
            else:
                assert refusal(answer) == (403, "forbidden"), (route.method, route.path)


class TestThePermissionsOfRoles:
    def test_add_up(self) -> None:
        assert permissions_of(("user", "service")) == permissions_of(("user",)) | permissions_of(("service",))
        assert permissions_of(()) == permissions_of(("janitor",)) == frozenset()

    def test_those_of_an_admin_are_all(self) -> None:
        assert permissions_of(("admin",)) == frozenset(Permission)

    def test_a_service_administers_nothing_and_its_keys_have_no_profile_either(self) -> None:
        assert not [permission for permission in permissions_of(("service",)) if permission.endswith(":admin")]
        keys_lack = permissions_of(("service",)) - KEY_PERMISSIONS
        assert keys_lack == {Permission.PROFILE_READ, Permission.PROFILE_WRITE, Permission.EVENTS_FOLLOW}
