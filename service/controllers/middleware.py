"""What wraps every request: its id, one log line, and a plain 500 where the code has a defect.

Pure ASGI: one BaseHTTPMiddleware would halve the throughput.
"""

import re
from time import perf_counter

import structlog
from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from service.controllers.problems import problem_response
from service.controllers.rate_limits import SCOPE_HEADERS, RateLimiting, has_rate_limits
from service.errors import InternalError
from service.settings import Settings

log = structlog.get_logger()

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{8,128}")
_QUIET_PATHS = frozenset({"/health", "/livez", "/readyz"})


def add_middleware(app: FastAPI, settings: Settings) -> None:
    if has_rate_limits(settings):
        app.add_middleware(RateLimiting, settings=settings)
    app.add_middleware(RequestLog)
    # Added last, so outermost: everything inside knows the request's id.
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name="X-Request-ID",
        generator=lambda: uuid4().hex,
        validator=lambda sent: _SANE_REQUEST_ID.fullmatch(sent) is not None,
        transformer=None,
    )


class RequestLog:
    """Binds the request's id to all log lines, and writes one when the request has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=correlation_id.get())
        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            log.exception("request.crashed", method=scope["method"], path=scope["path"])
            if status:
                raise
            answer = problem_response(InternalError())
            answer.raw_headers.extend(scope.get(SCOPE_HEADERS, ()))
            await answer(scope, receive, send_and_note)
        if scope["path"] not in _QUIET_PATHS:
            log.info(
                "request.finished",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((perf_counter() - started) * 1000, 2),
            )
