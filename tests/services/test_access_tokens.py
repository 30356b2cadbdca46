"""Access tokens: what is in them, and that nothing else passes for one."""

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from service.domain.clock import utc_now
from service.errors import Unauthenticated
from service.services.access_tokens import issue_access_token, key_id, verify_access_token
from service.services.callers import Caller
from service.settings import Settings

_SETTINGS = Settings(_env_file=None)
_SECRET = _SETTINGS.jwt_secret.get_secret_value()
_KEY_ID = key_id(_SECRET)
_OTHER_SECRET = "another-secret-that-is-long-enough-0123456789"


class _Somebody:
    """As much of a user as a token needs; documents exist only beside a database."""

    id = "usr_1"
    roles = ("user", "admin")
    token_version = 7


def issue(**settings: Any) -> str:
    return issue_access_token(_Somebody(), Settings(_env_file=None, **settings), utc_now())  # type: ignore[arg-type]  # see above


def with_keys(current: str, previous: str) -> Settings:
    return Settings(_env_file=None, jwt_secret=SecretStr(current), jwt_secret_previous=SecretStr(previous))


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def signed(claims: dict[str, Any], secret: str = _SECRET, algorithm: str = "HS256", kid: Any = _KEY_ID) -> str:
    return jwt.encode(claims, secret, algorithm, headers={} if kid is None else {"kid": kid})


def encoded(part: Any) -> str:
    return (
        base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=").decode()
    )


class TestIssuing:
    def test_a_token_says_who_asks(self) -> None:
        assert verify_access_token(issue(), _SETTINGS) == Caller("usr_1", ("user", "admin"), 7)

    def test_every_claim_that_is_required_is_there(self) -> None:
        claims = claims_of(issue())
        assert (claims["iss"], claims["aud"], claims["typ"]) == ("wallet-service", "wallet-api", "access")
        assert claims["exp"] - claims["iat"] == 900

    def test_no_two_have_the_same_id(self) -> None:
        assert claims_of(issue())["jti"] != claims_of(issue())["jti"]

    def test_the_header_names_the_key_and_says_nothing_of_it(self) -> None:
        header = jwt.get_unverified_header(issue())
        assert header == {"alg": "HS256", "typ": "JWT", "kid": key_id(_SECRET)}
        assert len(header["kid"]) == 8
        assert header["kid"] != key_id(_OTHER_SECRET)


