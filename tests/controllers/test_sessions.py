"""Sessions over HTTP: refreshing, retrying, reuse, logging out, and what races between them come to."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from service.controllers.auth import LoginView, TokensView
from service.controllers.schemas import PageView
from service.controllers.sessions import SessionView
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.sessions import RETRY_WINDOW, new_refresh_token, read_refresh_token
from service.gateways.quick_redis import QuickRedis
from service.services import refresh_tokens
from service.services.access_tokens import verify_access_token
from service.services.login_guard import LoginGuard
from service.settings import Settings
from service.startup import Resources
from tests.factories import PASSWORD, bearer, make_user
from tests.logins import LOGIN, LOGOUT, LOGOUT_ALL, OUT, REFRESH, REFUSED, SESSIONS, Login, audit_actions
from tests.refusals import refusal

_TIMES = 20


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = utc_now()

    def go_on(self, span: timedelta) -> None:
        self.now += span


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """For sessions; access tokens are looked at with the real one, so that it may only go on by minutes."""
    clock = Clock()
    for module in ("refresh_tokens", "sessions", "users"):
        monkeypatch.setattr(f"service.services.{module}.utc_now", lambda: clock.now)
    return clock


@pytest.fixture
async def login(api: httpx.AsyncClient, databases: Databases) -> Login:
    return await Login.of_somebody(api, databases)


async def kept(databases: Databases, login: Login) -> dict[str, Any]:
    row = await databases.wallet["sessions"].find_one({"user_id": login.user.id})
    assert row is not None
    return row


class TestLoggingIn:
    async def test_begins_a_session_that_the_access_token_names(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        user = await make_user(databases)
        body = (await api.post(LOGIN, json={"email": user.email, "password": PASSWORD})).json()
        assert LoginView.model_validate(body).model_dump(mode="json") == body
        assert body["refresh_expires_in"] == 30 * 24 * 3600
        row = await databases.wallet["sessions"].find_one({"user_id": user.id})
        assert row is not None
        assert verify_access_token(body["access_token"], settings).session_id == row["_id"]
        assert await audit_actions(databases, user) == ["user.logged_in"]

    async def test_keeps_of_the_refresh_token_no_part_that_opens_anything(
        self, login: Login, databases: Databases
    ) -> None:
        token = read_refresh_token(login.refresh_token)
        assert token is not None
        row = await kept(databases, login)
        values = [value for value in row.values() if isinstance(value, str | bytes)]
        for part in (token.handle, token.secret):
            for form in (part, part.hex(), login.refresh_token):
                assert form not in values
        assert row["secret_hash"] == token.secret_hash


class TestRefreshing:
    async def test_gives_two_new_tokens_of_the_same_session(
        self, api: httpx.AsyncClient, login: Login, settings: Settings, databases: Databases
    ) -> None:
        answer = await login.refresh()
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert TokensView.model_validate(body).model_dump(mode="json") == body
        assert body["refresh_token"] != login.refresh_token
        fresh = Login.with_tokens(api, login.user, body)
        assert fresh.headers != login.headers
        assert (await fresh.deposit()).status_code == 202
        row = await kept(databases, login)
        assert verify_access_token(body["access_token"], settings).session_id == row["_id"]

    async def test_goes_on_and_on(self, login: Login) -> None:
        token = login.refresh_token
        seen = {token}
        for _ in range(5):
            token = await login.refreshed(token)
            seen.add(token)
        assert len(seen) == 6
        assert len(await login.sessions()) == 1

    async def test_takes_the_roles_as_they_are_now(
        self, login: Login, databases: Databases, settings: Settings
    ) -> None:
        await databases.wallet["users"].update_one({"_id": login.user.id}, {"$set": {"roles": ["user", "admin"]}})
        fresh = (await login.refresh()).json()["access_token"]
        assert verify_access_token(fresh, settings).roles == ("user", "admin")

    @pytest.mark.parametrize(
        "token",
        ["", "wrt_", "x", "wrt_" + "A" * 64, "wrt_" + "A" * 63, "wrt_" + "=" * 64, "\u202e", "wrt_" + "é" * 64, " "],
    )
    async def test_refuses_what_is_none(self, api: httpx.AsyncClient, token: str) -> None:
        answer = await api.post(REFRESH, json={"refresh_token": token})
        assert refusal(answer) == REFUSED
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("body", [{}, {"refresh_token": 7}, {"refresh_token": {"$ne": ""}}, {"token": "x"}, []])
    async def test_refuses_other_shapes(self, api: httpx.AsyncClient, body: Any) -> None:
        assert refusal(await api.post(REFRESH, json=body)) == (422, "invalid_fields")

    async def test_is_kept_from_nobody_by_who_tries_at_the_same_address(
        self, app: FastAPI, resources: Resources, login: Login, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = resources.settings.model_copy(update={"login_tries": 1})
        redis = QuickRedis(settings)
        guarded = resources._replace(login_guard=LoginGuard(redis, settings))
        monkeypatch.setitem(app.state._state, "resources", guarded)
        for _ in range(10):
            assert (await login.refresh(new_refresh_token().text)).status_code == 401
        await login.refreshed()
        await redis.close()

    async def test_an_access_token_is_no_refresh_token_nor_the_other_way_round(self, login: Login) -> None:
        access = login.headers["Authorization"].removeprefix("Bearer ")
        assert refusal(await login.api.post(REFRESH, json={"refresh_token": access})) in (
            REFUSED,
            (422, "invalid_fields"),
        )
        as_access = {"Authorization": f"Bearer {login.refresh_token}"}
        assert refusal(await login.api.get(SESSIONS, headers=as_access)) == OUT

    async def test_is_refused_once_the_user_is_deactivated_or_put_out(self, login: Login, databases: Databases) -> None:
        users = databases.wallet["users"]
        for change in ({"$set": {"is_active": False}}, {"$set": {"is_active": True}, "$inc": {"token_version": 1}}):
            await users.update_one({"_id": login.user.id}, change)
            assert refusal(await login.refresh()) == REFUSED
        # Not used up: what is put right again goes on.
        await users.update_one({"_id": login.user.id}, {"$inc": {"token_version": -1}})
        assert (await login.refresh()).status_code == 200

    async def test_ends_when_nobody_has_come_for_long(
        self, api: httpx.AsyncClient, databases: Databases, clock: Clock
    ) -> None:
        login = await Login.of_somebody(api, databases)
        clock.go_on(timedelta(days=30) - timedelta(seconds=1))
        token = await login.refreshed()
        clock.go_on(timedelta(days=30))
        assert refusal(await login.refresh(token)) == REFUSED

    async def test_ends_some_time_after_the_login_whoever_comes(
        self, api: httpx.AsyncClient, databases: Databases, clock: Clock
    ) -> None:
        login = await Login.of_somebody(api, databases)
        token, lifetimes = login.refresh_token, []
        for _ in range(4):
            clock.go_on(timedelta(days=20))
            answer = (await login.refresh(token)).json()
            token = answer["refresh_token"]
            lifetimes.append(answer["refresh_expires_in"] // (24 * 3600))
        assert lifetimes == [30, 30, 30, 10]
        clock.go_on(timedelta(days=10))
        assert refusal(await login.refresh(token)) == REFUSED


class TestALostAnswer:
    async def test_may_be_asked_for_again_and_brings_the_same_token(self, login: Login, databases: Databases) -> None:
        successor = await login.refreshed()
        before = await kept(databases, login)
        assert [await login.refreshed() for _ in range(3)] == [successor] * 3
        assert await kept(databases, login) == before
        assert (await login.refresh(successor)).status_code == 200

    async def test_ten_seconds_later_ends_the_session(
        self, api: httpx.AsyncClient, databases: Databases, clock: Clock
    ) -> None:
        login = await Login.of_somebody(api, databases)
        successor = await login.refreshed()
        clock.go_on(RETRY_WINDOW)
        assert refusal(await login.refresh()) == REFUSED
        assert refusal(await login.refresh(successor)) == REFUSED

    async def test_once_its_token_was_used_ends_the_session(self, login: Login) -> None:
        """The answer cannot have been lost, so the token was copied."""
        successor = await login.refreshed(await login.refreshed())
        assert refusal(await login.refresh()) == REFUSED
        assert refusal(await login.refresh(successor)) == REFUSED

    async def test_is_refused_once_the_user_is_put_out(self, login: Login, databases: Databases) -> None:
        await login.refreshed()
        await databases.wallet["users"].update_one({"_id": login.user.id}, {"$inc": {"token_version": 1}})
        assert refusal(await login.refresh()) == REFUSED

    async def test_under_another_encryption_key_is_refused_and_costs_the_session_nothing(
        self, login: Login, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        successor = await login.refreshed()
        with monkeypatch.context() as changed:
            changed.setattr(refresh_tokens, "_key", lambda _settings: b"another" * 5)
            assert refusal(await login.refresh()) == REFUSED
        assert (await login.refresh(successor)).status_code == 200


class TestReuse:
    async def test_of_any_older_token_ends_the_session_and_no_other(
        self, api: httpx.AsyncClient, databases: Databases, login: Login
    ) -> None:
        elsewhere = await Login.of(api, login.user)
        token = login.refresh_token
        for _ in range(4):
            token = await login.refreshed(token)
        assert refusal(await login.refresh()) == REFUSED
        assert refusal(await login.refresh(token)) == REFUSED
        assert (await elsewhere.refresh()).status_code == 200
        (event,) = await databases.wallet["audit_events"].find({"action": "session.revoked_by_reuse",
                                                               "subject_id": login.user.id}).to_list()  # fmt: skip
        row = await databases.wallet["sessions"].find_one({"_id": event["details"]["session_id"]})
        assert row is not None
        assert (row["revoked_for"], event["actor_id"]) == ("reuse", "anybody")

    async def test_a_made_up_secret_behind_the_handle_is_reuse_too(self, login: Login) -> None:
        token = read_refresh_token(login.refresh_token)
        assert token is not None
        assert refusal(await login.refresh(token._replace(secret=b"x" * 32).text)) == REFUSED
        assert refusal(await login.refresh()) == REFUSED

    async def test_another_handle_ends_nothing(self, login: Login) -> None:
        token = read_refresh_token(login.refresh_token)
        assert token is not None
        stranger = new_refresh_token()._replace(secret=token.secret)
        assert refusal(await login.refresh(stranger.text)) == REFUSED
        assert (await login.refresh()).status_code == 200


class TestLoggingOut:
    async def test_ends_this_session_and_no_other(
        self, api: httpx.AsyncClient, databases: Databases, login: Login
    ) -> None:
        elsewhere = await Login.of(api, login.user)
        answer = await login.post(LOGOUT)
        assert (answer.status_code, answer.content) == (204, b"")
        assert refusal(await login.refresh()) == REFUSED
        assert len(await elsewhere.sessions()) == 1
        assert (await elsewhere.refresh()).status_code == 200
        assert await audit_actions(databases, login.user) == ["user.logged_in", "user.logged_in", "user.logged_out"]

    async def test_a_second_time_comes_with_a_token_that_has_ended(self, login: Login, databases: Databases) -> None:
        assert (await login.post(LOGOUT)).status_code == 204
        assert refusal(await login.post(LOGOUT)) == OUT
        assert await audit_actions(databases, login.user) == ["user.logged_in", "user.logged_out"]

    async def test_with_a_token_of_no_session_ends_none(
        self, api: httpx.AsyncClient, login: Login, settings: Settings
    ) -> None:
        answer = await api.post(LOGOUT, headers=bearer(login.user, settings))
        assert answer.status_code == 204
        assert (await login.refresh()).status_code == 200

    async def test_takes_a_token(self, api: httpx.AsyncClient) -> None:
        for path in (LOGOUT, LOGOUT_ALL):
            assert refusal(await api.post(path)) == OUT

    async def test_everywhere_ends_all_sessions_and_all_access_tokens_at_once(
        self, api: httpx.AsyncClient, databases: Databases, login: Login
    ) -> None:
        elsewhere, stranger = await Login.of(api, login.user), await Login.of_somebody(api, databases)
        answer = await login.post(LOGOUT_ALL)
        assert (answer.status_code, answer.content) == (204, b"")
        for one in (login, elsewhere):
            assert refusal(await one.refresh()) == REFUSED
            assert refusal(await one.deposit()) == OUT
            assert refusal(await api.get(SESSIONS, headers=one.headers)) == OUT
            assert refusal(await one.post(LOGOUT_ALL)) == OUT
        assert (await stranger.refresh()).status_code == 200
        again = await Login.of(api, login.user)
        assert (await again.deposit()).status_code == 202
        assert (await again.refresh()).status_code == 200
        events = await audit_actions(databases, login.user)
        assert events == ["user.logged_in", "user.logged_in", "user.logged_out_everywhere", "user.logged_in"]

    async def test_everywhere_is_for_who_may_act(self, login: Login, databases: Databases) -> None:
        await databases.wallet["users"].update_one({"_id": login.user.id}, {"$set": {"is_active": False}})
        assert refusal(await login.post(LOGOUT_ALL)) == (403, "account_deactivated")


class TestTheList:
    async def test_shows_what_is_not_over_newest_first(
        self, api: httpx.AsyncClient, databases: Databases, login: Login
    ) -> None:
        over, current = await Login.of(api, login.user), await Login.of(api, login.user)
        await over.post(LOGOUT)
        await Login.of_somebody(api, databases)
        answer = await api.get(SESSIONS, headers=current.headers)
        assert PageView[SessionView](**answer.json()).model_dump(mode="json") == answer.json()
        ids = [row["id"] for row in answer.json()["data"]]
        assert ids == [await current.session_id(), await login.session_id()]
        assert [row["is_current"] for row in answer.json()["data"]] == [True, False]
        for row in answer.json()["data"]:
            assert row["created_at"] <= row["last_used_at"] < row["expires_at"]

    async def test_has_pages(self, api: httpx.AsyncClient, login: Login) -> None:
        newest = [await Login.of(api, login.user) for _ in range(2)][-1]
        first = (await api.get(SESSIONS, params={"limit": 2}, headers=newest.headers)).json()
        assert (len(first["data"]), first["has_more"]) == (2, True)
        query = {"limit": 2, "cursor": first["next_cursor"]}
        second = (await api.get(SESSIONS, params=query, headers=newest.headers)).json()
        assert [row["id"] for row in second["data"]] == [await login.session_id()]
        assert second["has_more"] is False

    async def test_tells_nothing_that_opens_a_session(self, login: Login, databases: Databases) -> None:
        row = await kept(databases, login)
        seen = str(await login.sessions())
        for secret in (row["handle_hash"], row["secret_hash"]):
            assert secret not in seen

    async def test_one_that_expired_is_left_out(self, databases: Databases, login: Login) -> None:
        past = {"$set": {"expires_at": utc_now()}}
        await databases.wallet["sessions"].update_one({"user_id": login.user.id}, past)
        assert await login.sessions() == []
        assert refusal(await login.refresh()) == REFUSED

    async def test_is_for_who_may_act(self, api: httpx.AsyncClient, login: Login, databases: Databases) -> None:
        assert refusal(await api.get(SESSIONS)) == OUT
        await databases.wallet["users"].update_one({"_id": login.user.id}, {"$set": {"is_active": False}})
        assert refusal(await api.get(SESSIONS, headers=login.headers)) == (403, "account_deactivated")


class TestEndingOne:
    async def test_ends_that_one(self, api: httpx.AsyncClient, databases: Databases, login: Login) -> None:
        lost = await Login.of(api, login.user)
        path = f"{SESSIONS}/{await lost.session_id()}"
        answer = await api.delete(path, headers=login.headers)
        assert (answer.status_code, answer.content) == (204, b"")
        assert refusal(await lost.refresh()) == REFUSED
        assert (await login.refresh()).status_code == 200
        assert refusal(await api.delete(path, headers=login.headers)) == (404, "not_found")
        assert (await audit_actions(databases, login.user))[-1] == "user.logged_out"

    async def test_finds_neither_somebody_elses_nor_none(
        self, api: httpx.AsyncClient, databases: Databases, login: Login
    ) -> None:
        other = await Login.of_somebody(api, databases)
        theirs, none = await other.session_id(), f"ses_{uuid4().hex}"
        answers = [await api.delete(f"{SESSIONS}/{one}", headers=login.headers) for one in (theirs, none)]
        assert [refusal(answer) for answer in answers] == [(404, "not_found")] * 2
        bodies = [answer.json() | {"request_id": ""} for answer in answers]
        assert str(bodies[0]).replace(theirs, none) == str(bodies[1])
        assert (await other.refresh()).status_code == 200


class TestRaces:
    @pytest.mark.parametrize("path", [LOGOUT, LOGOUT_ALL])
    async def test_a_refresh_against_logging_out_leaves_nobody_in(
        self, api: httpx.AsyncClient, databases: Databases, path: str
    ) -> None:
        user = (await Login.of_somebody(api, databases)).user
        for _ in range(_TIMES):
            login = await Login.of(api, user)
            refreshed, out = await asyncio.gather(login.refresh(), login.post(path))
            assert out.status_code == 204
            if refreshed.status_code == 200:
                fresh = Login.with_tokens(api, user, refreshed.json())
                assert refusal(await fresh.refresh()) == REFUSED
                if path == LOGOUT_ALL:
                    assert refusal(await fresh.deposit()) == OUT
            else:
                assert refusal(refreshed) == REFUSED
            assert refusal(await login.refresh()) == REFUSED

    async def test_a_login_against_logging_out_everywhere_is_either_in_whole_or_out_whole(
        self, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        login = await Login.of_somebody(api, databases)
        for _ in range(_TIMES):
            other, out = await asyncio.gather(Login.of(api, login.user), login.post(LOGOUT_ALL))
            assert out.status_code == 204
            moved, refreshed = await other.deposit(), await other.refresh()
            assert (moved.status_code, refreshed.status_code) in {(202, 200), (401, 401)}
            login = await Login.of(api, login.user)

    async def test_of_many_who_log_out_everywhere_at_once_one_raises_the_version(
        self, api: httpx.AsyncClient, databases: Databases
    ) -> None:
        user = (await Login.of_somebody(api, databases)).user
        for times in range(1, _TIMES + 1):
            login = await Login.of(api, user)
            answers = await asyncio.gather(*(login.post(LOGOUT_ALL) for _ in range(4)))
            assert sorted(answer.status_code for answer in answers) == [204, 401, 401, 401]
            row = await databases.wallet["users"].find_one({"_id": user.id})
            assert row is not None
            assert row["token_version"] == times


class TestLogs:
    async def test_hold_neither_tokens_nor_hashes(self, api: httpx.AsyncClient, databases: Databases) -> None:
        with capture_logs() as logs:
            login = await Login.of_somebody(api, databases)
            tokens = [login.refresh_token, await login.refreshed()]
            await login.refresh(tokens[0])
            await login.refresh(await login.refreshed(tokens[1]))
            await login.refresh(tokens[0])
            await api.post(REFRESH, json={"refresh_token": "wrt_" + "B" * 64})
            other = await Login.of(api, login.user)
            await other.post(LOGOUT)
        row = await kept(databases, login)
        told = str(logs)
        events = {line["event"] for line in logs}
        assert {"session.refreshed", "session.revoked_by_reuse", "session.refresh_refused", "user.logged_out"} <= events
        secrets = [*tokens, other.refresh_token, row["handle_hash"], row["secret_hash"], row["previous_hash"]]
        for secret in (*secrets, "eyJ", "wrt_", PASSWORD):
            assert secret not in told
