"""API keys: which texts are keys, which secrets fit, and until when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.api_keys import (
    ApiKey,
    KeyStatus,
    hash_secret,
    key_text,
    read_key_text,
    revoked,
    rotated,
)
from service.domain.permissions import KEY_PERMISSIONS, Permission

_NOW = datetime(2026, 2, 24, 12, tzinfo=UTC)
_SECRET = bytes(range(32))
_TEXT = key_text("k4nq7x2p", _SECRET)


def make_key(**overrides: Any) -> ApiKey:
    fields: dict[str, Any] = {
        "id": "key_1",
        "user_id": "usr_1",
        "name": "Till",
        "prefix": "k4nq7x2p",
        "permissions": (Permission.HOLDS_READ,),
        "secret_hash": hash_secret(_SECRET),
        "created_by": "usr_2",
        "created_at": _NOW,
        "updated_at": _NOW,
    }
    return ApiKey(**(fields | overrides))


class TestTheText:
    def test_is_read_as_it_was_written(self) -> None:
        presented = read_key_text(_TEXT)
        assert presented is not None
        assert presented == ("k4nq7x2p", hash_secret(_SECRET))

    @pytest.mark.parametrize(
        "text",
        ["", "wsk", "wsk__", _TEXT[:-1], _TEXT + "0", _TEXT.upper(), f" {_TEXT}", f"{_TEXT}\n", _TEXT[4:], "x" * 10_000,
         _TEXT.replace("_", "-"), _TEXT.replace("k4nq7x2p", "k4nq7x2"), "wsk_k4nq7x2p_" + "\u0966" * 64],
    )  # fmt: skip
    def test_that_is_anything_else_is_no_key(self, text: str) -> None:
        assert read_key_text(text) is None


class TestASecret:
    def test_fits_its_own_key_alone(self) -> None:
        assert make_key().fits(hash_secret(_SECRET), _NOW)
        assert not make_key().fits(hash_secret(bytes(32)), _NOW)

    def test_that_was_replaced_fits_no_more(self) -> None:
        key = rotated(make_key(), hash_secret(b"new"), timedelta(), (), _NOW)
        assert key.fits(hash_secret(b"new"), _NOW)
        assert not key.fits(hash_secret(_SECRET), _NOW)
        assert (key.previous_hash, key.previous_until) == (None, None)

    def test_that_was_replaced_fits_until_the_overlap_is_over(self) -> None:
        key = rotated(make_key(), hash_secret(b"new"), timedelta(seconds=60), (), _NOW)
        for seconds, expected in ((0, True), (59, True), (60, False), (61, False)):
            moment = _NOW + timedelta(seconds=seconds)
            assert key.fits(hash_secret(_SECRET), moment) is expected
            assert key.fits(hash_secret(b"new"), moment)

    def test_before_the_last_one_fits_no_more_after_another_rotation(self) -> None:
        twice = rotated(
            rotated(make_key(), hash_secret(b"new"), timedelta(days=1), (), _NOW),
            hash_secret(b"newer"),
            timedelta(days=1),
            (),
            _NOW,
        )
        assert [twice.fits(hash_secret(secret), _NOW) for secret in (_SECRET, b"new", b"newer")] == [False, True, True]


class TestAKey:
    def test_is_active_until_it_expires_or_is_revoked(self) -> None:
        expiring = make_key(expires_at=_NOW)
        assert expiring.status(_NOW - timedelta(milliseconds=1)) is KeyStatus.ACTIVE
        assert expiring.status(_NOW) is KeyStatus.EXPIRED
        assert make_key().status(_NOW) is KeyStatus.ACTIVE
        assert revoked(expiring, _NOW).status(_NOW) is KeyStatus.REVOKED

    def test_has_never_more_than_keys_may_have(self) -> None:
        key = make_key(permissions=tuple(Permission))
        assert key.scopes == KEY_PERMISSIONS

    def test_was_used_lately_for_a_minute(self) -> None:
        key = make_key(last_used_at=_NOW)
        assert key.was_used_lately(_NOW + timedelta(seconds=59))
        assert not key.was_used_lately(_NOW + timedelta(seconds=60))
        assert not make_key().was_used_lately(_NOW)
