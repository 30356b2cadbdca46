"""What wraps every request: its id, security headers, limits, one log line, a plain 500 where the code has a defect.

Pure ASGI: one BaseHTTPMiddleware would halve the throughput.
"""

import re
from collections.abc import Collection
from time import perf_counter

import structlog
from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from service import metrics, tracing
from service.controllers.problems import problem_response, route_template
from service.controllers.rate_limits import SCOPE_HEADERS, RateLimiting, has_rate_limits
from service.controllers.security_headers import SECURITY_HEADERS
from service.errors import HeadersTooLarge, InternalError, Malformed, UriTooLong, WalletServiceError
from service.settings import Environment, Settings

log = structlog.get_logger()

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{8,128}")
_QUIET_PATHS = frozenset({"/health", "/livez", "/readyz", "/metrics"})
# Ours need a few hundred bytes; proxies on the way refuse much more anyway.
URI_LIMIT_BYTES = 8 * 1024
HEADERS_LIMIT = 100

# Two years, as browsers' preload lists ask for.
_HTTPS_ONLY = {"Strict-Transport-Security": "max-age=63072000; includeSubDomains"}

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SENT_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "X-API-Key",
    "X-CSRF-Token",
    "X-Request-ID",
    "traceparent",
)
_SHOWN_HEADERS = (
    "X-Request-ID",
    "Idempotent-Replayed",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Content-Disposition",
    "traceparent",
    "WWW-Authenticate",
)
_PREFLIGHT_HOLDS_S = 600
# Of a request, and of a handshake that is refused.
_ANSWER_BEGINS = frozenset({"http.response.start", "websocket.http.response.start"})
_CONNECTED = 101
_SERVER_ERROR = 500


def add_middleware(app: FastAPI, settings: Settings) -> None:
    """What is added later is further out."""
    if has_rate_limits(settings):
        app.add_middleware(RateLimiting, settings=settings)
    app.add_middleware(RequestLimits, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(Traces)
    app.add_middleware(RequestLog)
    if settings.cors_origins:
        # Credentials are the cookies of whoever is logged in by them (controllers/cookies.py). SameSite keeps them from
        # other sites all the same, so this is for pages of one's own site on another host.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=_METHODS,
            allow_headers=_SENT_HEADERS,
            expose_headers=_SHOWN_HEADERS,
            max_age=_PREFLIGHT_HOLDS_S,
        )
    # Everything inside knows the request's id.
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name="X-Request-ID",
        generator=lambda: uuid4().hex,
        validator=lambda sent: _SANE_REQUEST_ID.fullmatch(sent) is not None,
        transformer=None,
    )
    app.add_middleware(SecurityHeaders, is_https_only=settings.env is Environment.PRODUCTION)


class SecurityHeaders:
    """Adds to every answer what it has not set itself."""

    def __init__(self, app: ASGIApp, *, is_https_only: bool) -> None:
        self._app = app
        headers = SECURITY_HEADERS | (_HTTPS_ONLY if is_https_only else {})
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _ANSWER_BEGINS:
                sent = message.setdefault("headers", [])
                own = self._names.intersection([name for name, _ in sent])
                # Nearly no answer has one of its own.
                added = [header for header in self._headers if header[0] not in own] if own else self._headers
                message["headers"] = [*sent, *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class RequestLimits:
    """Refuses what no client of ours sends, before anything looks at it: long addresses, many headers, other hosts."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.encode() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> WalletServiceError | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > URI_LIMIT_BYTES:
            return UriTooLong()
        if len(scope["headers"]) > HEADERS_LIMIT:
            return HeadersTooLarge()
        if self._hosts and scope["path"] not in _QUIET_PATHS:
            # Probes come by whatever address the machine has; everybody else knows a name.
            named = [value.lower().partition(b":")[0] for name, value in scope["headers"] if name == b"host"]
            if len(named) != 1 or named[0] not in self._hosts:
                return Malformed("The Host header names another host")
        return None


class Traces:
    """Goes on with the trace that a client has begun, or begins one where tracing is on; its answer says which."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET_PATHS:
            await self._app(scope, receive, send)
            return
        sent = [value for name, value in scope["headers"] if name == b"traceparent"]
        # Of several nobody knows which one is meant.
        caller = tracing.parse_traceparent(sent[0].decode("latin-1")) if len(sent) == 1 else None
        if caller is None and not tracing.is_on():
            await self._app(scope, receive, send)
            return
        with tracing.continued(caller, scope["method"], "server") as span:
            traceparent = tracing.current_traceparent() or ""

            async def send_and_tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, scope, message["status"])
                    message["headers"] = [*message.get("headers", ()), (b"traceparent", traceparent.encode())]
                await send(message)

            try:
                await self._app(scope, receive, send_and_tell)
            except Exception:
                # The answer to it is made further out.
                _describe(span, scope, _SERVER_ERROR)
                raise


def _describe(span: tracing.Span, scope: Scope, status: int) -> None:
    """By OpenTelemetry's semantic conventions for HTTP, without what would name somebody: path, query, addresses."""
    method, route = metrics.shown_method(scope["method"]), route_template(scope)
    span.call(f"{method} {route}")
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
    }
    if status >= _SERVER_ERROR:
        attributes["error.type"] = str(status)
    span.note(attributes)


class RequestLog:
    """Binds the request's id to all log lines, writes one when the request has ended, and counts its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = 0
        # A handshake has none, and is a GET by RFC 6455.
        method = scope.get("method", "GET")

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] in _ANSWER_BEGINS:
                status = message["status"]
                # Not its end: streams last for as long as their readers want.
                metrics.request_answered(method, route_template(scope), status, perf_counter() - started)
            elif message["type"] == "websocket.accept":
                status = _CONNECTED
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=correlation_id.get())
        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            log.exception("request.crashed", method=method, path=scope["path"])
            if status:
                raise
            answer = problem_response(InternalError())
            answer.raw_headers.extend(scope.get(SCOPE_HEADERS, ()))
            await answer(scope, receive, send_and_note)
        # Of a WebSocket its own lines tell, at its beginning and its end.
        if status != _CONNECTED and scope["path"] not in _QUIET_PATHS:
            log.info(
                "request.finished",
                method=method,
                path=scope["path"],
                status=status,
                duration_ms=round((perf_counter() - started) * 1000, 2),
            )
