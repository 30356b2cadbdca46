"""Sessions under attack: several tabs refresh at once, a copied token is used, a thief still holds an access token."""

import asyncio

import httpx
import pytest

from service.database import Databases
from tests.factories import PASSWORD
from tests.logins import OUT, PASSWORD_CHANGE, REFUSED, SESSIONS, Login
from tests.refusals import refusal

_NEW_PASSWORD = "amber-saddle-lantern-77"
_TIMES = 5


@pytest.fixture
async def login(api: httpx.AsyncClient, databases: Databases) -> Login:
    return await Login.of_somebody(api, databases)


async def read(login: Login) -> httpx.Response:
    """With the access token alone: no route asks the database about it here."""
    return await login.api.get(f"/api/v1/users/{login.user.id}/balance", headers=login.headers)


class TestSeveralTabs:
    @pytest.mark.parametrize("tabs", [3, 12])
    async def test_that_refresh_with_one_token_at_once_get_one_successor(self, login: Login, tabs: int) -> None:
        for _ in range(_TIMES):
            fresh = await Login.of(login.api, login.user)
            answers = await asyncio.gather(*(fresh.refresh() for _ in range(tabs)))
            assert [answer.status_code for answer in answers] == [200] * tabs
            (successor,) = {answer.json()["refresh_token"] for answer in answers}
            assert (await fresh.refresh(successor)).status_code == 200


class TestACopiedToken:
    async def test_that_comes_after_its_successor_was_used_ends_the_family(self, login: Login) -> None:
        successor = await login.refreshed()
        newest = await login.refreshed(successor)
        assert refusal(await login.refresh()) == REFUSED
        assert [refusal(await login.refresh(token)) for token in (successor, newest)] == [REFUSED] * 2

    async def test_takes_the_sessions_access_tokens_with_it_at_once(self, login: Login) -> None:
        other_device = await Login.of(login.api, login.user)
        tokens = (await login.refresh()).json()
        fresh = Login.with_tokens(login.api, login.user, tokens)
        await login.refreshed(fresh.refresh_token)
        assert (await read(fresh)).status_code == 200
        assert refusal(await login.refresh()) == REFUSED
        assert [refusal(await read(one)) for one in (login, fresh)] == [OUT, OUT]
        assert (await read(other_device)).status_code == 200


class TestANewPassword:
    async def test_refuses_every_access_token_from_before_at_once(self, login: Login) -> None:
        thief = await Login.of(login.api, login.user)
        body = {"current_password": PASSWORD, "new_password": _NEW_PASSWORD}
        answer = await login.post(PASSWORD_CHANGE, body)
        assert answer.status_code == 200, answer.text
        assert [refusal(await read(one)) for one in (thief, login)] == [OUT, OUT]
        mine = Login.with_tokens(login.api, login.user, answer.json())
        assert (await read(mine)).status_code == 200
        assert (await mine.api.get(SESSIONS, headers=mine.headers)).status_code == 200
