"""Rate limits over HTTP: which ones a request falls under, whose they are, and what its client is told of them.

Pure ASGI, inside the request's log line and id: what is refused costs no routing, and is logged like anything else.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from time import time

from limits import RateLimitItem, RateLimitItemPerMinute
from starlette.requests import Request, cookie_parser
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.controllers.client_address import LARGEST_SHARE, client_address, networks_of
from service.controllers.cookies import ACCESS_COOKIE
from service.controllers.problems import problem_response
from service.domain.keys import KeyPurpose, derive_key
from service.errors import RateLimitExceeded, Unauthenticated
from service.gateways.rate_limits import Claim, RateLimits, Standing, claim, shared_claim
from service.metrics import rate_limited
from service.services.access_tokens import verify_access_token
from service.services.ended_tokens import EndedTokens
from service.settings import Settings

# Who asks whether we live, and the bank: neither must ever be turned away.
EXEMPT_PATHS = frozenset({"/health", "/livez", "/readyz", "/metrics", "/webhooks/bank-callback"})
LOGIN_PATHS = "/api/v1/auth/"
BALANCE_PATHS = ("/api/v1/users/{user_id}/balance",)
TRANSACTIONS_PATHS = ("/api/v1/users/{user_id}/transactions", "/api/v1/wallets/{wallet_id}/transactions")
REPORTS_PATHS = (
    "/api/v1/wallets/{wallet_id}/statement",
    "/api/v1/wallets/{wallet_id}/spending",
    "/api/v1/wallets/{wallet_id}/proof",
    "/api/v1/wallets/{wallet_id}/absence-proof",
    "/api/v1/wallets/{wallet_id}/transactions/{entry_id}/proof",
)

# Where the middleware leaves the headers for an answer that does not pass it, such as that to a crash.
SCOPE_HEADERS = "rate_limit_headers"
# And where it leaves the limits that were charged.
_SCOPE_CLAIMS = "rate_limit_claims"

_API_KEY_LENGTH_LIMIT = 256
_REMEMBERED_KEYS = 10_000


class RateLimiting:
    """Asks before anything else is done; the answer's headers tell of the limit that is nearest to being reached."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._everybody = _per_minute("everybody", settings.rate_limit_global)
        self._anonymous = _per_minute("anonymous", settings.rate_limit_anonymous)
        self._caller = _per_minute("caller", settings.rate_limit_user)
        # By the share that a network has.
        self._address = [
            _per_minute("address", share * settings.rate_limit_address) for share in range(LARGEST_SHARE + 1)
        ]
        self._login = [_per_minute("login", share * settings.rate_limit_login) for share in range(LARGEST_SHARE + 1)]
        # By the very expressions that routing goes by: there must be no spelling that only one of the two knows.
        self._of_paths = [
            (compile_path(path)[0], limit)
            for name, amount, paths in (
                ("balance", settings.rate_limit_balance, BALANCE_PATHS),
                ("transactions", settings.rate_limit_transactions, TRANSACTIONS_PATHS),
                ("reports", settings.rate_limit_reports, REPORTS_PATHS),
            )
            if (limit := _per_minute(name, amount)) is not None
            for path in paths
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in EXEMPT_PATHS:
            await self._app(scope, receive, send)
            return
        resources = scope["app"].state.resources
        limits: RateLimits = resources.rate_limits
        claims = self._claims(scope, limits, resources.ended_tokens)
        if not claims:
            await self._app(scope, receive, send)
            return
        standing = await limits.take(claims)
        headers = _headers_of(standing)
        scope[SCOPE_HEADERS] = headers
        scope[_SCOPE_CLAIMS] = claims

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        if standing.is_granted:
            await self._app(scope, receive, send_with_headers)
        else:
            rate_limited(standing.name)
            refusal = RateLimitExceeded(retry_after_s=standing.retry_after_s)
            await problem_response(refusal)(scope, receive, send_with_headers)

    def _claims(self, scope: Scope, limits: RateLimits, ended_tokens: EndedTokens) -> list[Claim]:
        path: str = scope["path"]
        claims: list[Claim] = []
        caller = self._identify(scope, limits, ended_tokens)
        networks: Sequence[tuple[str, int]] = ()
        if caller is None or path.startswith(LOGIN_PATHS):
            networks = networks_of(client_address(scope, self._settings.trusted_proxies))
        if path.startswith(LOGIN_PATHS):
            claims += _of_networks(self._login, networks)
        if caller is not None:
            # A WebSocket has no method, and no token either: its ticket does not count for anybody.
            if scope.get("method") == "GET":
                claims += [claim(limit, caller) for expression, limit in self._of_paths if expression.match(path)]
            if self._caller is not None:
                claims.append(claim(self._caller, caller))
            if self._everybody is not None:
                claims.append(shared_claim(self._everybody, caller))
        else:
            claims += _of_networks(self._address, networks)
            if self._anonymous is not None:
                # By the widest of the networks: whoever has many of the narrow ones is one customer.
                claims.append(shared_claim(self._anonymous, networks[-1][0]))
        return claims

    def _identify(self, scope: Scope, limits: RateLimits, ended_tokens: EndedTokens) -> str | None:
        """The user of a token that holds, or an API key that has held before; anybody can make up others."""
        sent = api_key = cookie = None
        for name, value in scope["headers"]:
            # Of several the first one, which is what the gate goes by.
            if name == b"authorization" and sent is None:
                sent = value
            elif name == b"x-api-key" and api_key is None:
                api_key = value
            elif name == b"cookie" and cookie is None:
                cookie = value
        scheme, _, token = (sent or b"").decode("latin-1").partition(" ")
        if sent is None and api_key is None and cookie is not None:
            scheme, token = "bearer", cookie_parser(cookie.decode("latin-1")).get(ACCESS_COOKIE, "")
        if token and scheme.lower() == "bearer":
            user_id = self._user_of(token, ended_tokens)
            if user_id is not None:
                return user_id
        if api_key is not None and len(api_key) <= _API_KEY_LENGTH_LIMIT:
            digest = _digest(api_key, self._settings.root_key)
            return digest if limits.knows(digest) else None
        return None

    def _user_of(self, token: str, ended_tokens: EndedTokens) -> str | None:
        """None too for a token that ended: whoever has it must not use up what its owner may ask."""
        try:
            caller = verify_access_token(token, self._settings)
        except Unauthenticated:
            return None
        return None if ended_tokens.has(caller) else caller.user_id


async def charge_further(request: Request, further: int) -> None:
    """Charges what a request costs beyond 1, once its body tells. Raises RateLimitExceeded.

    Whoever is within their limits passes, and may be beyond them afterwards: nothing larger than a limit could pass
    otherwise.
    """
    claims = request.scope.get(_SCOPE_CLAIMS)
    if not claims or further <= 0:
        return
    standing = await request.app.state.resources.rate_limits.take(claims, further)
    request.scope[SCOPE_HEADERS][:] = _headers_of(standing)
    if not standing.is_granted:
        rate_limited(standing.name)
        raise RateLimitExceeded(retry_after_s=standing.retry_after_s)


def _of_networks(limits: Sequence[RateLimitItem | None], networks: Sequence[tuple[str, int]]) -> list[Claim]:
    """One for each network, so many times as wide as its share says."""
    found = [(limits[share], name) for name, share in networks]
    return [claim(limit, name) for limit, name in found if limit is not None]


def remember_api_key(api_key: str, settings: Settings, limits: RateLimits) -> None:
    """To be called once the key has been verified: from then on it is counted by itself, not by its address."""
    limits.remember(_digest(api_key.encode("latin-1", "replace"), settings.root_key))


@lru_cache(_REMEMBERED_KEYS)
def _digest(api_key: bytes, root_key: bytes) -> str:
    """What stands for the key in Redis, from where nobody can get it back."""
    secret = derive_key(root_key, KeyPurpose.REDIS_KEYS)
    return "key-" + hashlib.blake2b(api_key, key=secret, digest_size=16).hexdigest()


def _per_minute(name: str, amount: int) -> RateLimitItem | None:
    """None where it is turned off."""
    return RateLimitItemPerMinute(amount, namespace=name) if amount else None


def _headers_of(standing: Standing) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit", b"%d" % standing.amount),
        (b"x-ratelimit-remaining", b"%d" % standing.left),
        (b"x-ratelimit-reset", b"%d" % math.ceil(time() + standing.reset_in_s)),
    ]


def has_rate_limits(settings: Settings) -> bool:
    return any(
        (
            settings.rate_limit_global,
            settings.rate_limit_anonymous,
            settings.rate_limit_user,
            settings.rate_limit_address,
            settings.rate_limit_login,
            settings.rate_limit_balance,
            settings.rate_limit_transactions,
            settings.rate_limit_reports,
        )
    )
