"""Addresses that a client makes up, one for each request: the limits go on counting where it really comes from."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any, Final
from uuid import uuid4

import httpx

from service.gateways.quick_redis import QuickRedis
from service.gateways.rate_limits import RateLimits
from service.main import create_app
from service.services.login_guard import LoginGuard
from service.startup import Resources
from tests.factories import make_email
from tests.security.findings import Finding, weigh
from tests.security.routes import Route
from tests.security.target import Target
from tests.security.world import USER
from tests.servers import NO_RATE_LIMITS

_LIMIT: Final = 4
_TRIES: Final = 2
# Those that are not counted at all: for orchestrators, and for the bank, whose requests are signed.
_UNCOUNTED: Final = frozenset({"/livez", "/readyz", "/health", "/metrics", "/webhooks/bank-callback"})
_TOO_MANY: Final = 429
_PROXY: Final = "10.1.2.3"

# The n-th address, in each way that something between a client and a server may be told one.
_SPOOFS: Final[dict[str, Callable[[int], list[tuple[str, str]]]]] = {
    "X-Forwarded-For": lambda n: [("X-Forwarded-For", f"203.0.113.{n}")],
    "X-Forwarded-For with many": lambda n: [("X-Forwarded-For", f"203.0.113.{n}, 198.51.100.{n}, 10.0.0.{n}")],
    "X-Forwarded-For twice": lambda n: [("X-Forwarded-For", f"203.0.113.{n}"), ("X-Forwarded-For", f"192.0.2.{n}")],
    "X-Forwarded-For with IPv6": lambda n: [("X-Forwarded-For", f"2001:db8:{n}::1")],
    "X-Forwarded-For with a port": lambda n: [("x-forwarded-for", f"203.0.113.{n}:4711")],
    "X-Forwarded-For of this machine": lambda n: [("X-Forwarded-For", f"127.0.0.{n}")],
    "X-Forwarded-For that is no address": lambda n: [("X-Forwarded-For", f"unknown-{n}\t,,;{'x' * n}")],
    "Forwarded": lambda n: [("Forwarded", f'for=203.0.113.{n};proto=https, for="[2001:db8::{n}]:4711"')],
    **{
        name: (lambda n, name=name: [(name, f"203.0.113.{n}")])  # type: ignore[misc]  # the name as it is now
        for name in (
            "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Originating-IP", "X-Remote-IP",
            "X-Cluster-Client-IP", "Fastly-Client-IP", "X-Forwarded", "X-ProxyUser-Ip", "Client-IP", "Via",
        )
    },
}  # fmt: skip


async def attack(target: Target) -> list[Finding]:
    findings = []
    public = [route for route in target.routes if not route.is_secured and route.path not in _UNCOUNTED]
    peers = _peers()
    for number, (name, spoof) in enumerate(_SPOOFS.items()):
        # Each route with some of the ways, each way on some of the routes.
        for route in public[number % 3 :: 3]:
            async with _face(target, rate_limit_address=_LIMIT) as ask:
                findings += await _evading(ask, route, name, spoof, next(peers))
    for name, spoof in _SPOOFS.items():
        if name.startswith("X-Forwarded-For"):
            async with _face(target, rate_limit_address=_LIMIT, trusted_proxies=(ip_network("10.0.0.0/8"),)) as ask:
                findings += await _evading(ask, public[0], f"{name} through a proxy", _passed_on(spoof), _PROXY)
    async with _face(target, rate_limit_user=_LIMIT) as ask:
        findings += await _as_a_user(target, ask)
    async with _face(target, login_tries=_TRIES) as ask:
        findings += await _guessing(ask)
    return findings


_Ask = Callable[..., Any]


@asynccontextmanager
async def _face(target: Target, **limits: Any) -> AsyncIterator[_Ask]:
    """An app with limits that count in a space of their own."""
    resources: Resources = target.world.resources
    space = {**NO_RATE_LIMITS, **limits, "database": uuid4().hex}
    settings = resources.settings.model_copy(update=space)
    redis = QuickRedis(settings)
    app = create_app(settings)
    app.state.resources = resources._replace(
        settings=settings, rate_limits=RateLimits(redis), login_guard=LoginGuard(redis, settings)
    )

    async def ask(method: str, path: str, peer: str, headers: list[tuple[str, str]], **body: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(peer, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://wallet.example") as client:
            return await client.request(method, path, headers=headers, **body)

    try:
        yield ask
    finally:
        await redis.close()


def _peers() -> Iterator[str]:
    """Addresses that connections really come from."""
    yield from (f"198.18.{high}.{low}" for high in range(256) for low in range(1, 256))


def _passed_on(spoof: Callable[[int], list[tuple[str, str]]]) -> Callable[[int], list[tuple[str, str]]]:
    """A proxy of ours adds where it got the request from, behind what the client has made up."""
    return lambda number: [*spoof(number), ("X-Forwarded-For", "198.18.255.1")]


async def _evading(
    ask: _Ask, route: Route, name: str, spoof: Callable[[int], list[tuple[str, str]]], peer: str
) -> list[Finding]:
    url = route.url(dict.fromkeys(route.path_parameters, "1"))
    answers = [await ask(route.method, url, peer, spoof(number), content=b"") for number in range(1, 2 * _LIMIT + 1)]
    let_through = sum(answer.status_code != _TOO_MANY for answer in answers)
    if let_through > _LIMIT:
        return [Finding(str(route), name, f"{let_through} requests were let through, the limit is {_LIMIT}")]
    return weigh(answers[-1], route, name, allowed={_TOO_MANY})


async def _as_a_user(target: Target, ask: _Ask) -> list[Finding]:
    """One token from everywhere."""
    person = await target.world.someone(USER, "attacker")
    token = list(person.headers.items())
    statuses = []
    for number, spoof in enumerate([*_SPOOFS.values()][: 3 * _LIMIT]):
        answer = await ask("GET", "/api/v1/wallets", f"198.19.0.{number + 1}", [*token, *spoof(number)])
        statuses.append(answer.status_code)
    if sum(status != _TOO_MANY for status in statuses) > _LIMIT:
        return [Finding("GET /api/v1/wallets", "one token from everywhere", f"the limit is {_LIMIT}: {statuses}")]
    return []


async def _guessing(ask: _Ask) -> list[Finding]:
    """Passwords of one account, each from another address as far as the headers go."""
    credentials = {"email": make_email(), "password": "not-the-password-of-anybody"}
    statuses = []
    for number in range(_TRIES + 3):
        spoofed = _SPOOFS["X-Forwarded-For"](number)
        answer = await ask("POST", "/api/v1/auth/login", "198.19.1.1", spoofed, json=credentials)
        statuses.append(answer.status_code)
    if sum(status != _TOO_MANY for status in statuses) > _TRIES:
        return [Finding("POST /api/v1/auth/login", "guessing", f"{_TRIES} tries are free, these were: {statuses}")]
    return []
