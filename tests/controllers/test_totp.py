"""One's authenticator app over HTTP."""

from typing import Any, NamedTuple

import httpx
import pyotp
import pytest
from fastapi import FastAPI

from service.controllers.totp import RecoveryCodesView, TotpSecretView, TotpView
from service.database import Databases
from service.documents import User
from service.domain.clock import utc_now
from service.settings import Settings
from tests.factories import PASSWORD, bearer, make_user
from tests.payer import enrol, mailed_code

TOTP = "/api/v1/me/totp"
CONFIRM = f"{TOTP}/confirm"
CODES = f"{TOTP}/recovery-codes"
DISABLE = f"{TOTP}/disable"


class Person(NamedTuple):
    user: User
    headers: dict[str, str]


@pytest.fixture
async def person(databases: Databases, settings: Settings) -> Person:
    user = await make_user(databases)
    return Person(user, bearer(user, settings))


class TestTheWholeWay:
    async def test_from_none_to_active_and_back(self, api: httpx.AsyncClient, person: Person) -> None:
        none = {"status": "none", "recovery_codes_left": 0, "activated_at": None, "confirms_payments_from": None}
        assert (await api.get(TOTP, headers=person.headers)).json() == none

        begun = await api.post(TOTP, json={"password": PASSWORD}, headers=person.headers)
        assert begun.status_code == 201
        TotpSecretView.model_validate(begun.json())
        secret = begun.json()["secret"]
        assert begun.json()["otpauth_uri"] == pyotp.TOTP(secret).provisioning_uri(
            name=person.user.email, issuer_name="Wallet service"
        )
        pending = (await api.get(TOTP, headers=person.headers)).json()
        assert (pending["status"], pending["activated_at"]) == ("pending", None)

        now = utc_now()
        codes = {"code": pyotp.TOTP(secret).at(now), "mailed_code": await mailed_code(api, person.headers)}
        active = await api.post(CONFIRM, json=codes, headers=person.headers)
        assert active.status_code == 200
        RecoveryCodesView.model_validate(active.json())
        first, second = active.json()["recovery_codes"][:2]
        status = await api.get(TOTP, headers=person.headers)
        TotpView.model_validate(status.json())
        assert (status.json()["status"], status.json()["recovery_codes_left"]) == ("active", 10)
        assert status.json()["activated_at"].endswith("Z")

        renewed = await api.post(CODES, json={"code": first}, headers=person.headers)
        assert renewed.status_code == 200
        old = await api.post(DISABLE, json={"password": PASSWORD, "code": second}, headers=person.headers)
        assert (old.status_code, old.json()["error"], old.json()["tries_left"]) == (422, "invalid_code", 4)
        code = pyotp.TOTP(secret).at(now, counter_offset=1)
        disabled = await api.post(DISABLE, json={"password": PASSWORD, "code": code}, headers=person.headers)
        assert (disabled.status_code, disabled.json()) == (200, none)
        assert (await api.get(TOTP, headers=person.headers)).json() == none

    async def test_what_is_shown_once_is_kept_in_no_cache(self, api: httpx.AsyncClient, person: Person) -> None:
        begun = await api.post(TOTP, json={"password": PASSWORD}, headers=person.headers)
        code = pyotp.TOTP(begun.json()["secret"]).now()
        codes = {"code": code, "mailed_code": await mailed_code(api, person.headers)}
        active = await api.post(CONFIRM, json=codes, headers=person.headers)
        assert [answer.headers["Cache-Control"] for answer in (begun, active)] == ["no-store"] * 2


class TestRefusals:
    async def test_have_codes_of_their_own(self, api: httpx.AsyncClient, person: Person) -> None:
        async def refusal(path: str, **body: Any) -> tuple[int, str]:
            answer = await api.post(path, json=body, headers=person.headers)
            assert answer.headers["content-type"] == "application/problem+json"
            return answer.status_code, answer.json()["error"]

        not_enrolled = (409, "totp_not_enrolled")
        assert await refusal(CONFIRM, code="123456", mailed_code="123456") == not_enrolled
        assert await refusal(CODES, code="123456") == not_enrolled
        assert await refusal(DISABLE, password=PASSWORD, code="123456") == not_enrolled
        assert await refusal(TOTP, password="another-password-12") == (422, "wrong_password")
        await enrol(api, person.headers)
        assert await refusal(TOTP, password=PASSWORD) == (409, "totp_already_active")
        assert await refusal(CONFIRM, code="123456", mailed_code="123456") == (409, "totp_already_active")
        assert await refusal(DISABLE, password="another-password-12", code="x") == (422, "wrong_password")
        assert await refusal(CODES, code="wrong") == (422, "invalid_code")

    async def test_too_many_say_when_to_come_back(self, api: httpx.AsyncClient, person: Person) -> None:
        next_code, recovery_codes = await enrol(api, person.headers)
        for _ in range(5):
            await api.post(CODES, json={"code": "wrong"}, headers=person.headers)
        for code in (next_code, recovery_codes[0]):
            answer = await api.post(CODES, json={"code": code}, headers=person.headers)
            assert (answer.status_code, answer.json()["error"]) == (429, "too_many_attempts")
            assert 1 <= answer.json()["retry_after"] <= 900
            assert answer.headers["Retry-After"] == str(answer.json()["retry_after"])

    @pytest.mark.parametrize("path", [TOTP, CONFIRM, CODES, DISABLE])
    async def test_nobody_gets_in_without_a_token(self, api: httpx.AsyncClient, path: str) -> None:
        assert (await api.post(path, json={"password": PASSWORD, "code": "123456"})).status_code == 401
        assert (await api.get(TOTP)).status_code == 401

    async def test_a_deactivated_user_is_not_served(
        self, api: httpx.AsyncClient, person: Person, databases: Databases
    ) -> None:
        await databases.wallet["users"].update_one({"_id": person.user.id}, {"$set": {"is_active": False}})
        answer = await api.post(TOTP, json={"password": PASSWORD}, headers=person.headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "account_deactivated")

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"code": 123456},
            {"code": ""},
            {"code": "1" * 65},
            {"code": {"$gt": ""}},
            {"code": "123456", "user_id": "usr_somebody"},
        ],
        ids=str,
    )
    async def test_codes_are_text_within_bounds_and_nothing_else(
        self, api: httpx.AsyncClient, person: Person, body: dict[str, Any]
    ) -> None:
        for path in (CONFIRM, CODES):
            answer = await api.post(path, json=body, headers=person.headers)
            assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")

    async def test_the_app_of_one_user_is_nothing_to_another(
        self, api: httpx.AsyncClient, person: Person, databases: Databases, settings: Settings
    ) -> None:
        next_code, recovery_codes = await enrol(api, person.headers)
        other = Person(user := await make_user(databases), bearer(user, settings))
        assert (await api.get(TOTP, headers=other.headers)).json()["status"] == "none"
        await enrol(api, other.headers)
        for code in (next_code, recovery_codes[0]):
            answer = await api.post(CODES, json={"code": code}, headers=other.headers)
            assert answer.json()["error"] == "invalid_code"


class TestTheDocument:
    def test_every_body_and_answer_has_an_example(self, app: FastAPI) -> None:
        document = app.openapi()
        schemas = document["components"]["schemas"]
        for name in ("PasswordAgain", "ActivationRequest", "CodeRequest", "DisablingRequest", "TotpSecretView"):
            schema = schemas[name]
            assert "examples" in schema or all("examples" in field for field in schema["properties"].values()), name
        assert {path for path in document["paths"] if "/me/totp" in path} == {TOTP, CONFIRM, CODES, DISABLE}
