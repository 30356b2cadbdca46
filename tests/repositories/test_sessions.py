"""Compare-and-set on sessions: whoever acts on one that has changed since they read it finds no match."""

from datetime import timedelta

import pytest

from service.database import Databases, session_in_transaction
from service.domain.clock import utc_now
from service.domain.sessions import Ending, Session, Verdict, judge, new_nonce, new_refresh_token, rotated
from service.repositories import sessions as session_repository
from service.services.refresh_tokens import open_session
from service.settings import Settings
from tests.factories import make_user

_DAY = timedelta(days=1)


@pytest.fixture
async def login(databases: Databases, settings: Settings) -> Session:
    opened = open_session(await make_user(databases), settings, utc_now())
    async with session_in_transaction(databases.client) as session:
        await session_repository.insert(opened.session, session=session)
    return opened.session


def next_of(login: Session) -> Session:
    now = utc_now()
    return rotated(login, new_refresh_token(), new_nonce(), now, now + _DAY)


async def revoke(databases: Databases, login: Session) -> bool:
    async with session_in_transaction(databases.client) as session:
        return await session_repository.revoke(login.id, login.user_id, Ending.LOGGED_OUT, utc_now(), session=session)


async def found(login: Session) -> Session:
    session = await session_repository.find_by_handle(login.handle_hash)
    assert session is not None
    return session


class TestRotating:
    async def test_happens_once_and_leaves_what_was_written(self, login: Session) -> None:
        first, second = next_of(login), next_of(login)
        assert await session_repository.rotate(login, first)
        assert not await session_repository.rotate(login, second)
        assert await found(login) == first

    async def test_wakes_no_session_that_was_revoked_since_it_was_read(
        self, databases: Databases, login: Session
    ) -> None:
        assert await revoke(databases, login)
        assert not await session_repository.rotate(login, next_of(login))
        ended = await found(login)
        assert (ended.secret_hash, ended.revoked_for) == (login.secret_hash, Ending.LOGGED_OUT)
        assert judge(ended, login.secret_hash, ended.created_at) is Verdict.ENDED


class TestRevoking:
    async def test_happens_once_and_keeps_the_first_reason(self, databases: Databases, login: Session) -> None:
        assert [await revoke(databases, login) for _ in range(2)] == [True, False]
        async with session_in_transaction(databases.client) as session:
            now = utc_now()
            assert not await session_repository.revoke_all(login.user_id, Ending.REUSE, now, session=session)
        assert (await found(login)).revoked_for is Ending.LOGGED_OUT
