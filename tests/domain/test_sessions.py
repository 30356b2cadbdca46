"""Refresh tokens as values: what they look like, what follows one, and what one says of who sends it."""

from datetime import timedelta
from typing import Any

import pytest

from service.domain.clock import utc_now
from service.domain.sessions import (
    REFRESH_TOKEN_LENGTH,
    RETRY_WINDOW,
    Ending,
    RefreshToken,
    Session,
    Verdict,
    judge,
    new_nonce,
    new_refresh_token,
    read_refresh_token,
    rotated,
)

_NOW = utc_now()
_KEY = b"k" * 32
_MOMENT = timedelta(milliseconds=1)


def session_of(token: RefreshToken, **overrides: Any) -> Session:
    fields: dict[str, Any] = {
        "id": "ses_1",
        "user_id": "usr_1",
        "token_version": 0,
        "handle_hash": token.handle_hash,
        "secret_hash": token.secret_hash,
        "previous_hash": None,
        "nonce": b"",
        "created_at": _NOW,
        "last_used_at": _NOW,
        "expires_at": _NOW + timedelta(days=1),
    }
    return Session(**(fields | overrides))


class TestTokens:
    def test_are_read_as_they_are_written(self) -> None:
        token = new_refresh_token()
        assert token.text.startswith("wrt_")
        assert len(token.text) == REFRESH_TOKEN_LENGTH
        assert (len(token.handle), len(token.secret)) == (16, 32)
        assert read_refresh_token(token.text) == token

    def test_are_never_the_same(self) -> None:
        first, second = new_refresh_token(), new_refresh_token()
        assert first.handle != second.handle
        assert first.secret != second.secret

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[:0],
            lambda text: text[:-1],
            lambda text: text + "A",
            lambda text: "wpr_" + text[4:],
            lambda text: text[4:],
            lambda text: text[:-1] + "=",
            lambda text: text[:-1] + "!",
            lambda text: text[:-1] + "é",
            lambda text: text[:10] + "+" + text[11:],
            lambda text: text[:-4] + "\n\n\n\n",
        ],
    )
    def test_that_look_otherwise_are_none(self, damage: Any) -> None:
        assert read_refresh_token(damage("wrt_" + "A" * 64)) is None

    def test_a_successor_comes_of_key_nonce_and_token_together(self) -> None:
        token, nonce = new_refresh_token(), new_nonce()
        successor = token.successor(_KEY, nonce)
        assert token.successor(_KEY, nonce) == successor
        assert successor.handle == token.handle
        others = [
            token.successor(b"x" * 32, nonce),
            token.successor(_KEY, new_nonce()),
            new_refresh_token().successor(_KEY, nonce),
        ]
        assert successor.secret not in {token.secret, *(other.secret for other in others)}
        assert len(successor.secret) == 32


class TestJudging:
    def test_the_current_token_is_good_until_the_session_expires(self) -> None:
        token = new_refresh_token()
        session = session_of(token)
        assert judge(session, token.secret_hash, _NOW) is Verdict.CURRENT
        assert judge(session, token.secret_hash, session.expires_at - _MOMENT) is Verdict.CURRENT
        assert judge(session, token.secret_hash, session.expires_at) is Verdict.ENDED

    def test_the_one_before_is_a_retry_for_ten_seconds(self) -> None:
        token = new_refresh_token()
        nonce = new_nonce()
        session = rotated(session_of(token), token.successor(_KEY, nonce), nonce, _NOW, _NOW + timedelta(days=1))
        assert judge(session, token.secret_hash, _NOW) is Verdict.RETRIED
        assert judge(session, token.secret_hash, _NOW + RETRY_WINDOW - _MOMENT) is Verdict.RETRIED
        assert judge(session, token.secret_hash, _NOW + RETRY_WINDOW) is Verdict.REUSED
        # As an older process left it.
        assert judge(session._replace(is_retried=True), token.secret_hash, _NOW) is Verdict.RETRIED

    def test_a_retry_before_the_clock_of_who_rotated_is_one_too(self) -> None:
        token = new_refresh_token()
        session = rotated(session_of(token), new_refresh_token(), new_nonce(), _NOW, _NOW + timedelta(days=1))
        assert judge(session, token.secret_hash, _NOW - timedelta(seconds=2)) is Verdict.RETRIED

    def test_the_one_before_the_one_before_is_reused(self) -> None:
        token = new_refresh_token()
        session = session_of(token)
        for _ in range(2):
            session = rotated(session, new_refresh_token(), new_nonce(), _NOW, _NOW + timedelta(days=1))
        assert judge(session, token.secret_hash, _NOW) is Verdict.REUSED

    def test_anything_else_with_the_handle_is_reused(self) -> None:
        assert judge(session_of(new_refresh_token()), new_refresh_token().secret_hash, _NOW) is Verdict.REUSED

    def test_nothing_is_good_once_the_session_is_revoked(self) -> None:
        token = new_refresh_token()
        session = session_of(token, revoked_at=_NOW, revoked_for=Ending.LOGGED_OUT)
        assert judge(session, token.secret_hash, _NOW - timedelta(seconds=1)) is Verdict.ENDED
