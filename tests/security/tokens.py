"""Forged, stale and strange tokens: none opens a route."""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import jwt
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.settings import Settings
from tests.security.findings import Finding, weigh
from tests.security.target import Target
from tests.security.world import ADMIN, ROLES, Person, send

# The whole list is tried on these; each other route gets what is in _EVERYWHERE.
_WHOLE: Final = ("GET /api/v1/me", "POST /api/v1/withdrawals", "GET /api/v1/admin/trial-balance")
_EVERYWHERE: Final = frozenset(
    {"alg none", "another key", "expired", "promoted without a signature", "no signature", "empty", "Basic"}
)
_OTHER_SECRET: Final = "not-the-secret-of-this-service-0123456789abcdef"
_DEPTH = 1_000
_LONG = 10_000
_MINUTE_S = 60


class Forgery(NamedTuple):
    name: str
    headers: dict[str, str]
    query: dict[str, str]


async def attack(target: Target) -> list[Finding]:
    findings = []
    for route in target.routes:
        if not route.is_secured:
            continue
        role = target.world.lowest_role(route)
        person = await target.world.someone(role, "attacker")
        admin = await target.world.someone(ADMIN, "attacker")
        ids, query, body = await person.ids_for(route), await person.query_for(route), await person.body_for(route)
        for forgery in _forgeries(person, admin, target.world.settings):
            if str(route) not in _WHOLE and forgery.name not in _EVERYWHERE:
                continue
            answer = await send(
                target.api, route, forgery.headers, ids=ids, query={**query, **forgery.query}, body=body
            )
            attack = f"token: {forgery.name}"
            # A parameter that no route has is refused before anybody asks who is there.
            found = weigh(answer, route, attack, allowed={401, 422} if forgery.query else {401})
            if not found and answer.status_code == 401 and "WWW-Authenticate" not in answer.headers:
                found.append(Finding(str(route), attack, "WWW-Authenticate is missing"))
            findings += found
    return findings + await _stale(target)


async def _stale(target: Target) -> list[Finding]:
    """A token that is good, of somebody who may not any more, on every route that moves money: their own money."""
    findings = []
    world = target.world
    money = [route for route in target.routes if route.needs_key]
    for fate in ("deactivated", "demoted", "gone"):
        people = {role: await world.someone(role, fate) for role in ROLES}
        requests = []
        for route in money:
            person = people[world.lowest_role(route)]
            requests.append((route, person, await person.ids_for(route), await person.body_for(route)))
        for person in people.values():
            await _suffer(person, fate)
        # Who is not there has nothing, so that nothing is there may be said as well.
        allowed = {401, 403, 404} if fate == "gone" else {401, 403}
        for route, person, ids, body in requests:
            answer = await send(target.api, route, person.headers, ids=ids, body=body)
            findings += weigh(answer, route, f"token of somebody {fate}", allowed=allowed)
    return findings


async def _suffer(person: Person, fate: str) -> None:
    """Past the service's own routes, which have ways of their own of telling sessions."""
    users = person.world.databases.wallet["users"]
    if fate == "deactivated":
        await users.update_one({"_id": person.user.id}, {"$set": {"is_active": False}})
    elif fate == "demoted":
        await users.update_one({"_id": person.user.id}, {"$set": {"token_version": 7}})
    else:
        person.headers = person.world.token_of_nobody(person)


class Mint:
    """Makes tokens from a genuine one of somebody, with our own key or another."""

    def __init__(self, person: Person, settings: Settings) -> None:
        self.genuine = person.headers["Authorization"].partition(" ")[2]
        self.header: dict[str, Any] = jwt.get_unverified_header(self.genuine)
        self.claims: dict[str, Any] = jwt.decode(self.genuine, options={"verify_signature": False})
        self.key = _key_of(self.genuine, settings)
        self.head, self.payload, self.signature = self.genuine.split(".")

    @staticmethod
    def bearer(name: str, token: str) -> Forgery:
        return Forgery(name, {"Authorization": f"Bearer {token}"}, {})

    def with_claims(self, name: str, **change: Any) -> Forgery:
        """Signed with our own key: whatever is wrong with it, the signature is not. `...` takes a claim away."""
        changed = {claim: value for claim, value in {**self.claims, **change}.items() if value is not ...}
        return self.bearer(name, _sign(self.header, changed, self.key))

    def with_header(self, name: str, key: bytes | None = None, **change: Any) -> Forgery:
        return self.bearer(name, _sign({**self.header, **change}, self.claims, self.key if key is None else key))


