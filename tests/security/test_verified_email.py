"""An address that nobody has proven: it is nobody's yet, and whoever proves it first inherits nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from service.database import Databases
from service.documents import User
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.domain.totp import TotpStatus
from service.errors import TooManyAttempts
from service.gateways.mailbox import Mail, MailRefused
from service.repositories import outbox as outbox_repository
from service.repositories import totp_enrolments as enrolment_repository
from service.repositories import users as user_repository
from service.services.email_proofs import mark_addresses_proven_before
from service.services.outbox import pursue_row
from service.settings import Settings
from service.startup import Resources
from tests.controllers.test_password_changes import NEW_PASSWORD, Office, confirm
from tests.factories import PASSWORD, make_account, make_email, make_registration, make_user
from tests.logins import OUT, PASSWORD_CHANGE, Login, audit_actions
from tests.payer import Payer, enrol
from tests.refusals import refusal
from tests.staff import Staff
from tests.test_settings import in_production

_UNPROVEN: dict[str, Any] = {"email_verified_at": None}


@pytest.fixture
def office(resources: Resources, api: httpx.AsyncClient) -> Office:
    return Office(resources, api)


class Refusing:
    async def send(self, message: Mail) -> None:
        assert message.subject
        raise MailRefused(550)


class Post(NamedTuple):
    """Registering, and the worker that sends what follows."""

    office: Office

    async def register(self, email: str, **overrides: Any) -> httpx.Response:
        return await self.office.api.post("/api/v1/auth/register", json=make_registration(email=email) | overrides)

    async def confirm(self, token: str, password: str = PASSWORD) -> httpx.Response:
        return await self.office.api.post("/api/v1/auth/register/confirm", json={"token": token, "password": password})

    async def ids(self, email: str) -> list[str]:
        found: list[str] = await self.office.databases.wallet["registrations"].distinct("_id", {"email": email})
        return found

    async def rows(self, email: str) -> list[OutboxRow]:
        return [row for one in await self.ids(email) for row in await self.office.rows(OutboxTopic.EMAIL_PROOF, one)]

    async def work(self, email: str, mailbox: Any = None) -> None:
        for row in await self.rows(email):
            await pursue_row(row, self.office.desk(mailbox))

    async def mails(self, email: str) -> list[dict[str, str]]:
        await self.work(email)
        lines = Path(self.office.resources.settings.mailbox_path).read_text().splitlines()  # noqa: ASYNC240 a short file
        return [mail for mail in map(json.loads, lines) if mail["to"] == email]

    async def token(self, email: str) -> str:
        text = (await self.mails(email))[-1]["text"]
        (token,) = [word for word in text.split() if word.startswith("wev_")]
        return token


@pytest.fixture
def by_mail(office: Office, monkeypatch: pytest.MonkeyPatch) -> Post:
    monkeypatch.setattr(Settings, "registers_by_mail", True)
    return Post(office)


class TestAnUnprovenAddress:
    async def test_cannot_be_paid_until_its_owner_has_proven_it(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, office: Office
    ) -> None:
        sender = await Payer.with_balance(api, databases, settings, 10_000)
        squatter = (await make_account(databases, **_UNPROVEN)).user
        assert refusal(await sender.send(to_email=squatter.email)) == (404, "recipient_not_found")
        assert (await confirm(api, await office.reset_token(squatter))).status_code == 204
        assert (await sender.send(to_email=squatter.email)).status_code == 201

    async def test_gets_no_notices(self, databases: Databases, office: Office) -> None:
        for proven, mails in (({}, 1), (_UNPROVEN, 0)):
            user = await make_user(databases, **proven)
            row = outbox_row(OutboxTopic.PASSWORD_NOTICE, user.id, None, utc_now())
            await outbox_repository.insert_many([row], session=None)
            await pursue_row(row, office.desk())
            assert len(office.mails(user)) == mails


class TestLookingForAddresses:
    async def test_makes_who_misses_often_wait_and_nobody_else(
        self,
        api: httpx.AsyncClient,
        databases: Databases,
        settings: Settings,
        resources: Resources,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(resources.login_guard, "_misses", 3)
        sender = await Payer.with_balance(api, databases, settings, 10_000)
        known = (await make_account(databases)).user.email
        # What is found counts for nothing.
        for email, status in ((known, 201), (make_email(), 404), (known, 201), (known, 201), (make_email(), 404)):
            assert (await sender.send(to_email=email)).status_code == status
        batch = [{"to_email": make_email()} for _ in range(5)]
        assert (await sender.batch("best_effort", batch)).status_code == 201
        held_off = await sender.send(to_email=known)
        assert refusal(held_off) == (429, "too_many_attempts")
        assert int(held_off.headers["Retry-After"]) >= 1
        other = await Payer.with_balance(api, databases, settings, 10_000)
        assert (await other.send(to_email=known)).status_code == 201

    async def test_counts_all_addresses_of_a_batch_before_they_are_looked_up(
        self, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        guard = resources.login_guard
        monkeypatch.setattr(guard, "_misses", 3)
        user_id = new_id(Prefix.USER)
        # Four at once: one may look for its hundred, and the others wait until it is known what it found.
        begun = await asyncio.gather(*(guard.begin_look_up(user_id, 100) for _ in range(4)), return_exceptions=True)
        (attempt,) = [one for one in begun if not isinstance(one, BaseException)]
        assert [type(one) for one in begun].count(TooManyAttempts) == 3
        await guard.end_look_up(attempt, user_id, 1)
        # Of a hundred one missed: two more may.
        again = await guard.begin_look_up(user_id, 2)
        await guard.end_look_up(again, user_id, 2)
        with pytest.raises(TooManyAttempts):
            await guard.begin_look_up(user_id, 1)


class TestTheFirstProof:
    async def test_ends_whatever_was_made_before_it(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, office: Office
    ) -> None:
        """Somebody registers with an address that is not theirs, and waits for its owner to come."""
        squatter = await Login.of_somebody(api, databases, roles=["user", "service"], **_UNPROVEN)
        app = await squatter.post("/api/v1/me/totp", {"password": PASSWORD})
        assert app.status_code in (200, 201, 202), app.text
        hook = await squatter.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/events"})
        assert hook.status_code == 201, hook.text
        admin = await Staff.hire(api, databases, settings, "admin")
        key = await admin.post("/admin/api-keys", user_id=squatter.user.id, name="A key", permissions=["wallets:read"])
        assert key.status_code == 201, key.text

        assert (await confirm(api, await office.reset_token(squatter.user))).status_code == 204

        assert refusal(await api.get("/api/v1/me", headers=squatter.headers)) == OUT
        assert (await squatter.refresh()).status_code == 401
        by_key = await api.get("/api/v1/wallets", headers={"X-API-Key": key.json()["secret"]})
        assert by_key.status_code == 401
        owner = await Login.of(api, squatter.user, NEW_PASSWORD)
        me = (await api.get("/api/v1/me", headers=owner.headers)).json()
        assert me["is_email_verified"] is True
        assert (await api.get("/api/v1/webhook-endpoints", headers=owner.headers)).json()["data"] == []
        totp = (await api.get("/api/v1/me/totp", headers=owner.headers)).json()
        assert totp["status"] == "none"
        assert "user.email_verified" in await audit_actions(databases, squatter.user)

    async def test_is_no_change_of_the_password_by_who_knows_it(
        self, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        squatter = await Login.of_somebody(api, databases, **_UNPROVEN)
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert (await squatter.post(PASSWORD_CHANGE, body)).status_code == 200
        after = await user_repository.find(squatter.user.id)
        assert after is not None
        assert after.email_verified_at is None

    async def test_is_the_only_one_that_ends_anything(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        user = await Login.of_somebody(api, databases)
        assert (await user.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/events"})).status_code == 201
        assert (await confirm(api, await office.reset_token(user.user))).status_code == 204
        owner = await Login.of(api, user.user, NEW_PASSWORD)
        assert len((await api.get("/api/v1/webhook-endpoints", headers=owner.headers)).json()["data"]) == 1
        assert "user.email_verified" not in await audit_actions(databases, user.user)


class TestRegisteringByMail:
    async def test_answers_alike_whoever_has_the_address_and_writes_alike(
        self, databases: Databases, by_mail: Post
    ) -> None:
        known, unknown = (await make_user(databases)).email, make_email()
        answers, ids = [], []
        for email in (known, unknown):
            answer = await by_mail.register(email)
            answers.append((answer.status_code, answer.json()))
            ids.append(await databases.wallet["registrations"].count_documents({"email": email}))
        assert answers[0] == answers[1]
        assert answers[0][0] == 202
        assert ids == [1, 1]
        assert await user_repository.find_by_email(unknown) is None

    async def test_opens_the_account_with_the_token_of_the_mail_and_the_password(
        self, api: httpx.AsyncClient, databases: Databases, by_mail: Post
    ) -> None:
        email = make_email()
        await by_mail.register(email)
        token = await by_mail.token(email)
        assert refusal(await by_mail.confirm(token, "another-password-41")) == (422, "invalid_proof_token")
        answers = await asyncio.gather(*(by_mail.confirm(token) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 422, 422, 422]
        (opened,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert (opened["email"], opened["is_email_verified"]) == (email, True)
        assert await databases.wallet["wallets"].count_documents({"user_id": opened["id"]}) == 1
        login = await api.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
        assert login.status_code == 200

    async def test_tells_the_owner_of_an_account_and_nobody_else(self, databases: Databases, by_mail: Post) -> None:
        user = await make_user(databases)
        await by_mail.register(user.email)
        (mail,) = await by_mail.mails(user.email)
        assert "an account with it already" in mail["text"]
        assert "wev_" not in mail["text"]
        after = await user_repository.find(user.id)
        assert after is not None
        assert after.password_hash == user.password_hash

    async def test_holds_no_address_against_its_owner(
        self, api: httpx.AsyncClient, databases: Databases, by_mail: Post
    ) -> None:
        """Of a squatter's registration and the owner's, the owner's counts; so it does where there is an account."""
        squatter = await Login.of_somebody(api, databases, **_UNPROVEN)
        email = squatter.user.email
        await by_mail.register(email, first_name="Eve", password="squatters-own-word-77")
        first = await by_mail.token(email)
        await by_mail.register(email, first_name="Olga")
        assert refusal(await by_mail.confirm(first, "nobodys-own-word-77")) == (422, "invalid_proof_token")
        confirmed = await by_mail.confirm(await by_mail.token(email))
        assert confirmed.status_code == 200, confirmed.text
        assert (confirmed.json()["id"], confirmed.json()["first_name"]) == (squatter.user.id, "Olga")
        assert refusal(await api.get("/api/v1/me", headers=squatter.headers)) == OUT
        # Nor does the squatter's token open anything any more.
        again = await by_mail.confirm(first, "squatters-own-word-77")
        assert refusal(again) == (422, "invalid_proof_token")
        await Login.of(api, squatter.user)

    async def test_is_not_kept_from_the_owner_by_strangers_who_use_the_mails_up(self, by_mail: Post) -> None:
        email = make_email()
        for number in range(5):
            await by_mail.register(email, first_name="Eve", password=f"squatters-own-word-{number}")
        token = await by_mail.token(email)
        await by_mail.register(email, first_name="Olga")
        # No mail of the owner's own registration comes, and none is needed.
        assert len(await by_mail.mails(email)) == 3
        confirmed = await by_mail.confirm(token)
        assert confirmed.status_code == 200, confirmed.text
        assert confirmed.json()["first_name"] == "Olga"

    async def test_fills_nobodys_mailbox(self, by_mail: Post) -> None:
        email = make_email()
        for _ in range(5):
            await by_mail.register(email)
        assert len(await by_mail.mails(email)) == 3

    async def test_of_a_made_up_address_leaves_nothing_to_look_at(self, databases: Databases, by_mail: Post) -> None:
        email = make_email()
        await by_mail.register(email)
        await by_mail.work(email, Refusing())
        assert (
            await databases.wallet["dead_letters"].count_documents({"subject_id": {"$in": await by_mail.ids(email)}})
            == 0
        )
        assert await by_mail.rows(email) == []

    async def test_is_what_production_does(self) -> None:
        assert in_production().registers_by_mail
        assert not Settings(_env_file=None).registers_by_mail


