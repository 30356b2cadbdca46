"""Somebody with a token and an HTTP client: an admin, a service, or anybody else whom staff deal with."""

from typing import Any
from uuid import uuid4

import httpx

from service.database import Databases
from service.documents import User
from service.settings import Settings
from tests.factories import bearer, make_user


class Staff:
    def __init__(self, api: httpx.AsyncClient, user: User, settings: Settings) -> None:
        self.api, self.user, self.headers = api, user, bearer(user, settings)

    @classmethod
    async def hire(cls, api: httpx.AsyncClient, databases: Databases, settings: Settings, *roles: str) -> "Staff":
        return cls(api, await make_user(databases, roles=["user", *roles]), settings)

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.api.get(f"/api/v1{path}", params=query, headers=self.headers)

    async def post(self, path: str, key: str | None = None, **body: Any) -> httpx.Response:
        """With a key of its own, unless it is given one."""
        headers = {**self.headers, "Idempotency-Key": key or uuid4().hex}
        return await self.api.post(f"/api/v1{path}", json=body, headers=headers)

    async def put(self, path: str, **body: Any) -> httpx.Response:
        return await self.api.put(f"/api/v1{path}", json=body, headers=self.headers)

    async def patch(self, path: str, **body: Any) -> httpx.Response:
        return await self.api.patch(f"/api/v1{path}", json=body, headers=self.headers)

    async def delete(self, path: str, **query: Any) -> httpx.Response:
        return await self.api.delete(f"/api/v1{path}", params=query, headers=self.headers)

    async def confirmed(self, answer: httpx.Response) -> None:
        """Has another admin confirm what this one asked for, where it waits for one."""
        if answer.status_code != httpx.codes.ACCEPTED:
            return
        resources = self.api._transport.app.state.resources  # type: ignore[attr-defined]  # the app's own
        other = await Staff.hire(self.api, resources.databases, resources.settings, "admin")
        proposal_id = answer.json().get("proposal_id") or answer.json()["id"]
        approved = await other.post(f"/admin/proposals/{proposal_id}/approve")
        assert approved.status_code == 200, approved.text

    async def events(self, **query: Any) -> list[dict[str, Any]]:
        """Audit events, newest first."""
        answer = await self.get("/admin/audit-events", **query)
        assert answer.status_code == 200, answer.text
        events: list[dict[str, Any]] = answer.json()["data"]
        return events
