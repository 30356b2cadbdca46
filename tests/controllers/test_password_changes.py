"""New passwords over HTTP: by the old one, and by a token that came by mail; who is out afterwards, and who is told."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from structlog.testing import capture_logs

from service.controllers.auth import TokensView
from service.controllers.password_changes import PasswordResetView
from service.database import Databases
from service.documents import User
from service.domain.clock import utc_now
from service.domain.outbox import OutboxRow, OutboxTopic
from service.domain.password_resets import MAILS_WINDOW, RESET_TOKEN_LENGTH
from service.gateways.mailbox import Mail, MailboxUnavailable
from service.repositories import outbox as outbox_repository
from service.services.outbox import pursue_row
from service.services.settlement import Desk
from service.startup import Resources
from tests.factories import PASSWORD, bearer, make_account, make_email
from tests.logins import (
    LOGIN,
    LOGOUT_ALL,
    OUT,
    PASSWORD_CHANGE,
    REFUSED,
    RESET,
    RESET_CONFIRM,
    Login,
    audit_actions,
)
from tests.payer import enrol
from tests.refusals import refusal

_TIMES = 20
NEW_PASSWORD = "amber-saddle-lantern-77"
OTHER_PASSWORD = "copper-window-glacier-12"
INVALID_TOKEN = (422, "invalid_reset_token")
WRONG_CREDENTIALS = (401, "invalid_credentials")


class Office(NamedTuple):
    """The worker's side of it, and the mailbox."""

    resources: Resources
    api: httpx.AsyncClient

    @property
    def databases(self) -> Databases:
        return self.resources.databases

    def desk(self, mailbox: Any = None) -> Desk:
        bank, settings = self.resources.bank, self.resources.settings
        mailbox = mailbox or self.resources.mailbox
        return Desk(self.resources.ledger, bank, mailbox, settings, self.databases.client)

    async def rows(self, topic: OutboxTopic, subject: str) -> list[OutboxRow]:
        found = self.databases.wallet["outbox"].find({"topic": topic, "subject_id": subject})
        return [outbox_repository._from_row(row) for row in await found.to_list()]

    async def work(self, user: User) -> None:
        """All that waits for somebody."""
        for topic, subject in (
            (OutboxTopic.PASSWORD_RESET, user.email),
            (OutboxTopic.PASSWORD_NOTICE, user.id),
        ):
            for row in await self.rows(topic, subject):
                await pursue_row(row, self.desk())

    def mails(self, user: User) -> list[dict[str, str]]:
        """Oldest first."""
        path = Path(self.resources.settings.mailbox_path)
        lines = path.read_text().splitlines() if path.exists() else []
        return [mail for mail in map(json.loads, lines) if mail["to"] == user.email]

    async def reset_token(self, user: User) -> str:
        """As it stands in the mail that was asked for."""
        answer = await self.ask(user.email)
        assert answer.status_code == 202, answer.text
        await self.work(user)
        return token_in([mail for mail in self.mails(user) if "wpr_" in mail["text"]][-1])

    async def ask(self, email: str) -> httpx.Response:
        return await self.api.post(RESET, json={"email": email})


def token_in(mail: dict[str, str]) -> str:
    (token,) = [word for word in mail["text"].split() if word.startswith("wpr_")]
    return token


@pytest.fixture
def office(resources: Resources, api: httpx.AsyncClient) -> Office:
    return Office(resources, api)


@pytest.fixture
async def login(api: httpx.AsyncClient, databases: Databases) -> Login:
    return await Login.of_somebody(api, databases)