class TestRegisteringAtOnce:
    async def test_leaves_the_address_unproven_until_the_mails_token_is_sent(self, office: Office) -> None:
        """In development: the account is there at once."""
        post, email = Post(office), make_email()
        registered = await post.register(email)
        assert registered.status_code == 201
        assert registered.json()["user"]["is_email_verified"] is False
        confirmed = await post.confirm(await post.token(email))
        assert (confirmed.json()["id"], confirmed.json()["is_email_verified"]) == (
            registered.json()["user"]["id"],
            True,
        )


class TestUsersOfOldData:
    async def test_with_an_app_in_use_keep_it_when_they_reset_their_password(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        login = await Login.of_somebody(api, databases)
        await enrol(api, login.headers)
        await databases.wallet["users"].update_one({"_id": login.user.id}, {"$unset": {"email_verified_at": ""}})
        await mark_addresses_proven_before()
        assert (await confirm(api, await office.reset_token(login.user))).status_code == 204
        enrolment = await enrolment_repository.find(login.user.id)
        assert enrolment is not None
        assert enrolment.status is TotpStatus.ACTIVE

    async def test_have_proven_their_address_where_they_reset_their_password_by_mail(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        reset, other = (await make_account(databases)).user, await make_user(databases)
        assert (await confirm(api, await office.reset_token(reset))).status_code == 204
        ids = [reset.id, other.id]
        await databases.wallet["users"].update_many({"_id": {"$in": ids}}, {"$unset": {"email_verified_at": ""}})
        for _ in range(2):
            await mark_addresses_proven_before()
            found: list[User | None] = [await user_repository.find(user_id) for user_id in ids]
            assert [user is not None and user.email_verified_at is not None for user in found] == [True, False]
