"""One-time codes of payments: derived alike everywhere, and what becomes of a try."""

from datetime import timedelta

import pytest

from service.domain.clock import utc_now
from service.domain.step_up import (
    CODE_LIFETIME,
    CODE_TRIES,
    Challenge,
    CodeCheck,
    CodeOutcome,
    check_code,
    derive_code,
    hash_code,
)

_KEY = bytes(range(32))
_NOW = utc_now()
_RIGHT = hash_code(_KEY, "wdr_1", "012345")
_WRONG = hash_code(_KEY, "wdr_1", "012346")


def challenge(tries_left: int = CODE_TRIES) -> Challenge:
    return Challenge("nonce", _RIGHT, _NOW + CODE_LIFETIME, tries_left)


class TestDeriveCode:
    def test_is_the_same_in_every_process_and_release(self) -> None:
        # Computed apart, with openssl: a release that changed it would mail codes that the one before cannot check.
        assert derive_code(_KEY, "wdr_1", "nonce") == "771111"

    def test_always_has_six_digits_and_hardly_ever_the_same(self) -> None:
        codes = [derive_code(_KEY, "wdr_1", str(number)) for number in range(2000)]
        assert all(len(code) == 6 and code.isascii() and code.isdecimal() for code in codes)
        assert any(code.startswith("0") for code in codes)
        assert len(set(codes)) > 1950

    def test_depends_on_key_operation_and_nonce_and_on_where_they_part(self) -> None:
        codes = {
            derive_code(_KEY, "wdr_1", "nonce"),
            derive_code(bytes(32), "wdr_1", "nonce"),
            derive_code(_KEY, "wdr_2", "nonce"),
            derive_code(_KEY, "wdr_1", "another"),
            derive_code(_KEY, "wdr_1n", "once"),
        }
        assert len(codes) == 5


class TestHashCode:
    def test_belongs_to_one_operation_and_one_key(self) -> None:
        hashes = {hash_code(_KEY, "wdr_1", "012345"), hash_code(_KEY, "wdr_2", "012345"), _WRONG}
        assert len(hashes | {hash_code(bytes(32), "wdr_1", "012345")}) == 4

    def test_takes_a_code_as_people_type_it(self) -> None:
        assert hash_code(_KEY, "wdr_1", " 012 345\n") == _RIGHT


class TestCheckCode:
    def test_accepts_the_right_one_until_the_last_moment(self) -> None:
        last = _NOW + CODE_LIFETIME - timedelta(milliseconds=1)
        assert check_code(challenge(), _RIGHT, last) == CodeCheck(CodeOutcome.ACCEPTED, 5)
        assert check_code(challenge(1), _RIGHT, last) == CodeCheck(CodeOutcome.ACCEPTED, 1)

    @pytest.mark.parametrize("code_hash", [_RIGHT, _WRONG])
    def test_takes_none_after_five_minutes(self, code_hash: str) -> None:
        assert check_code(challenge(), code_hash, _NOW + CODE_LIFETIME) == CodeCheck(CodeOutcome.EXPIRED, 5)

    def test_five_wrong_ones_use_it_up_and_then_the_right_one_is_too_late(self) -> None:
        current = challenge()
        seen = []
        for _ in range(CODE_TRIES):
            checked = check_code(current, _WRONG, _NOW)
            seen.append(checked)
            current = current._replace(tries_left=checked.tries_left)
        assert seen == [
            *(CodeCheck(CodeOutcome.WRONG, left) for left in (4, 3, 2, 1)),
            CodeCheck(CodeOutcome.EXHAUSTED, 0),
        ]
        assert check_code(current, _RIGHT, _NOW) == CodeCheck(CodeOutcome.EXHAUSTED, 0)

    @pytest.mark.parametrize("sent", ["", "é", "0" * 64])
    def test_whatever_is_sent_is_just_wrong(self, sent: str) -> None:
        assert check_code(challenge(), sent, _NOW).outcome is CodeOutcome.WRONG