@pytest.fixture
def guarded(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is outside of tests, where WALLET_LOGIN_TRIES is not 0."""
    monkeypatch.setattr(resources.login_guard, "_tries", 5)


async def change(login: Login, current: str = PASSWORD, new: str = NEW_PASSWORD) -> httpx.Response:
    return await login.post(PASSWORD_CHANGE, {"current_password": current, "new_password": new})


async def confirm(api: httpx.AsyncClient, token: str, new: str = NEW_PASSWORD) -> httpx.Response:
    return await api.post(RESET_CONFIRM, json={"token": token, "new_password": new})


async def try_password(api: httpx.AsyncClient, user: User, password: str) -> httpx.Response:
    return await api.post(LOGIN, json={"email": user.email, "password": password})


async def user_row(databases: Databases, user: User) -> dict[str, Any]:
    row = await databases.wallet["users"].find_one({"_id": user.id})
    assert row is not None
    return row


class TestChanging:
    async def test_puts_everybody_out_and_the_caller_in_anew(
        self, api: httpx.AsyncClient, databases: Databases, login: Login
    ) -> None:
        elsewhere = await Login.of(api, login.user)
        answer = await change(login)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert TokensView.model_validate(answer.json()).model_dump(mode="json") == answer.json()
        for one in (login, elsewhere):
            assert refusal(await one.refresh()) == REFUSED
            assert refusal(await one.deposit()) == OUT
        fresh = Login.with_tokens(api, login.user, answer.json())
        assert (await fresh.deposit()).status_code == 202
        (session,) = await fresh.sessions()
        assert session["is_current"]
        assert (await fresh.refresh()).status_code == 200
        assert refusal(await try_password(api, login.user, PASSWORD)) == WRONG_CREDENTIALS
        assert (await try_password(api, login.user, NEW_PASSWORD)).status_code == 200
        assert (await user_row(databases, login.user))["token_version"] == 1

    async def test_is_told_by_mail_once(self, login: Login, office: Office) -> None:
        await change(login)
        (row,) = await office.rows(OutboxTopic.PASSWORD_NOTICE, login.user.id)
        for _ in range(2):
            await pursue_row(row, office.desk())
        first, again = office.mails(login.user)
        assert first == again
        assert first["subject"] == "Your password was changed"
        assert NEW_PASSWORD not in first["text"]
        assert await office.rows(OutboxTopic.PASSWORD_NOTICE, login.user.id) == []

    async def test_asks_for_the_password_that_there_is(self, login: Login, databases: Databases) -> None:
        before = await user_row(databases, login.user)
        assert refusal(await change(login, OTHER_PASSWORD)) == (422, "wrong_password")
        assert await user_row(databases, login.user) == before
        assert (await login.refresh()).status_code == 200

    @pytest.mark.usefixtures("guarded")
    async def test_lets_nobody_guess_who_has_a_stolen_token(self, login: Login) -> None:
        # The waits double: even where all is slow, one is met with soon.
        answers = [await change(login, f"{OTHER_PASSWORD}-{number}") for number in range(12)]
        assert [refusal(answer) for answer in answers[:5]] == [(422, "wrong_password")] * 5
        held_off = [answer for answer in answers if refusal(answer) == (429, "too_many_attempts")]
        assert held_off
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in held_off)

    @pytest.mark.parametrize("wrong", ["short", "x" * 129, "password1234", "violet\0kettle harbour", ""])
    async def test_refuses_what_a_registration_refuses(self, login: Login, databases: Databases, wrong: str) -> None:
        answer = await change(login, new=wrong)
        assert refusal(answer) == (422, "invalid_fields")
        assert [field["pointer"] for field in answer.json()["errors"]] == ["/new_password"]
        assert (await user_row(databases, login.user))["token_version"] == 0

    async def test_refuses_ones_own_name(self, api: httpx.AsyncClient, databases: Databases) -> None:
        login = await Login.of_somebody(api, databases, first_name="Bartholomew")
        assert refusal(await change(login, new="bartholomew1")) == (422, "invalid_fields")

    @pytest.mark.parametrize(
        "body",
        [{}, {"new_password": NEW_PASSWORD}, {"current_password": PASSWORD}, {"current_password": {"$ne": ""}}, []],
    )
    async def test_refuses_other_shapes(self, login: Login, body: Any) -> None:
        assert refusal(await login.post(PASSWORD_CHANGE, body)) == (422, "invalid_fields")

    async def test_takes_a_token_that_holds(self, api: httpx.AsyncClient, login: Login, databases: Databases) -> None:
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert refusal(await api.post(PASSWORD_CHANGE, json=body)) == OUT
        await login.post(LOGOUT_ALL)
        assert refusal(await change(login)) == OUT
        again = await Login.of(api, login.user)
        await databases.wallet["users"].update_one({"_id": login.user.id}, {"$set": {"is_active": False}})
        assert refusal(await change(again)) == (403, "account_deactivated")

    async def test_of_two_at_once_one_password_stands(self, api: httpx.AsyncClient, databases: Databases) -> None:
        for _ in range(_TIMES):
            login = await Login.of_somebody(api, databases)
            new = (NEW_PASSWORD, OTHER_PASSWORD)
            answers = await asyncio.gather(*(change(login, PASSWORD, one) for one in new))
            assert sorted(answer.status_code for answer in answers) == [200, 401]
            (chosen,) = [one for one, answer in zip(new, answers, strict=True) if answer.status_code == 200]
            assert (await try_password(api, login.user, chosen)).status_code == 200
            assert (await audit_actions(databases, login.user)).count("user.password_changed") == 1


class TestAskingForAReset:
    async def test_is_answered_alike_whoever_it_is(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        user, out = [(await make_account(databases, is_active=active)).user for active in (True, False)]
        nobody = make_email()
        answers = [await api.post(RESET, json={"email": email}) for email in (user.email, out.email, nobody)]
        assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
        PasswordResetView.model_validate(answers[0].json())
        # Alike in what is done, too: one row each, and nobody has been looked up yet.
        for email in (user.email, out.email, nobody):
            (row,) = await office.rows(OutboxTopic.PASSWORD_RESET, email)
            await pursue_row(row, office.desk())
            assert await office.rows(OutboxTopic.PASSWORD_RESET, email) == []
        assert len(office.mails(user)) == 1
        assert office.mails(out) == []
        assert await audit_actions(databases, user) == ["user.password_reset_requested"]
        assert await audit_actions(databases, out) == []

    async def test_takes_the_address_in_other_capitals(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        await api.post(RESET, json={"email": login.user.email.upper()})
        await office.work(login.user)
        assert len(office.mails(login.user)) == 1

    @pytest.mark.parametrize("body", [{}, {"email": "no address"}, {"email": {"$gt": ""}}, {"email": "x" * 300}, []])
    async def test_refuses_what_is_no_address(self, api: httpx.AsyncClient, body: Any) -> None:
        assert refusal(await api.post(RESET, json=body)) == (422, "invalid_fields")

    async def test_mails_three_an_hour_and_says_nothing_of_it(self, login: Login, office: Office) -> None:
        for _ in range(5):
            assert (await office.ask(login.user.email)).status_code == 202
        await office.work(login.user)
        assert len(office.mails(login.user)) == 3
        assert len({mail["id"] for mail in office.mails(login.user)}) == 3
        assert await office.rows(OutboxTopic.PASSWORD_RESET, login.user.email) == []

    async def test_mails_again_when_the_hour_is_over(
        self, login: Login, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(3):
            await office.reset_token(login.user)
        monkeypatch.setattr("service.services.password_changes.utc_now", lambda: utc_now() + MAILS_WINDOW)
        await office.reset_token(login.user)
        assert len(office.mails(login.user)) == 4

    async def test_never_mails_more_however_many_workers_there_are(self, databases: Databases, office: Office) -> None:
        for _ in range(_TIMES):
            user = (await make_account(databases)).user
            for _ in range(6):
                await office.ask(user.email)
            rows = await office.rows(OutboxTopic.PASSWORD_RESET, user.email)
            await asyncio.gather(*(pursue_row(row, office.desk()) for row in rows))
            assert len(office.mails(user)) == 3
            assert await audit_actions(databases, user) == ["user.password_reset_requested"] * 3

    async def test_is_not_lost_where_the_mail_server_is_away(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        class Away:
            async def send(self, message: Mail) -> None:
                raise MailboxUnavailable(message.id)

        await office.ask(login.user.email)
        (row,) = await office.rows(OutboxTopic.PASSWORD_RESET, login.user.email)
        with pytest.raises(MailboxUnavailable):
            await pursue_row(row, office.desk(Away()))
        (again,) = await office.rows(OutboxTopic.PASSWORD_RESET, login.user.email)
        await pursue_row(again, office.desk())
        (mail,) = office.mails(login.user)
        assert (await confirm(api, token_in(mail))).status_code == 204

    async def test_a_mail_server_that_hangs_is_as_good_as_away(self, login: Login, office: Office) -> None:
        class Hanging:
            async def send(self, message: Mail) -> None:
                await asyncio.sleep(60)
                raise AssertionError(f"{message.id} waited for ever")

        await office.ask(login.user.email)
        (row,) = await office.rows(OutboxTopic.PASSWORD_RESET, login.user.email)
        desk = office.desk(Hanging())
        hurried = desk.settings.model_copy(update={"bank_timeout_s": 0.2})
        with pytest.raises(MailboxUnavailable):
            await pursue_row(row, desk._replace(settings=hurried))

    async def test_a_mail_that_is_sent_again_is_the_same_and_counts_once(self, login: Login, office: Office) -> None:
        await office.ask(login.user.email)
        (row,) = await office.rows(OutboxTopic.PASSWORD_RESET, login.user.email)
        for _ in range(5):
            await pursue_row(row, office.desk())
        mails = office.mails(login.user)
        assert (len(mails), mails[0]) == (5, mails[-1])
        await office.reset_token(login.user)
        await office.reset_token(login.user)
        assert len({mail["id"] for mail in office.mails(login.user)}) == 3


class TestConfirmingAReset:
    async def test_sets_the_password_and_puts_everybody_out(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        token = await office.reset_token(login.user)
        assert len(token) == RESET_TOKEN_LENGTH
        answer = await confirm(api, token)
        assert (answer.status_code, answer.content) == (204, b"")
        assert refusal(await login.refresh()) == REFUSED
        assert refusal(await login.deposit()) == OUT
        assert refusal(await try_password(api, login.user, PASSWORD)) == WRONG_CREDENTIALS
        assert (await try_password(api, login.user, NEW_PASSWORD)).status_code == 200
        await office.work(login.user)
        assert office.mails(login.user)[-1]["subject"] == "Your password was changed"
        assert await audit_actions(office.databases, login.user) == [
            "user.logged_in",
            "user.password_reset_requested",
            "user.password_reset",
            "user.logged_in",
        ]

    async def test_forgives_white_space_around_the_token(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        assert (await confirm(api, f" {await office.reset_token(login.user)}\n")).status_code == 204

    async def test_is_good_once_and_takes_the_other_tokens_with_it(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        first, second = [await office.reset_token(login.user) for _ in range(2)]
        assert (await confirm(api, first)).status_code == 204
        for token in (first, second):
            assert refusal(await confirm(api, token, OTHER_PASSWORD)) == INVALID_TOKEN
        assert (await try_password(api, login.user, NEW_PASSWORD)).status_code == 200
        # Their mails count still.
        await office.reset_token(login.user)
        await office.ask(login.user.email)
        await office.work(login.user)
        assert len({mail["id"] for mail in office.mails(login.user) if "wpr_" in mail["text"]}) == 3

    async def test_is_good_for_an_hour(
        self, api: httpx.AsyncClient, login: Login, office: Office, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = await office.reset_token(login.user)
        with monkeypatch.context() as later:
            later.setattr("service.services.password_changes.utc_now", lambda: utc_now() + timedelta(hours=1))
            assert refusal(await confirm(api, token)) == INVALID_TOKEN
        assert (await confirm(api, token)).status_code == 204

    async def test_a_password_that_will_not_do_leaves_the_token_good(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        token = await office.reset_token(login.user)
        answer = await confirm(api, token, "password1234")
        assert refusal(answer) == (422, "invalid_fields")
        assert [field["pointer"] for field in answer.json()["errors"]] == ["/new_password"]
        assert (await confirm(api, token)).status_code == 204

    @pytest.mark.parametrize("token", ["", "wpr_", "wpr_" + "A" * 43, "x" * 256])
    async def test_refuses_a_token_that_is_none(self, api: httpx.AsyncClient, token: str) -> None:
        assert refusal(await confirm(api, token)) == INVALID_TOKEN

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"token": {"$ne": ""}, "new_password": NEW_PASSWORD},
            {"token": "x" * 257, "new_password": NEW_PASSWORD},
            {"token": "x", "new_password": NEW_PASSWORD, "user_id": "usr_1"},
            {"token": "x"},
            [],
        ],
    )
    async def test_refuses_other_shapes(self, api: httpx.AsyncClient, body: Any) -> None:
        assert refusal(await api.post(RESET_CONFIRM, json=body)) == (422, "invalid_fields")

    async def test_refuses_who_was_deactivated_meanwhile(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        token = await office.reset_token(login.user)
        await office.databases.wallet["users"].update_one({"_id": login.user.id}, {"$set": {"is_active": False}})
        assert refusal(await confirm(api, token)) == INVALID_TOKEN

    async def test_a_password_that_was_changed_meanwhile_stays(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        token = await office.reset_token(login.user)
        assert (await change(login)).status_code == 200
        assert refusal(await confirm(api, token, OTHER_PASSWORD)) == INVALID_TOKEN
        assert (await try_password(api, login.user, NEW_PASSWORD)).status_code == 200

    async def test_leaves_the_authenticator_app_as_it_is(
        self, api: httpx.AsyncClient, login: Login, office: Office, resources: Resources
    ) -> None:
        await enrol(api, login.headers)
        before = await office.databases.wallet["totp_enrolments"].find_one({"_id": login.user.id})
        assert (await confirm(api, await office.reset_token(login.user))).status_code == 204
        assert await office.databases.wallet["totp_enrolments"].find_one({"_id": login.user.id}) == before
        user = login.user.model_copy(update={"token_version": 1})
        state = await api.get("/api/v1/me/totp", headers=bearer(user, resources.settings))
        assert state.json()["status"] == "active"

    async def test_of_two_at_once_with_one_token_one_is_taken(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        for _ in range(_TIMES):
            user = (await make_account(databases)).user
            token = await office.reset_token(user)
            new = (NEW_PASSWORD, OTHER_PASSWORD)
            answers = await asyncio.gather(*(confirm(api, token, one) for one in new))
            assert sorted(answer.status_code for answer in answers) == [204, 422]
            (chosen,) = [one for one, answer in zip(new, answers, strict=True) if answer.status_code == 204]
            assert (await try_password(api, user, chosen)).status_code == 200
            assert (await user_row(databases, user))["token_version"] == 1
            assert (await audit_actions(databases, user)).count("user.password_reset") == 1

    async def test_against_a_refresh_leaves_nobody_in(
        self, api: httpx.AsyncClient, databases: Databases, office: Office
    ) -> None:
        for _ in range(_TIMES):
            login = await Login.of_somebody(api, databases)
            token = await office.reset_token(login.user)
            done, refreshed = await asyncio.gather(confirm(api, token), login.refresh())
            assert done.status_code == 204
            if refreshed.status_code == 200:
                fresh = Login.with_tokens(api, login.user, refreshed.json())
                assert refusal(await fresh.refresh()) == REFUSED
                assert refusal(await fresh.deposit()) == OUT


class TestSecrets:
    async def test_stand_in_no_log_and_in_no_collection(
        self, api: httpx.AsyncClient, login: Login, office: Office
    ) -> None:
        silent = _Silent()
        with capture_logs() as logs:
            await change(login)
            await office.ask(login.user.email)
            (row,) = await office.rows(OutboxTopic.PASSWORD_RESET, login.user.email)
            await pursue_row(row, office.desk(silent))
            token = token_in(silent.mails[0]._asdict())
            await confirm(api, "wpr_" + "A" * 43)
            await confirm(api, token, OTHER_PASSWORD)
        kept = await office.databases.wallet["password_resets"].find_one({"_id": login.user.id})
        assert kept is not None
        (only,) = kept["tokens"]
        told = str(logs)
        assert {"user.password_changed", "password_reset.requested", "user.password_reset"} <= {
            line["event"] for line in logs
        }
        secrets = (token, only["token_hash"], PASSWORD, NEW_PASSWORD, OTHER_PASSWORD, "$argon2id$", login.user.email)
        for secret in secrets:
            assert secret not in told
        written = str(kept) + str(await office.databases.wallet["audit_events"].find().to_list())
        for secret in (token, PASSWORD, NEW_PASSWORD, OTHER_PASSWORD):
            assert secret not in written


class _Silent:
    """A mailbox that logs nothing: the development's shows its mails, codes and all."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def send(self, message: Mail) -> None:
        self.mails.append(message)
