"""Tokens of people who are no longer what their token says: they end at once where more than one's own is at stake."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.database import Databases
from service.domain.permissions import LIVE_PERMISSIONS
from service.settings import Settings
from tests.api_routes import ApiRoute
from tests.controllers.test_permissions import gated_routes
from tests.factories import bearer, make_account, make_user
from tests.refusals import refusal
from tests.staff import Staff


async def _make_into(databases: Databases, user_id: str, **changes: Any) -> None:
    await databases.wallet["users"].update_one({"_id": user_id}, {"$set": changes})


def live_routes(app: FastAPI) -> list[ApiRoute]:
    return [route for route in gated_routes(app) if route.permission in LIVE_PERMISSIONS]


class TestWhoIsOutIsOutAtOnce:
    def test_on_every_route_of_admins_and_services_and_every_change_of_a_profile(self, app: FastAPI) -> None:
        own = {"profile:read", "wallets:read", "payments:read", "holds:read", "rewards:read"}
        own |= {"events:read", "events:follow", "webhooks:read"}
        # Those below ask the ledger, or look at the user themselves.
        asked_later = {"wallets:write", "payments:write", "holds:write", "rewards:write", "adjustments:write"}
        assert {route.permission for route in gated_routes(app)} - own - asked_later <= LIVE_PERMISSIONS
        assert len(live_routes(app)) > 15

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"roles": ["user"], "token_version": 1}, (401, "unauthenticated")),
            ({"is_active": False, "token_version": 1}, (401, "unauthenticated")),
            ({"is_active": False}, (403, "account_deactivated")),
            ({"roles": []}, (403, "forbidden")),
        ],
        ids=["demoted", "deactivated", "deactivated only", "without roles"],
    )
    async def test_with_a_token_from_before(
        self,
        app: FastAPI,
        api: httpx.AsyncClient,
        databases: Databases,
        settings: Settings,
        changes: dict[str, Any],
        expected: tuple[int, str],
    ) -> None:
        user = await make_user(databases, roles=["user", "service", "admin"])
        headers = bearer(user, settings)
        await _make_into(databases, user.id, **changes)
        for route in live_routes(app):
            answer = await api.request(route.method, route.url, json={}, headers=headers)
            assert refusal(answer) == expected, (route.method, route.path)

    async def test_from_looking_at_the_limits_of_somebody_elses_wallet(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        wallet = (await make_account(databases)).wallet
        boss = await Staff.hire(api, databases, settings, "admin")
        assert (await boss.get(f"/wallets/{wallet.id}/limits")).status_code == 200
        await _make_into(databases, boss.user.id, roles=["user"], token_version=1)
        assert refusal(await boss.get(f"/wallets/{wallet.id}/limits")) == (401, "unauthenticated")

    async def test_but_reads_what_is_their_own_until_the_token_expires(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        account = await make_account(databases, balance=500)
        headers = bearer(account.user, settings)
        await _make_into(databases, account.user.id, is_active=False, token_version=1)
        for path in (f"users/{account.user.id}/balance", "wallets", f"wallets/{account.wallet.id}/limits"):
            assert (await api.get(f"/api/v1/{path}", headers=headers)).status_code == 200, path
