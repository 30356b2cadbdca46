"""Access tokens that ended before their time are good for nothing, reading one's own included."""

from datetime import timedelta

import httpx
import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.services.access_tokens import verify_access_token
from service.services.callers import Caller
from service.services.ended_tokens import EndedTokens
from service.settings import Settings
from service.startup import Resources
from tests.factories import PASSWORD, bearer, make_user
from tests.logins import LOGOUT, LOGOUT_ALL, OUT, PASSWORD_CHANGE, SESSIONS, Login
from tests.refusals import refusal

_BALANCE = "/api/v1/users/{}/balance"


@pytest.fixture
async def login(api: httpx.AsyncClient, databases: Databases) -> Login:
    return await Login.of_somebody(api, databases)


async def read(login: Login) -> httpx.Response:
    return await login.api.get(_BALANCE.format(login.user.id), headers=login.headers)


def token_of(login: Login, settings: Settings) -> Caller:
    return verify_access_token(login.headers["Authorization"].removeprefix("Bearer "), settings)


class TestATokenThatHasEnded:
    async def test_by_logging_out_reads_nothing_and_other_sessions_go_on(self, login: Login) -> None:
        elsewhere = await Login.of(login.api, login.user)
        assert (await read(login)).status_code == 200
        await login.post(LOGOUT)
        assert refusal(await read(login)) == OUT
        assert refusal(await login.deposit()) == OUT
        assert (await read(elsewhere)).status_code == 200

    async def test_because_its_session_was_ended_elsewhere_reads_nothing(self, login: Login) -> None:
        elsewhere = await Login.of(login.api, login.user)
        path = f"{SESSIONS}/{await login.session_id()}"
        assert (await login.api.delete(path, headers=elsewhere.headers)).status_code == 204
        assert refusal(await read(login)) == OUT
        assert (await read(elsewhere)).status_code == 200

    async def test_by_logging_out_everywhere_reads_nothing(self, login: Login) -> None:
        elsewhere = await Login.of(login.api, login.user)
        await login.post(LOGOUT_ALL)
        assert [refusal(await read(one)) for one in (login, elsewhere)] == [OUT, OUT]
        assert (await read(await Login.of(login.api, login.user))).status_code == 200

    async def test_by_a_new_password_reads_nothing_at_once(self, login: Login) -> None:
        body = {"current_password": PASSWORD, "new_password": "amber-saddle-lantern-77"}
        answer = await login.post(PASSWORD_CHANGE, body)
        assert answer.status_code == 200, answer.text
        assert refusal(await read(login)) == OUT
        assert (await read(Login.with_tokens(login.api, login.user, answer.json()))).status_code == 200

    async def test_by_deactivation_or_a_lost_role_is_out_at_the_next_look(
        self, login: Login, databases: Databases, resources: Resources, settings: Settings
    ) -> None:
        admin = await make_user(databases, roles=["user", "admin"])
        servant = await Login.of_somebody(login.api, databases, roles=["user", "service"])
        people = "/api/v1/admin/users/{}"
        headers = bearer(admin, settings)
        for answer in (
            await login.api.post(people.format(login.user.id) + "/deactivate", json={"reason": "A"}, headers=headers),
            await login.api.put(
                people.format(servant.user.id) + "/roles", json={"roles": ["user"], "reason": "B"}, headers=headers
            ),
        ):
            assert answer.status_code == 200, answer.text
        await resources.ended_tokens.look()
        assert [refusal(await read(one)) for one in (login, servant)] == [OUT, OUT]


class TestAProcess:
    async def test_that_starts_knows_what_ended_before(
        self, login: Login, databases: Databases, settings: Settings
    ) -> None:
        elsewhere = await Login.of_somebody(login.api, databases)
        await login.post(LOGOUT)
        await elsewhere.post(LOGOUT_ALL)
        ended = EndedTokens(settings.access_token_lifetime_s)
        assert not ended.has(token_of(login, settings))
        await ended.start()
        await ended.close()
        assert [ended.has(token_of(one, settings)) for one in (login, elsewhere)] == [True, True]

    async def test_forgets_what_would_have_expired_by_now(self, login: Login, settings: Settings) -> None:
        await login.post(LOGOUT_ALL)
        ended = EndedTokens(settings.access_token_lifetime_s)
        await ended.look()
        assert ended.has(token_of(login, settings))
        ended._forget(utc_now() + timedelta(seconds=1))
        assert not ended.has(token_of(login, settings))
        assert (ended._sessions, ended._users) == ({}, {})
