"""What an Idempotency-Key stands for: the request as it was sent, whatever a release makes of its fields."""

import json
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI

from service.controllers.dependencies import IdempotencyKey, claim_key
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.database import Databases
from service.settings import Settings
from tests.factories import Account, bearer, current, make_account

_WITHDRAWALS = "/api/v1/withdrawals"


class _Order(StrictModel):
    amount: int
    note: str | None = None


class _LaterOrder(_Order):
    """As a later release has it."""

    urgency: str = "usual"
    tags: tuple[str, ...] = ()


def app_with(model: type[StrictModel], app: FastAPI, parameter: str = "order_id") -> httpx.AsyncClient:
    """A release whose route takes that model, and answers with the request's fingerprint."""
    router = api_router("Orders")

    async def body(body: model) -> None:  # type: ignore[valid-type]
        """Read and looked at as any body is."""

    async def pay(key: IdempotencyKey, _: Annotated[None, Depends(body)]) -> dict[str, str]:
        return {"fingerprint": claim_key(app.state.resources, "usr_a", key).fingerprint}

    for path in (f"/orders/{{{parameter}}}/pay", f"/orders/{{{parameter}}}/pay-later"):
        router.add_api_route(path, pay, methods=["POST", "PUT"])
    release = FastAPI()
    release.router.routes += router.routes
    return httpx.AsyncClient(transport=httpx.ASGITransport(release), base_url="http://wallet.example/api/v1")


async def fingerprint_of(
    release: httpx.AsyncClient, body: str, path: str = "/orders/1/pay", method: str = "POST"
) -> str:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    answer = await release.request(method, path, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["fingerprint"]
    return found


class TestAFingerprint:
    async def test_stays_the_same_when_a_release_adds_optional_fields(self, app: FastAPI) -> None:
        body = '{"amount": 5}'
        assert await fingerprint_of(app_with(_Order, app), body) == await fingerprint_of(
            app_with(_LaterOrder, app), body
        )

    async def test_stays_the_same_when_a_release_renames_a_path_parameter(self, app: FastAPI) -> None:
        body = '{"amount": 5}'
        assert await fingerprint_of(app_with(_Order, app), body) == await fingerprint_of(
            app_with(_Order, app, "payment_id"), body
        )

    async def test_takes_no_notice_of_white_space_order_and_escapes(self, app: FastAPI) -> None:
        release = app_with(_Order, app)
        found = {
            await fingerprint_of(release, body)
            for body in ('{"amount":5,"note":"a"}', '{ "note": "\\u0061",\n "amount": 5 }')
        }
        assert len(found) == 1

    async def test_tells_apart_what_was_sent_to_other_routes_or_otherwise(self, app: FastAPI) -> None:
        release = app_with(_Order, app)
        found = [
            await fingerprint_of(release, '{"amount":5}'),
            await fingerprint_of(release, '{"amount":6}'),
            await fingerprint_of(release, '{"amount":5,"note":null}'),
            await fingerprint_of(release, '{"amount":5,"note":"5"}'),
            await fingerprint_of(release, '{"amount":5}', "/orders/2/pay"),
            await fingerprint_of(release, '{"amount":5}', "/orders/1/pay-later"),
            await fingerprint_of(release, '{"amount":5}', method="PUT"),
        ]
        assert len(set(found)) == len(found)


class Payer:
    def __init__(self, api: httpx.AsyncClient, account: Account, settings: Settings) -> None:
        self.api, self.account, self.headers = api, account, bearer(account.user, settings)
        self.key = uuid4().hex

    async def send(self, path: str, body: Any, key: str | None = None) -> httpx.Response:
        headers = {**self.headers, "Idempotency-Key": key or self.key, "Content-Type": "application/json"}
        content = body if isinstance(body, str | None) else json.dumps(body)
        return await self.api.post(path, content=content, headers=headers)

    @property
    def record_id(self) -> str:
        return f"{self.account.user.id}:{self.key}"


@pytest.fixture
async def payer(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Payer:
    return Payer(api, await make_account(databases, balance=10_000), settings)


_ORDER = {"amount": 700, "currency": "INR", "destination": "bank-account-0001"}


class TestAKey:
    async def test_is_answered_again_however_the_same_json_is_written(self, payer: Payer) -> None:
        first = await payer.send(_WITHDRAWALS, _ORDER)
        again = await payer.send(_WITHDRAWALS, json.dumps(dict(reversed(_ORDER.items())), indent=2))
        assert first.status_code == 202
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["Idempotent-Replayed"] == "true"

    async def test_of_the_release_before_is_answered(self, payer: Payer, databases: Databases) -> None:
        """Its fingerprint was made of other things, so that nobody can tell whether the request is the same."""
        first = await payer.send(_WITHDRAWALS, _ORDER)
        kept = databases.wallet["idempotency_keys"]
        found = await kept.find_one({"_id": payer.record_id})
        assert found is not None
        key_id, _, _ = found["fingerprint"].split(":")
        await kept.update_one({"_id": payer.record_id}, {"$set": {"fingerprint": f"{key_id}:{'0' * 64}"}})
        again = await payer.send(_WITHDRAWALS, _ORDER)
        assert (again.status_code, again.content) == (202, first.content)
        wallet = await current(payer.account.wallet)
        assert (wallet.available, wallet.held) == (9_300, 700)