def _forgeries(person: Person, admin: Person, settings: Settings) -> Iterator[Forgery]:
    mint = Mint(person, settings)
    yield from _by_algorithm(mint)
    yield from _by_key(mint, settings)
    yield from _by_claims(mint, person)
    yield from _by_parts(mint, Mint(admin, settings))
    yield from _by_shape(mint)
    yield from _by_carrier(mint, admin)


def _by_algorithm(mint: Mint) -> Iterator[Forgery]:
    for none in ("none", "None", "NONE", "nOnE", "", None, 0, ["none"], "HS256,none"):
        named = f"{_encoded({**mint.header, 'alg': none})}.{mint.payload}."
        yield mint.bearer("alg none" if none == "none" else f"alg {none!r} and no signature", named)
        yield mint.bearer(f"alg {none!r} and the old signature", f"{named}{mint.signature}")
    for algorithm, digest in (("HS512", "sha512"), ("HS384", "sha384")):
        header = {**mint.header, "alg": algorithm}
        yield mint.bearer(f"alg {algorithm}", _sign(header, mint.claims, mint.key, digest))
    for algorithm in ("RS256", "ES256", "PS256", "EdDSA"):
        yield mint.with_header(f"alg {algorithm} with the secret as its key", alg=algorithm)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    yield mint.bearer("ES256 by a key of one's own", jwt.encode(mint.claims, elliptic, "ES256", headers=_kid_of(mint)))
    public = elliptic.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    yield mint.with_header("HS256 under a public key in PEM", public)
    yield mint.with_header("a critical extension that nobody knows", crit=["exp"])


def _kid_of(mint: Mint) -> dict[str, Any]:
    return {"kid": mint.header["kid"]} if "kid" in mint.header else {}


def _by_key(mint: Mint, settings: Settings) -> Iterator[Forgery]:
    other = _OTHER_SECRET.encode()
    secret = settings.jwt_secret.get_secret_value().encode()
    yield mint.with_header("another key", other)
    yield mint.with_header("an empty key", b"")
    yield mint.with_header("a hash of the key", hashlib.sha256(mint.key).digest())
    if secret != mint.key:
        yield mint.with_header("the setting's own text as the key", secret)
    yield mint.with_header("a key in the header", other, jwk={"kty": "oct", "k": _base64(other)})
    yield mint.with_header("keys at an address", other, jku="http://127.0.0.1/keys", x5u="http://127.0.0.1/c")
    for kid in (
        "unknown", "../../../../../../dev/null", "/etc/passwd", "' OR '1'='1", "' UNION SELECT 'key'--", "", 0, True,
        ["a"], {"$ne": ""}, "\0", "a" * 1_000, "http://127.0.0.1/keys", "| id",
    ):  # fmt: skip
        yield mint.with_header(f"kid {kid!r:.40} with another key", other, kid=kid)
        yield mint.with_header(f"kid {kid!r:.40} with an empty key", b"", kid=kid)


def _by_claims(mint: Mint, person: Person) -> Iterator[Forgery]:
    now = int(time.time())
    yield mint.with_claims("expired", exp=now - _MINUTE_S, iat=now - 2 * _MINUTE_S)
    yield mint.with_claims("not valid yet", nbf=now + _MINUTE_S)
    yield mint.with_claims("issued in the future", iat=now + _MINUTE_S)
    for claim in mint.claims:
        yield mint.with_claims(f"without {claim}", **{claim: ...})
        yield mint.with_claims(f"{claim} is null", **{claim: None})
        yield mint.with_claims(f"{claim} is an object", **{claim: {"$gt": ""}})
        yield mint.with_claims(f"{claim} is a list", **{claim: [{"$gt": ""}]})
    yield mint.with_claims("another audience", aud="other-api")
    yield mint.with_claims("another audience in a list", aud=["other-api"])
    yield mint.with_claims("another issuer", iss="other-service")
    yield mint.with_claims("another type", typ="refresh")
    yield mint.with_claims("expires in text", exp="tomorrow")
    yield mint.with_claims("never expires", exp=1e400)
    yield mint.with_claims("roles in text", roles="admin")
    yield mint.with_claims("10 kB of claims", sub=person.user.id, padding="x" * _LONG)


