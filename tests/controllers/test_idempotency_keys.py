"""What an Idempotency-Key stands for: the request as it was sent, whatever a release makes of its fields."""

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import SecretStr

from service.controllers.dependencies import IdempotencyKey, claim_key
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.database import Databases
from service.domain.operations import Operation
from service.repositories import records as record_repository
from service.settings import Settings
from service.startup import Resources
from tests.factories import (
    Account,
    bearer,
    change,
    current,
    make_account,
    run,
    settlement_of,
    transfer_of,
)
from tests.servers import Admin

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


@pytest.fixture
async def recipient(databases: Databases) -> Account:
    return await make_account(databases)


Forget = Callable[[], None]


@pytest.fixture
def forget(admin: Admin, databases: Databases, payer: Payer) -> Forget:
    """The retention is over: MongoDB removes the keys' answers, which the service's own user may not."""
    keys = admin[databases.wallet.name]["idempotency_keys"]

    def forget() -> None:
        assert keys.delete_many({"_id": {"$regex": f"^{payer.account.user.id}:"}}).deleted_count > 0

    return forget


def request_of(kind: str, payer: Payer, recipient: Account) -> tuple[str, dict[str, Any]]:
    own, others = payer.account.wallet.id, recipient.wallet.id
    pay: dict[str, Any] = {"amount": 700, "currency": "INR"}
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "deposit": ("/api/v1/deposits", pay | {"source": "bank-account-0001"}),
        "withdrawal": (_WITHDRAWALS, pay | {"destination": "bank-account-0001"}),
        "transfer": ("/api/v1/transfers", pay | {"from_wallet_id": own, "to_wallet_id": others}),
        "batch": (
            "/api/v1/transfers/batch",
            {
                "mode": "best_effort",
                "transfers": [
                    pay | {"from_wallet_id": own, "to_wallet_id": others, "amount": amount}
                    for amount in (1_000, 20_000, 2_000)
                ],
            },
        ),
        "hold": ("/api/v1/holds", pay | {"wallet_id": own}),
    }
    return requests[kind]


_KINDS = ["deposit", "withdrawal", "transfer", "batch", "hold"]


