"""Somebody who logs in over HTTP, and everything that can be done with what they get."""

from typing import Any, NamedTuple, Self

import httpx

from service.database import Databases
from service.documents import User
from tests.factories import PASSWORD, make_account

LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
LOGOUT = "/api/v1/auth/logout"
LOGOUT_ALL = "/api/v1/auth/logout-all"
SESSIONS = "/api/v1/me/sessions"
PASSWORD_CHANGE = "/api/v1/me/password"
RESET = "/api/v1/auth/password-reset"
RESET_CONFIRM = "/api/v1/auth/password-reset/confirm"

REFUSED = (401, "invalid_refresh_token")
OUT = (401, "unauthenticated")


class Login(NamedTuple):
    """A session as its client has it, with the tokens that it got first."""

    api: httpx.AsyncClient
    user: User
    refresh_token: str
    headers: dict[str, str]

    @classmethod
    async def of(cls, api: httpx.AsyncClient, user: User, password: str = PASSWORD) -> Self:
        answer = await api.post(LOGIN, json={"email": user.email, "password": password})
        assert answer.status_code == 200, answer.text
        return cls.with_tokens(api, user, answer.json())

    @classmethod
    async def of_somebody(cls, api: httpx.AsyncClient, databases: Databases, **overrides: Any) -> Self:
        return await cls.of(api, (await make_account(databases, **overrides)).user)

    @classmethod
    def with_tokens(cls, api: httpx.AsyncClient, user: User, tokens: dict[str, Any]) -> Self:
        return cls(api, user, tokens["refresh_token"], {"Authorization": f"Bearer {tokens['access_token']}"})

    async def refresh(self, token: str | None = None) -> httpx.Response:
        return await self.api.post(REFRESH, json={"refresh_token": token or self.refresh_token})

    async def refreshed(self, token: str | None = None) -> str:
        """The next refresh token."""
        answer = await self.refresh(token)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["refresh_token"])

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.api.post(path, json=body, headers=self.headers)

    async def sessions(self) -> list[dict[str, Any]]:
        answer = await self.api.get(SESSIONS, headers=self.headers)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["data"]
        return rows

    async def session_id(self) -> str:
        (current,) = [row for row in await self.sessions() if row["is_current"]]
        return str(current["id"])

    async def deposit(self) -> httpx.Response:
        """Moves money, so that it is asked whether the token still holds at this very moment."""
        body = {"amount": 1, "currency": "INR", "source": "bank-account-0001"}
        headers = {**self.headers, "Idempotency-Key": self.refresh_token[-20:]}
        return await self.api.post("/api/v1/deposits", json=body, headers=headers)


async def audit_actions(databases: Databases, user: User) -> list[str]:
    """What befell the account, oldest first."""
    rows = databases.wallet["audit_events"].find({"subject_id": user.id}, sort=[("_id", 1)])
    return [row["action"] for row in await rows.to_list()]
