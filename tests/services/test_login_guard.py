"""The guard before the password: who guesses waits, and nobody is locked out by somebody else's guesses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from service.domain.identifiers import Prefix, new_id
from service.errors import (
    InvalidCredentials,
    InvalidFields,
    TooManyAttempts,
    Unavailable,
    WalletServiceError,
    WrongPassword,
)
from service.gateways.quick_redis import QuickRedis
from service.services.login_guard import LoginGuard
from tests.factories import make_email
from tests.servers import Servers, make_settings

HOME, AWAY = "203.0.113.1", "198.51.100.0"


@pytest.fixture(params=["redis", "memory"])
async def guard(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[LoginGuard]:
    """In memory it has to do the very same."""
    settings = make_settings(servers, login_tries=5)
    if request.param == "memory":
        settings = settings.model_copy(update={"redis_url": make_settings(servers, redis_url=_NOWHERE).redis_url})
    redis = QuickRedis(settings)
    yield LoginGuard(redis, settings)
    await redis.close()


_NOWHERE = "redis://127.0.0.1:1/0"


async def attempt(guard: LoginGuard, email: str, address: str, *, is_right: bool = False) -> str:
    """What came of it: `in`, `wrong`, or the seconds to wait."""
    try:
        async with guard.password_try(email, address):
            # Hashing takes its time, in which others come.
            await asyncio.sleep(0.01)
            _look_at(is_right=is_right)
    except InvalidCredentials:
        return "wrong"
    except TooManyAttempts as error:
        return str(error.retry_after_s)
    return "in"


def _look_at(*, is_right: bool) -> None:
    if not is_right:
        raise InvalidCredentials


async def attempts_of(guard: LoginGuard, times: int, email: str, address: str) -> list[str]:
    return [await attempt(guard, email, address) for _ in range(times)]


class TestOneWhoGuesses:
    async def test_waits_from_the_fifth_failure_on(self, guard: LoginGuard) -> None:
        assert await attempts_of(guard, 7, make_email(), HOME) == ["wrong"] * 5 + ["1", "1"]

    async def test_waits_twice_as_long_each_time_up_to_a_minute(self, guard: LoginGuard) -> None:
        email, waits = make_email(), []
        await attempts_of(guard, 4, email, HOME)
        for _ in range(9):
            assert await attempt(guard, email, HOME) == "wrong"
            waits.append(await attempt(guard, email, HOME))
            await _let_it_pass(guard)
        assert waits == ["1", "2", "4", "8", "16", "32", "60", "60", "60"]

    async def test_does_not_slip_through_by_being_many_at_once(self, guard: LoginGuard) -> None:
        email = make_email()
        answers = await asyncio.gather(*(attempt(guard, email, HOME) for _ in range(50)))
        assert sorted(answers) == ["1"] * 45 + ["wrong"] * 5

    async def test_is_not_told_whether_the_last_one_was_right(self, guard: LoginGuard) -> None:
        email = make_email()
        await attempts_of(guard, 5, email, HOME)
        assert await attempt(guard, email, HOME, is_right=True) == "1"

    async def test_does_not_get_around_it_by_spelling(self, guard: LoginGuard) -> None:
        email = make_email()
        for spelling in (email, email.upper(), email.title(), email.capitalize(), email.swapcase()):
            assert await attempt(guard, spelling, HOME) == "wrong"
        assert await attempt(guard, email.upper().replace("EXAMPLE", "example"), HOME) == "1"

    async def test_one_password_on_many_accounts_waits_as_well(self, guard: LoginGuard) -> None:
        answers = [await attempt(guard, make_email(), HOME) for _ in range(22)]
        assert answers == ["wrong"] * 20 + ["1"] * 2
        assert await attempt(guard, make_email(), AWAY) == "wrong"

    async def test_an_account_of_ones_own_does_not_wash_it_off(self, guard: LoginGuard) -> None:
        mine = make_email()
        for _ in range(20):
            assert await attempt(guard, make_email(), HOME) == "wrong"
            await attempt(guard, mine, HOME, is_right=True)
        assert await attempt(guard, make_email(), HOME) == "1"

    async def test_many_addresses_on_one_account_wait_a_little(self, guard: LoginGuard) -> None:
        email = make_email()
        answers = [await attempt(guard, email, f"{AWAY}{number}") for number in range(50)]
        assert answers == ["wrong"] * 50
        assert await attempt(guard, email, "192.0.2.77") == "1"


class TestTheOwner:
    async def test_gets_in_from_elsewhere_whatever_a_stranger_does(self, guard: LoginGuard) -> None:
        email = make_email()
        await attempts_of(guard, 40, email, AWAY)
        assert await attempt(guard, email, HOME, is_right=True) == "in"

    async def test_gets_in_at_once_from_where_they_were_before_under_an_attack_from_everywhere(
        self, guard: LoginGuard
    ) -> None:
        email = make_email()
        assert await attempt(guard, email, HOME, is_right=True) == "in"
        for number in range(60):
            await attempt(guard, email, f"{AWAY}{number}")
        # Somebody else at home has been guessing at other accounts.
        for _ in range(25):
            await attempt(guard, make_email(), HOME)
        assert await attempt(guard, email, "192.0.2.1", is_right=True) == "1"
        assert await attempt(guard, email, HOME, is_right=True) == "in"

    async def test_never_waits_long_anywhere_else(self, guard: LoginGuard) -> None:
        email = make_email()
        for number in range(60):
            await attempt(guard, email, f"{AWAY}{number}")
            await _let_it_pass(guard)
        await attempt(guard, email, f"{AWAY}99")
        assert int(await attempt(guard, email, "192.0.2.1", is_right=True)) <= 10

    async def test_begins_anew_after_getting_in(self, guard: LoginGuard) -> None:
        email = make_email()
        await attempts_of(guard, 4, email, HOME)
        assert await attempt(guard, email, HOME, is_right=True) == "in"
        assert await attempts_of(guard, 5, email, HOME) == ["wrong"] * 5

    async def test_a_try_that_was_never_looked_at_does_not_count(self, guard: LoginGuard) -> None:
        email = make_email()
        for _ in range(10):
            with suppress(Unavailable):
                async with guard.password_try(email, HOME):
                    raise Unavailable
        assert await attempts_of(guard, 5, email, HOME) == ["wrong"] * 5


class TestOtherDoors:
    async def test_who_asks_for_many_resets_waits_by_address(self, guard: LoginGuard) -> None:
        for _ in range(20):
            await guard.reset_request(HOME)
        with pytest.raises(TooManyAttempts) as refused:
            await guard.reset_request(HOME)
        assert refused.value.retry_after_s == 1
        await guard.reset_request(AWAY)

    async def test_asking_for_the_password_again_waits_by_user_whatever_is_right_in_between(
        self, guard: LoginGuard
    ) -> None:
        async def again(user_id: str, error: type[WalletServiceError] | None) -> str:
            try:
                async with guard.password_again(user_id):
                    if error is not None:
                        raise error
            except WrongPassword:
                return "wrong"
            except TooManyAttempts as refused:
                return str(refused.retry_after_s)
            except InvalidFields:
                return "weak"
            return "in"

        one, other = new_id(Prefix.USER), new_id(Prefix.USER)
        for _ in range(6):
            assert await again(one, InvalidFields) == "weak"
        sent = [WrongPassword] * 4 + [None, WrongPassword, WrongPassword, None]
        assert [await again(one, error) for error in sent] == ["wrong"] * 4 + ["in", "wrong", "1", "1"]
        assert await again(other, WrongPassword) == "wrong"

    async def test_it_can_be_turned_off(self, servers: Servers) -> None:
        settings = make_settings(servers, login_tries=0)
        redis = QuickRedis(settings)
        assert await attempts_of(LoginGuard(redis, settings), 60, make_email(), HOME) == ["wrong"] * 60
        await redis.close()


async def _let_it_pass(guard: LoginGuard) -> None:
    """As if every wait were over."""
    counted = guard._attempts
    for key, held in counted._held.items():
        counted._held[key] = held._replace(until_s=0.0)
    if not counted._redis.is_away:
        client: Any = counted._redis._client
        async for key in client.scan_iter(f"{counted._redis.prefix}:login*"):
            if await client.type(key) == b"hash":
                await client.hdel(key, "until")
