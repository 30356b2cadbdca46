"""Somebody who pays over HTTP, in process; what their code is, and what an administrator does to wallets."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from uuid import uuid4

import httpx
import pyotp

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.step_up import Challenge
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.repositories import totp_enrolments as enrolment_repository
from service.services.factor_changes import challenge_subject
from service.services.step_up import code_for
from service.settings import Settings
from tests.factories import PASSWORD, Account, bearer, make_account


class Payer(NamedTuple):
    api: httpx.AsyncClient
    account: Account
    headers: dict[str, str]

    @classmethod
    async def with_balance(cls, api: httpx.AsyncClient, databases: Databases, settings: Settings, balance: int) -> Self:
        return cls.of(api, await make_account(databases, balance=balance), settings)

    @classmethod
    def of(cls, api: httpx.AsyncClient, account: Account, settings: Settings) -> Self:
        return cls(api, account, bearer(account.user, settings))

    @property
    def wallet(self) -> Wallet:
        """As it was at first."""
        return self.account.wallet

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.api.get(f"/api/v1{path}", params=query, headers=self.headers)

    async def post(self, path: str, body: Any = None, key: str | None = None, **headers: str) -> httpx.Response:
        sent = {**self.headers, "Idempotency-Key": key or uuid4().hex, **headers}
        return await self.api.post(f"/api/v1{path}", json=body, headers=sent)

    def order(self, **body: Any) -> dict[str, Any]:
        """1,000 from their wallet, unless told otherwise."""
        return {"from_wallet_id": self.wallet.id, "amount": 1_000, "currency": "INR"} | body

    async def send(self, key: str | None = None, **body: Any) -> httpx.Response:
        return await self.post("/transfers", self.order(**body), key)

    async def batch(self, mode: str, orders: list[dict[str, Any]], key: str | None = None) -> httpx.Response:
        return await self.post(
            "/transfers/batch", {"mode": mode, "transfers": [self.order(**one) for one in orders]}, key
        )

    async def withdraw(self, amount: int, key: str | None = None) -> httpx.Response:
        body = {"amount": amount, "currency": "INR", "destination": "bank-account-0001"}
        return await self.post("/withdrawals", body, key)

    async def confirm(self, payment: dict[str, Any], code: str, key: str | None = None) -> httpx.Response:
        return await self.post(f"/{payment['type']}s/{payment['id']}/confirm", {"code": code}, key)

    async def cancel(self, payment: dict[str, Any], key: str | None = None) -> httpx.Response:
        return await self.post(f"/{payment['type']}s/{payment['id']}/cancel", key=key)

    async def see(self, payment: dict[str, Any]) -> dict[str, Any]:
        seen: dict[str, Any] = (await self.get(f"/{payment['type']}s/{payment['id']}")).json()
        return seen


async def enrol(api: httpx.AsyncClient, headers: Mapping[str, str]) -> tuple[str, list[str]]:
    """An authenticator app for whoever's token it is: its next code, good for 30 s at least, and the recovery codes."""
    begun = await api.post("/api/v1/me/totp", json={"password": PASSWORD}, headers=headers)
    app = pyotp.TOTP(begun.json()["secret"])
    now = utc_now()
    codes = {"code": app.at(now), "mailed_code": await mailed_code(api, headers)}
    active = await api.post("/api/v1/me/totp/confirm", json=codes, headers=headers)
    assert active.status_code == 200, active.text
    return app.at(now, counter_offset=1), active.json()["recovery_codes"]


async def mailed_code(api: httpx.AsyncClient, headers: Mapping[str, str]) -> str:
    """What the mail for a pending app says, or would."""
    user_id = (await api.get("/api/v1/me", headers=headers)).json()["id"]
    settings = api._transport.app.state.resources.settings  # type: ignore[attr-defined]
    return await enrolment_code(user_id, settings)


async def enrolment_code(user_id: str, settings: Settings) -> str:
    enrolment = await enrolment_repository.find(user_id)
    assert enrolment is not None
    assert enrolment.challenge is not None
    return code_for(settings, challenge_subject(user_id, enrolment.secret_id), enrolment.challenge)


async def payment_row(databases: Databases, payment: dict[str, Any]) -> dict[str, Any]:
    row = await databases.wallet[f"{payment['type']}s"].find_one({"_id": payment["id"]})
    assert row is not None
    return row


async def right_code(databases: Databases, settings: Settings, payment: dict[str, Any]) -> str:
    """What the mail says, or would."""
    row = await payment_row(databases, payment)
    return code_for(settings, payment["id"], Challenge(**row["challenge"]))


def wrong_code(right: str) -> str:
    return f"{(int(right) + 1) % 10**6:06d}"


async def shut(databases: Databases, wallet: Wallet, how: Freeze | WalletStatus) -> None:
    """Frozen that way, or closed; WalletStatus.ACTIVE opens it again."""
    status, freeze = (WalletStatus.FROZEN, how) if isinstance(how, Freeze) else (how, None)
    changed = {"status": status, "freeze": freeze}
    await databases.wallet["wallets"].update_one({"_id": wallet.id}, {"$set": changed})


async def outbox_topics(databases: Databases, payment: dict[str, Any]) -> set[str]:
    rows = await databases.wallet["outbox"].find({"subject_id": payment["id"]}).to_list()
    return {row["topic"] for row in rows}
