"""The bank's callbacks at the door: only what is signed, fresh and new gets in."""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from service.database import Databases
from service.errors import InvalidSignature
from service.services.bank_callbacks import apply_callback, verify_signature
from service.settings import Settings
from service.startup import Resources
from tests.servers import Admin, fail_point

_PATH = "/webhooks/bank-callback"
_BY_NO_MAJORITY = {"code": 50, "errmsg": "operation exceeded time limit"}


@pytest.fixture(scope="module")
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Without the prefix: these tests name whole paths."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as client:
        yield client


def _body(**change: object) -> bytes:
    payload = {"type": "payment.settled", "reference": "wdr_x", "status": "success", "amount": 5, "currency": "INR"}
    return orjson.dumps(payload | change)


def _signed(
    body: bytes, settings: Settings, *, callback_id: str | None = None, age_s: float = 0, secret: str | None = None
) -> dict[str, str]:
    callback_id = callback_id or f"msg_{uuid4().hex}"
    moment = datetime.fromtimestamp(time.time() - age_s, UTC)
    webhook = Webhook(secret or settings.bank_webhook_secret.get_secret_value())
    return {
        "content-type": "application/json",
        "webhook-id": callback_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": webhook.sign(callback_id, moment, body.decode()),
    }


class TestTheDoor:
    async def test_a_signed_callback_is_kept_once_however_often_it_comes(
        self, api: httpx.AsyncClient, settings: Settings, databases: Databases
    ) -> None:
        body = _body(reference=f"wdr_{uuid4().hex}")
        headers = _signed(body, settings)
        for _ in range(3):
            response = await api.post(_PATH, content=body, headers=headers)
            assert response.status_code == 200
        kept = await databases.wallet["bank_callbacks"].find({"_id": headers["webhook-id"]}).to_list()
        assert len(kept) == 1
        assert kept[0]["payload"]["reference"] == orjson.loads(body)["reference"]

    async def test_what_no_majority_has_confirmed_is_acknowledged_at_no_repetition_either(
        self, api: httpx.AsyncClient, settings: Settings, databases: Databases, admin: Admin
    ) -> None:
        """A failover would lose it, and the bank would not send it again."""
        body = _body(reference=f"wdr_{uuid4().hex}")
        headers = _signed(body, settings)
        namespace = f"{databases.wallet.name}.bank_callbacks"
        with fail_point(admin, 2, failCommands=["insert"], namespace=namespace, writeConcernError=_BY_NO_MAJORITY):
            told = [(await api.post(_PATH, content=body, headers=headers)).status_code for _ in range(3)]
        assert told == [503, 503, 200]
        assert await databases.wallet["bank_callbacks"].count_documents({"_id": headers["webhook-id"]}) == 1

    @pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    async def test_a_missing_or_changed_header_is_refused(
        self, api: httpx.AsyncClient, settings: Settings, databases: Databases, header: str
    ) -> None:
        body = _body()
        headers = _signed(body, settings)
        kept = await databases.wallet["bank_callbacks"].count_documents({})
        without = {name: value for name, value in headers.items() if name != header}
        # A timestamp may end with 00 by itself.
        ending = "11" if headers[header].endswith("00") else "00"
        changed = {**headers, header: headers[header][:-2] + ending}
        for forged in (without, changed, {**headers, header: ""}, {**headers, header: "\N{SNOWMAN}".encode()}):
            response = await api.post(_PATH, content=body, headers=forged)  # type: ignore[arg-type]  # httpx takes bytes too
            assert response.status_code == 401, response.text
            assert response.json()["error"] == "invalid_signature"
        assert await databases.wallet["bank_callbacks"].count_documents({}) == kept

    async def test_every_flipped_byte_of_the_body_is_noticed(self, api: httpx.AsyncClient, settings: Settings) -> None:
        body = _body()
        headers = _signed(body, settings)
        for position in range(len(body)):
            flipped = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
            response = await api.post(_PATH, content=flipped, headers=headers)
            assert response.status_code == 401

    @pytest.mark.parametrize("age_s", [301, -301, 86_400])
    async def test_one_outside_the_five_minutes_is_refused(
        self, api: httpx.AsyncClient, settings: Settings, age_s: float
    ) -> None:
        body = _body()
        response = await api.post(_PATH, content=body, headers=_signed(body, settings, age_s=age_s))
        assert response.status_code == 401

    async def test_another_secret_is_refused(self, api: httpx.AsyncClient, settings: Settings) -> None:
        body = _body()
        other = "whsec_" + "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="
        response = await api.post(_PATH, content=body, headers=_signed(body, settings, secret=other))
        assert response.status_code == 401

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"{", 400),
            (b'{"type":"a","type":"b"}', 400),
            (b"[]", 422),
            (_body(amount="5"), 422),
            (_body(amount=1.5), 422),
            (_body(status="maybe"), 422),
            (_body(reference={"$gt": ""}), 422),
            (b"x" * 70_000, 413),
        ],
    )
    async def test_a_signed_body_that_makes_no_sense_is_refused(
        self, api: httpx.AsyncClient, settings: Settings, body: bytes, status: int
    ) -> None:
        response = await api.post(_PATH, content=body, headers=_signed(body, settings))
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"


