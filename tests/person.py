"""A person with an HTTP client: what journeys do, in their words."""

import asyncio
import time
from typing import Any, Self
from uuid import uuid4

import httpx

PASSWORD = "plum-kettle-orbit-92"
_WAIT_LIMIT_S = 30.0
_POLL_S = 0.05


class Person:
    """Registered and logged in; `fund` goes the whole way through the bank."""

    def __init__(self, http: httpx.AsyncClient, token: str, user_id: str, wallet_id: str) -> None:
        self.http = http
        self.headers = {"Authorization": f"Bearer {token}"}
        self.user_id = user_id
        self.wallet_id = wallet_id

    @classmethod
    async def register(cls, http: httpx.AsyncClient, email: str | None = None) -> Self:
        email = email or f"{uuid4().hex}@example.com"
        person = {"first_name": "Ada", "last_name": "Byron", "email": email, "password": PASSWORD}
        registered = await http.post("/api/v1/auth/register", json=person)
        assert registered.status_code == 201, registered.text
        login = await http.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
        assert login.status_code == 200, login.text
        body = registered.json()
        return cls(http, login.json()["access_token"], body["user"]["id"], body["wallet"]["id"])

    async def get(self, path: str) -> httpx.Response:
        return await self.http.get(f"/api/v1{path}", headers=self.headers)

    async def post(self, path: str, key: str | None = None, **body: Any) -> httpx.Response:
        headers = {**self.headers, "Idempotency-Key": key or uuid4().hex}
        return await self.http.post(f"/api/v1{path}", json=body, headers=headers)

    async def deposit(
        self, amount: int, source: str = "bank-account-success", key: str | None = None
    ) -> httpx.Response:
        return await self.post("/deposits", key, amount=amount, currency="INR", source=source)

    async def withdraw(
        self, amount: int, destination: str = "bank-account-success", key: str | None = None
    ) -> httpx.Response:
        return await self.post("/withdrawals", key, amount=amount, currency="INR", destination=destination)

    async def transfer(self, amount: int, to: Self, key: str | None = None) -> httpx.Response:
        wallets = {"from_wallet_id": self.wallet_id, "to_wallet_id": to.wallet_id}
        return await self.post("/transfers", key, amount=amount, currency="INR", **wallets)

    async def confirm(self, payment: dict[str, Any], code: str) -> httpx.Response:
        return await self.post(f"/{payment['type']}s/{payment['id']}/confirm", code=code)

    async def cancel(self, payment: dict[str, Any]) -> httpx.Response:
        return await self.post(f"/{payment['type']}s/{payment['id']}/cancel")

    async def wallet(self) -> dict[str, Any]:
        wallet: dict[str, Any] = (await self.get(f"/wallets/{self.wallet_id}")).json()
        return wallet

    async def ended(self, operation: dict[str, Any], limit_s: float = _WAIT_LIMIT_S) -> dict[str, Any]:
        """The operation once it is neither pending nor processing."""
        deadline = time.monotonic() + limit_s
        path = f"/{operation['type']}s/{operation['id']}"
        while True:
            current: dict[str, Any] = (await self.get(path)).json()
            if current["status"] not in ("pending", "processing"):
                return current
            assert time.monotonic() < deadline, f"still {current['status']}: {current}"
            await asyncio.sleep(_POLL_S)

    async def fund(self, amount: int) -> None:
        accepted = await self.deposit(amount)
        assert accepted.status_code == 202, accepted.text
        ended = await self.ended(accepted.json())
        assert ended["status"] == "success", ended
