"""Authenticator codes and recovery codes, without a database."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from service.domain.totp import hash_recovery_code, matching_step, otpauth_uri, recovery_code

# The secret and the times of RFC 6238, appendix B; its codes have eight digits, of which the last six are ours.
_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class TestMatchingStep:
    @pytest.mark.parametrize(
        ("seconds", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (2000000000, "279037")]
    )
    def test_knows_the_codes_of_the_standard(self, seconds: int, code: str) -> None:
        assert matching_step(_SECRET, code, at(seconds)) == seconds // 30

    def test_takes_the_neighbouring_steps_and_says_which(self) -> None:
        step = 1111111109 // 30
        for away, expected in ((-60, None), (-30, step), (0, step), (30, step), (60, None)):
            assert matching_step(_SECRET, "081804", at(1111111109 + away)) == expected

    @pytest.mark.parametrize("code", ["081 804", " 081804 ", "081-804"])
    def test_takes_a_code_as_people_type_it(self, code: str) -> None:
        assert matching_step(_SECRET, code, at(1111111109)) is not None

    @pytest.mark.parametrize("code", ["", "81804", "0081804", "08180a", "०८१८०४", "\uff1081804", "081804\0", "-81804"])
    def test_takes_nothing_that_is_not_six_plain_digits(self, code: str) -> None:
        assert matching_step(_SECRET, code, at(1111111109)) is None


class TestOtpauthUri:
    def test_tells_an_app_all_it_needs(self) -> None:
        uri = urlsplit(otpauth_uri(_SECRET, "asha+x@example.com"))
        assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/Wallet%20service:asha%2Bx%40example.com")
        assert parse_qs(uri.query) == {"secret": [_SECRET], "issuer": ["Wallet service"]}


class TestRecoveryCodes:
    def test_are_four_groups_of_four_letters(self) -> None:
        assert recovery_code(b"0123456789") == "GAYT-EMZU-GU3D-OOBZ"

    @pytest.mark.parametrize("typed", ["gayt-emzu-gu3d-oobz", "GAYTEMZUGU3DOOBZ", " gayt emzu gu3d oobz\n"])
    def test_hash_alike_however_they_are_typed(self, typed: str) -> None:
        assert hash_recovery_code(_SECRET, "usr_1", typed) == hash_recovery_code(
            _SECRET, "usr_1", "GAYT-EMZU-GU3D-OOBZ"
        )

    def test_hash_differently_for_others_and_under_another_secret(self) -> None:
        hashes = {
            hash_recovery_code(secret, user_id, "GAYT-EMZU-GU3D-OOBZ")
            for secret in (_SECRET, _SECRET[::-1])
            for user_id in ("usr_1", "usr_2")
        }
        assert len(hashes) == 4