class TestTwoSecrets:
    async def test_either_is_believed_while_the_bank_changes_to_another(self, resources: Resources) -> None:
        other = "whsec_" + "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="
        during = resources.settings.model_copy(update={"bank_webhook_secret_previous": SecretStr(other)})
        body = _body()
        for secret in (None, other):
            headers = _signed(body, during, secret=secret)
            assert verify_signature(body, headers, during) == headers["webhook-id"]
        with pytest.raises(InvalidSignature):
            verify_signature(body, _signed(body, during, secret=other), resources.settings)
        third = "whsec_" + "dGhpcmQtc2VjcmV0LXRoaXJkLXNlY3JldC0="
        with pytest.raises(InvalidSignature):
            verify_signature(body, _signed(body, during, secret=third), during)

    async def test_one_of_several_signatures_has_to_hold(self, settings: Settings) -> None:
        body = _body()
        headers = _signed(body, settings)
        several = {**headers, "webhook-signature": f"v1,{'A' * 43}= v2,x {headers['webhook-signature']}"}
        assert verify_signature(body, several, settings) == headers["webhook-id"]

    @pytest.mark.parametrize("age_s", [301, -301])
    async def test_neither_stretches_the_five_minutes(self, settings: Settings, age_s: float) -> None:
        both = settings.model_copy(update={"bank_webhook_secret_previous": settings.bank_webhook_secret})
        body = _body()
        with pytest.raises(InvalidSignature):
            verify_signature(body, _signed(body, both, age_s=age_s), both)


class TestWhatIsKept:
    async def _kept(self, databases: Databases, **condition: object) -> list[dict[str, Any]]:
        return await databases.wallet["bank_callbacks"].find(condition).to_list()

    async def test_a_return(self, api: httpx.AsyncClient, settings: Settings, databases: Databases) -> None:
        said = {"type": "payment.returned", "reference": f"wdr_{uuid4().hex}", "amount": 5, "currency": "INR"}
        body = orjson.dumps({**said, "bank_reference": "ret_1", "return_code": "account_closed"})
        assert (await api.post(_PATH, content=body, headers=_signed(body, settings))).status_code == 200
        (kept,) = await self._kept(databases, **{"payload.reference": said["reference"]})
        assert kept["payload"]["return_code"] == "account_closed"
        without = orjson.dumps(said)
        assert (await api.post(_PATH, content=without, headers=_signed(without, settings))).status_code == 422

    @pytest.mark.parametrize(
        "said", [{}, {"reference": {"$gt": 1}, "amount": 2**70}, {"reference": "dep_1", "$set": {"a.b": None}}]
    )
    async def test_a_type_that_is_not_known_whole_and_to_no_effect(
        self, api: httpx.AsyncClient, settings: Settings, resources: Resources, said: dict[str, Any]
    ) -> None:
        body = json.dumps({"type": "account.renamed", **said}).encode()
        headers = _signed(body, settings)
        assert (await api.post(_PATH, content=body, headers=headers)).status_code == 200
        (kept,) = await self._kept(resources.databases, _id=headers["webhook-id"])
        assert json.loads(kept["payload"]["body"]) == json.loads(body)
        await apply_callback(kept, resources.ledger)
        (kept,) = await self._kept(resources.databases, _id=headers["webhook-id"])
        assert kept["result"] == "ignored_type"

    async def test_another_body_under_a_known_id_apart_from_it_and_once(
        self, api: httpx.AsyncClient, settings: Settings, resources: Resources
    ) -> None:
        reference = f"wdr_{uuid4().hex}"
        callback_id = f"msg_{uuid4().hex}"
        first, second = [_body(reference=reference, amount=amount) for amount in (5, 6)]
        for body in (first, second, second, first):
            headers = _signed(body, settings, callback_id=callback_id)
            assert (await api.post(_PATH, content=body, headers=headers)).status_code == 200
        kept = await self._kept(resources.databases, **{"payload.reference": reference})
        rows = {row["payload"]["amount"]: row for row in kept}
        assert (rows[5]["_id"], rows[6]["reuses"], len(rows)) == (callback_id, callback_id, 2)
        await apply_callback(rows[6], resources.ledger)
        (incident,) = await resources.databases.wallet["incidents"].find({"reference": reference}).to_list()
        assert (incident["kind"], incident["said"]["amount"]) == ("message_id_reused", 6)