class TestAKeyWhoseAnswerIsForgotten:
    """The operation that it made is still there, open or long ended."""

    @pytest.mark.parametrize("kind", _KINDS)
    async def test_shows_what_it_made_instead_of_making_it_again(
        self, payer: Payer, recipient: Account, forget: Forget, kind: str
    ) -> None:
        path, body = request_of(kind, payer, recipient)
        first = await payer.send(path, body)
        before = await current(payer.account.wallet)
        forget()
        again = await payer.send(path, body)
        assert (again.status_code, again.headers.get("Idempotent-Replayed")) == (first.status_code, "true"), again.text
        assert again.json()["id"] == first.json()["id"]
        assert await current(payer.account.wallet) == before
        # Kept anew, so that it is given to the byte from here on.
        assert (await payer.send(path, body)).content == again.content

    @pytest.mark.parametrize("kind", ["withdrawal", "transfer", "batch", "hold"])
    async def test_shows_what_it_made_where_it_would_be_refused_today(
        self, payer: Payer, recipient: Account, databases: Databases, forget: Forget, kind: str
    ) -> None:
        path, body = request_of(kind, payer, recipient)
        first = await payer.send(path, body)
        left = (await current(payer.account.wallet)).available
        await run(databases, transfer_of(await current(payer.account.wallet), recipient.wallet, left))
        forget()
        again = await payer.send(path, body)
        assert (again.status_code, again.headers.get("Idempotent-Replayed")) == (first.status_code, "true"), again.text
        assert again.json()["id"] == first.json()["id"]

    async def test_shows_the_operation_as_it_has_become(
        self, payer: Payer, databases: Databases, forget: Forget
    ) -> None:
        made = (await payer.send(_WITHDRAWALS, _ORDER)).json()
        operation = await record_repository.find(made["id"], Operation)
        assert operation is not None
        await change(databases, settlement_of(operation))
        forget()
        again = await payer.send(_WITHDRAWALS, _ORDER)
        assert (again.status_code, again.json()["status"]) == (202, "success")

    @pytest.mark.parametrize("kind", _KINDS)
    async def test_is_refused_for_another_request(
        self, payer: Payer, recipient: Account, forget: Forget, kind: str
    ) -> None:
        path, body = request_of(kind, payer, recipient)
        await payer.send(path, body)
        before = await current(payer.account.wallet)
        forget()
        changed = body | ({"mode": "all_or_nothing"} if kind == "batch" else {"amount": 701})
        answer = await payer.send(path, changed)
        assert (answer.status_code, answer.json()["error"]) == (422, "idempotency_key_reused")
        assert await current(payer.account.wallet) == before

    async def test_says_of_a_batch_which_parts_were_not_made(
        self, payer: Payer, recipient: Account, forget: Forget
    ) -> None:
        path, body = request_of("batch", payer, recipient)
        first = (await payer.send(path, body)).json()
        forget()
        again = (await payer.send(path, body)).json()
        assert (again["accepted"], again["refused"]) == (2, 1)
        assert [one["status"] for one in again["results"]] == ["success", "refused", "success"]
        assert again["results"][1]["error"]["error"] == "refused_earlier"
        assert [one["transfer"]["id"] for one in again["results"] if "transfer" in one] == [
            one["transfer"]["id"] for one in first["results"] if "transfer" in one
        ]

    async def test_is_another_key_for_somebody_else(
        self, api: httpx.AsyncClient, payer: Payer, databases: Databases, settings: Settings
    ) -> None:
        other = Payer(api, await make_account(databases, balance=10_000), settings)
        first = await payer.send(_WITHDRAWALS, _ORDER)
        second = await other.send(_WITHDRAWALS, _ORDER, payer.key)
        assert (first.status_code, second.status_code) == (202, 202)
        assert first.json()["id"] != second.json()["id"]

    async def test_is_known_while_the_encryption_key_before_is_configured(
        self, payer: Payer, forget: Forget, settings: Settings, app: FastAPI, resources: Resources
    ) -> None:
        first = await payer.send(_WITHDRAWALS, _ORDER)
        forget()
        rotated = settings.model_copy(
            update={
                "encryption_key": SecretStr(b64encode(b"n" * 32).decode()),
                "encryption_key_previous": settings.encryption_key,
            }
        )
        app.state.resources = resources._replace(settings=rotated)
        try:
            again = await payer.send(_WITHDRAWALS, _ORDER)
        finally:
            app.state.resources = resources
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])

    async def test_stands_nowhere_in_the_record(self, payer: Payer, databases: Databases) -> None:
        made = (await payer.send(_WITHDRAWALS, _ORDER)).json()
        row = await databases.wallet["withdrawals"].find_one({"_id": made["id"]})
        assert row is not None
        assert payer.key not in str(row)
        assert len(row["tombstone"]["key_hashes"]) == 1

    async def test_of_a_record_without_a_tombstone_is_free(
        self, payer: Payer, databases: Databases, forget: Forget
    ) -> None:
        """As of those that the release before made."""
        made = (await payer.send(_WITHDRAWALS, _ORDER)).json()
        await databases.wallet["withdrawals"].update_one({"_id": made["id"]}, {"$unset": {"tombstone": 1}})
        forget()
        again = (await payer.send(_WITHDRAWALS, _ORDER)).json()
        assert again["id"] != made["id"]
        assert (await payer.api.get(f"{_WITHDRAWALS}/{made['id']}", headers=payer.headers)).status_code == 200

    def test_is_looked_for_by_an_index(self, admin: Admin, databases: Databases) -> None:
        """Each refusal looks for it; a collection has no end."""
        wanted = {"tombstone.key_hashes": {"$in": ["0" * 32, "1" * 32]}}
        for name in ("deposits", "withdrawals", "transfers", "holds", "adjustments", "redemptions"):
            plan = admin[databases.wallet.name].command("explain", {"find": name, "filter": wanted})
            assert "'indexName': 'made_once'" in str(plan["queryPlanner"]["winningPlan"]), name
