"""Registering and logging in, over HTTP."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from service.database import Databases
from service.documents import User
from service.repositories import users as user_repository
from service.services.access_tokens import verify_access_token
from service.settings import Settings
from tests.factories import PASSWORD, make_email, make_registration, make_user
from tests.servers import Admin, fail_point

REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"


def pointers(answer: httpx.Response) -> list[str]:
    return [field["pointer"] for field in answer.json()["errors"]]


class TestRegistering:
    async def test_answers_with_the_user_and_a_wallet_in_the_default_currency(self, api: httpx.AsyncClient) -> None:
        body = make_registration(first_name="Asha", last_name="Rao")
        answer = await api.post(REGISTER, json=body)
        assert answer.status_code == 201
        user, wallet = answer.json()["user"], answer.json()["wallet"]
        assert user == {
            "id": user["id"],
            "email": body["email"],
            "first_name": "Asha",
            "last_name": "Rao",
            "roles": ["user"],
            "is_active": True,
            "is_email_verified": False,
            "created_at": user["created_at"],
        }
        assert (wallet["user_id"], wallet["currency"], wallet["status"]) == (user["id"], "INR", "active")
        assert (wallet["available"], wallet["held"], wallet["balance"], wallet["seq"]) == (0, 0, 0, 0)

    async def test_keeps_a_hash_and_not_the_password(self, api: httpx.AsyncClient) -> None:
        body = make_registration()
        await api.post(REGISTER, json=body)
        user = await user_repository.find_by_email(body["email"])
        assert user is not None
        assert user.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    async def test_an_e_mail_in_other_capitals_is_the_same_account(self, api: httpx.AsyncClient) -> None:
        body = make_registration()
        assert (await api.post(REGISTER, json=body)).status_code == 201
        again = await api.post(REGISTER, json=body | {"email": body["email"].upper()})
        assert (again.status_code, again.json()["error"]) == (409, "email_taken")

    @pytest.mark.parametrize(("one", "other"), [("strasse.example", "straße.example"), ("example.com", "example.com")])
    async def test_an_e_mail_at_another_domain_or_box_is_another_account(
        self, api: httpx.AsyncClient, one: str, other: str
    ) -> None:
        """What is mailed, tokens among it, would go to whoever has the one that is spelt alike."""
        name = uuid4().hex
        for email in (f"{name}ss@{one}", f"{name}ß@{other}"):
            answer = await api.post(REGISTER, json=make_registration() | {"email": email})
            assert (answer.status_code, answer.json()["user"]["email"]) == (201, email)

    async def test_of_many_at_once_with_one_e_mail_one_gets_it(
        self, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        body = make_registration()
        answers = await asyncio.gather(*(api.post(REGISTER, json=body) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
        user = await user_repository.find_by_email(body["email"])
        assert user is not None
        assert await databases.wallet["wallets"].count_documents({"user_id": user.id}) == 1

    async def test_a_wallet_that_cannot_be_made_leaves_no_user(
        self, api: httpx.AsyncClient, databases: Databases, admin: Admin
    ) -> None:
        body = make_registration()
        namespace = f"{databases.wallet.name}.wallets"
        with fail_point(admin, 1, failCommands=["insert"], namespace=namespace, errorCode=121):
            answer = await api.post(REGISTER, json=body)
        assert answer.status_code == 500
        assert await user_repository.find_by_email(body["email"]) is None

    async def test_survives_a_write_conflict(self, api: httpx.AsyncClient, databases: Databases, admin: Admin) -> None:
        conflict = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
        namespace = f"{databases.wallet.name}.wallets"
        with fail_point(admin, 3, failCommands=["insert"], namespace=namespace, **conflict):
            answer = await api.post(REGISTER, json=make_registration())
        assert answer.status_code == 201
        wallets = databases.wallet["wallets"].count_documents({"user_id": answer.json()["user"]["id"]})
        assert await wallets == 1

    @pytest.mark.parametrize(
        ("wrong", "pointer"),
        [
            ({"email": "no address"}, "/email"),
            ({"email": "Asha <asha@example.com>"}, "/email"),
            ({"email": {"$gt": ""}}, "/email"),
            ({"password": "short"}, "/password"),
            ({"password": "password1234"}, "/password"),
            ({"password": "x" * 129}, "/password"),
            ({"password": "violet\0kettle harbour"}, "/password"),
            ({"first_name": ""}, "/first_name"),
            ({"first_name": "   "}, "/first_name"),
            ({"first_name": "x" * 101}, "/first_name"),
            ({"last_name": "Rao\nuser.logged_in"}, "/last_name"),
            ({"last_name": "Rao\0"}, "/last_name"),
            ({"last_name": "\u202eoaR"}, "/last_name"),
            ({"last_name": 7}, "/last_name"),
            ({"roles": ["admin"]}, "/roles"),
            ({"is_active": True}, "/is_active"),
        ],
    )
    async def test_refuses_a_wrong_field_by_name_and_without_repeating_it(
        self, api: httpx.AsyncClient, wrong: dict[str, Any], pointer: str
    ) -> None:
        body = make_registration(**wrong)
        answer = await api.post(REGISTER, json=body)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")
        assert answer.headers["content-type"] == "application/problem+json"
        assert pointers(answer) == [pointer]
        assert PASSWORD not in answer.text
        if isinstance(body["email"], str):
            assert await user_repository.find_by_email(body["email"]) is None

    async def test_a_lone_surrogate_is_malformed(self, api: httpx.AsyncClient) -> None:
        text = '{"first_name":"\\ud800","last_name":"Rao","email":"a@example.com","password":"violet-kettle-41-x"}'
        answer = await api.post(REGISTER, content=text, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (400, "malformed_request")

    @pytest.mark.parametrize("name", ["Zoë", "O'Brien-Smith Jr.", "नीलम", "मी\u200cना", "李小龍"])
    async def test_takes_names_from_everywhere(self, api: httpx.AsyncClient, name: str) -> None:
        answer = await api.post(REGISTER, json=make_registration(last_name=name))
        assert answer.status_code == 201
        assert answer.json()["user"]["last_name"] == name


class TestLoggingIn:
    async def test_gives_a_token_for_the_user(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases, roles=["user", "admin"], token_version=3)
        answer = await api.post(LOGIN, json={"email": user.email, "password": PASSWORD})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert (body["token_type"], body["expires_in"], body["user"]["id"]) == ("bearer", 900, user.id)
        token = verify_access_token(body["access_token"], settings)
        assert (token.user_id, token.roles, token.token_version) == (user.id, ("user", "admin"), 3)
        assert token.session_id.startswith("ses_")

    async def test_takes_the_e_mail_in_other_capitals(self, api: httpx.AsyncClient, databases: Databases) -> None:
        user = await make_user(databases)
        answer = await api.post(LOGIN, json={"email": user.email.upper(), "password": PASSWORD})
        assert answer.status_code == 200

    async def test_unknown_wrong_and_deactivated_are_told_alike(
        self, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        active, deactivated = await make_user(databases), await make_user(databases, is_active=False)
        answers = [
            await api.post(LOGIN, json={"email": email, "password": password})
            for email, password in (
                (make_email(), PASSWORD),
                ("no address", PASSWORD),
                (active.email, "another-kettle-41"),
                (deactivated.email, PASSWORD),
                (deactivated.email, "another-kettle-41"),
            )
        ]
        problems = [answer.json() for answer in answers]
        for problem in problems:
            del problem["request_id"]
        assert problems == [problems[0]] * 5
        assert problems[0]["error"] == "invalid_credentials"
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}

    @pytest.mark.parametrize(
        "body",
        [
            {"email": {"$gt": ""}, "password": {"$gt": ""}},
            {"email": "a@example.com", "password": None},
            {"email": "a@example.com"},
            {"email": "a@example.com", "password": PASSWORD, "otp": "1"},
            ["a@example.com", PASSWORD],
            "a@example.com",
        ],
    )
    async def test_refuses_other_shapes(self, api: httpx.AsyncClient, body: Any) -> None:
        answer = await api.post(LOGIN, json=body)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")


class TestLogs:
    @staticmethod
    async def _login(api: httpx.AsyncClient, user: User, password: str) -> list[Any]:
        with capture_logs() as logs:
            await api.post(LOGIN, json={"email": user.email, "password": password})
        return logs

    async def test_name_the_user_and_hold_neither_e_mail_nor_password(
        self, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        body = make_registration()
        with capture_logs() as logs:
            registered = (await api.post(REGISTER, json=body)).json()["user"]
        user = await make_user(databases)
        good = await self._login(api, user, PASSWORD)
        bad = await self._login(api, user, "another-kettle-41")
        events = [(line["event"], line.get("user_id")) for line in logs + good + bad]
        assert ("user.registered", registered["id"]) in events
        assert ("user.logged_in", user.id) in events
        assert ("user.login_refused", user.id) in events
        told = str(logs + good + bad)
        for secret in (body["email"], user.email, PASSWORD, "another-kettle-41", "$argon2id$", "eyJ"):
            assert secret not in told