class TestVerifying:
    @pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub", "jti", "typ", "roles", "ver", "sid"])
    def test_refuses_a_token_without(self, claim: str) -> None:
        claims = claims_of(issue())
        assert verify_access_token(signed(claims), _SETTINGS)
        del claims[claim]
        with pytest.raises(Unauthenticated):
            verify_access_token(signed(claims), _SETTINGS)

    @pytest.mark.parametrize(
        "change",
        [
            {"aud": "another-api"},
            {"iss": "another-service"},
            {"typ": "refresh"},
            {"sub": 7},
            {"roles": "admin"},
            {"ver": "7"},
            {"sid": 7},
            {"exp": "soon"},
            {"iat": 4_000_000_000},
            {"nbf": 4_000_000_000},
        ],
        ids=str,
    )
    def test_refuses_a_token_that_says(self, change: dict[str, Any]) -> None:
        with pytest.raises(Unauthenticated):
            verify_access_token(signed(claims_of(issue()) | change), _SETTINGS)

    def test_says_when_a_token_has_expired(self) -> None:
        past = utc_now() - timedelta(seconds=906)
        token = issue_access_token(_Somebody(), _SETTINGS, past)  # type: ignore[arg-type]  # see _Somebody
        with pytest.raises(Unauthenticated, match="expired"):
            verify_access_token(token, _SETTINGS)

    def test_refuses_another_secret(self) -> None:
        token = issue(jwt_secret=_OTHER_SECRET)
        with pytest.raises(Unauthenticated):
            verify_access_token(token, _SETTINGS)

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    def test_refuses_another_algorithm_even_with_our_secret(self, algorithm: str) -> None:
        secret = _SECRET * 2  # long enough for each of them
        settings = Settings(_env_file=None, jwt_secret=secret)
        with pytest.raises(Unauthenticated):
            verify_access_token(signed(claims_of(issue()), secret, algorithm, key_id(secret)), settings)

    @pytest.mark.parametrize("kid", [None, "", "00000000", key_id(_OTHER_SECRET), key_id(_SECRET).upper(), "../key"])
    def test_refuses_a_key_that_is_not_named_or_not_known(self, kid: str | None) -> None:
        with pytest.raises(Unauthenticated):
            verify_access_token(signed(claims_of(issue()), kid=kid), _SETTINGS)

    def test_refuses_a_key_that_is_not_the_one_that_is_named(self) -> None:
        settings = with_keys(_SECRET, _OTHER_SECRET)
        for secret, other in ((_SECRET, _OTHER_SECRET), (_OTHER_SECRET, _SECRET)):
            with pytest.raises(Unauthenticated):
                verify_access_token(signed(claims_of(issue()), secret, kid=key_id(other)), settings)

    def test_refuses_a_token_without_a_signature(self) -> None:
        _, payload, signature = issue().split(".")
        for name in ("none", "None", "NONE"):
            header = encoded({"alg": name, "typ": "JWT", "kid": key_id(_SECRET)})
            for forged in (f"{header}.{payload}.", f"{header}.{payload}.{signature}"):
                with pytest.raises(Unauthenticated):
                    verify_access_token(forged, _SETTINGS)

    def test_refuses_other_claims_under_the_same_signature(self) -> None:
        header, _, signature = issue().split(".")
        payload = encoded(claims_of(issue()) | {"sub": "usr_2"})
        with pytest.raises(Unauthenticated):
            verify_access_token(f"{header}.{payload}.{signature}", _SETTINGS)

    def test_refuses_one_that_is_longer_than_any_of_ours(self) -> None:
        with pytest.raises(Unauthenticated):
            verify_access_token(signed(claims_of(issue()) | {"padding": "x" * 2048}), _SETTINGS)

    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "a.b.c",
            "ключ.ключ.ключ",
            "\ud800",
            encoded(b"[" * 100_000) + ".e30.e30",
            encoded(b"[" * 1_400) + ".e30.e30",
            encoded({"alg": {}}) + ".e30.e30",
            encoded({"alg": "HS256", "kid": []}) + ".e30.e30",
            encoded({"alg": "HS256", "crit": ["x"]}) + ".e30.e30",
            encoded({"alg": "HS256", "b64": False, "crit": ["b64"]}) + ".e30.e30",
            encoded(b'{"alg":' + b"1" * 1_000 + b"}") + ".e30.e30",
            encoded([]) + ".e30.e30",
            "x" * 1_000_000,
        ],
        ids=lambda token: token[:12].encode("ascii", "backslashreplace").decode(),
    )
    def test_refuses_nonsense_plainly(self, token: str) -> None:
        with pytest.raises(Unauthenticated) as refused:
            verify_access_token(token, _SETTINGS)
        assert refused.value.message == "The access token is not valid"


class TestRotatingTheKey:
    def test_what_either_key_has_signed_holds_and_the_new_one_signs(self) -> None:
        before = issue(jwt_secret=_SECRET)
        during = with_keys(_OTHER_SECRET, _SECRET)
        fresh = issue_access_token(_Somebody(), during, utc_now())  # type: ignore[arg-type]  # see _Somebody
        assert jwt.get_unverified_header(fresh)["kid"] == key_id(_OTHER_SECRET)
        assert verify_access_token(before, during).user_id == verify_access_token(fresh, during).user_id == "usr_1"
        after = Settings(_env_file=None, jwt_secret=SecretStr(_OTHER_SECRET))
        assert verify_access_token(fresh, after)
        with pytest.raises(Unauthenticated):
            verify_access_token(before, after)

    def test_a_key_can_be_made_known_before_it_signs(self) -> None:
        """So that processes may be restarted one after the other: those that sign anew find all others ready."""
        fresh = issue(jwt_secret=_OTHER_SECRET)
        assert verify_access_token(fresh, with_keys(_SECRET, _OTHER_SECRET))
        with pytest.raises(Unauthenticated):
            verify_access_token(fresh, _SETTINGS)

    def test_what_the_previous_key_has_signed_expires_when_it_says(self) -> None:
        past = utc_now() - timedelta(seconds=906)
        token = issue_access_token(_Somebody(), _SETTINGS, past)  # type: ignore[arg-type]  # see _Somebody
        with pytest.raises(Unauthenticated, match="expired"):
            verify_access_token(token, with_keys(_OTHER_SECRET, _SECRET))