def _by_parts(mint: Mint, admins: Mint) -> Iterator[Forgery]:
    promoted = _encoded({**mint.claims, "roles": ["user", "service", "admin"]})
    yield mint.bearer("promoted without a signature", f"{mint.head}.{promoted}.{mint.signature}")
    yield mint.bearer("a forged and a genuine one", f"{mint.head}.{promoted}.{mint.signature}, Bearer {mint.genuine}")
    if admins.genuine != mint.genuine:
        yield mint.bearer("an admin's claims, one's own signature", f"{mint.head}.{admins.payload}.{mint.signature}")
        yield mint.bearer("one's own claims, an admin's signature", f"{mint.head}.{mint.payload}.{admins.signature}")
    yield mint.bearer("no signature", f"{mint.head}.{mint.payload}.")
    yield mint.bearer("half a signature", mint.genuine[: -len(mint.signature) // 2])
    yield mint.bearer("two parts", f"{mint.head}.{mint.payload}")
    yield mint.bearer("four parts", f"{mint.genuine}.{mint.signature}")
    yield mint.bearer("five parts, as if it were encrypted", f"{mint.genuine}.{mint.payload}.{mint.signature}")
    yield mint.bearer("nothing but dots", "..")
    yield mint.bearer("empty parts", f".{mint.payload}.{mint.signature}")
    yield mint.bearer("a signature that is not base64", f"{mint.head}.{mint.payload}.!!!!")
    yield mint.bearer("empty", "")


def _by_shape(mint: Mint) -> Iterator[Forgery]:
    for name, content in {
        "not JSON": b"{",
        "a bomb of brackets": b"[" * _DEPTH,
        "a bomb of objects": b'{"a":' * _DEPTH,
        "not UTF-8": b"\xff\xfe",
        "a list": b"[]",
        "a number": b"1",
        "nothing": b"",
    }.items():
        yield mint.bearer(f"a header that is {name}", f"{_base64(content)}.{mint.payload}.{mint.signature}")
        signed = f"{mint.head}.{_base64(content)}"
        seal = _base64(hmac.digest(mint.key, signed.encode(), "sha256"))
        yield mint.bearer(f"claims that are {name}", f"{signed}.{seal}")
    yield mint.bearer("10 kB", "A" * _LONG)
    yield mint.bearer("10 kB in three parts", f"{mint.head}.{'A' * _LONG}.{mint.signature}")


def _by_carrier(mint: Mint, admin: Person) -> Iterator[Forgery]:
    genuine = mint.genuine
    yield Forgery("Basic", {"Authorization": f"Basic {_base64(b'admin:admin')}"}, {})
    yield Forgery("a genuine one as Basic", {"Authorization": f"Basic {genuine}"}, {})
    yield Forgery("a genuine one without a scheme", {"Authorization": genuine}, {})
    yield Forgery("a genuine one in the query", {}, {"access_token": genuine})
    yield Forgery("a genuine one in a cookie", {"Cookie": f"access_token={genuine}; token={genuine}"}, {})
    yield Forgery("a genuine one in another header", {"X-Access-Token": genuine, "Proxy-Authorization": genuine}, {})
    yield Forgery("who one is, in a header", {"X-User-Id": admin.user.id, "X-Roles": "admin"}, {})


def _key_of(token: str, settings: Settings) -> bytes:
    """The very key that our tokens are signed with, wherever it comes from; found by what it signs."""
    head, payload, signature = token.split(".")
    for key in _signing_keys(settings):
        if _base64(hmac.digest(key, f"{head}.{payload}".encode(), "sha256")) == signature:
            return key
    raise AssertionError("tell _signing_keys of tests/security/tokens.py where the key of access tokens comes from")


def _signing_keys(settings: Settings) -> Iterator[bytes]:
    yield from (secret.encode() for secret in settings.jwt_secrets)


def _sign(header: Any, claims: Any, key: bytes, digest: str = "sha256") -> str:
    """By hand: PyJWT would refuse to make some of these."""
    signed = f"{_encoded(header)}.{_encoded(claims)}"
    return f"{signed}.{_base64(hmac.digest(key, signed.encode(), digest))}"


def _encoded(part: Any) -> str:
    return _base64(orjson.dumps(part))


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
