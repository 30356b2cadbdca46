"""Errors as problem documents (RFC 9457): the one place that turns an exception into HTTP."""

from collections.abc import Sequence
from typing import Any

import structlog
from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import Scope

from service.database import OUTAGES, REFUSALS, says_it_is_away
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    BodyTooLarge,
    ClockOff,
    ExportsBusy,
    FieldError,
    IdempotencyKeyMissing,
    InternalError,
    InvalidFields,
    LedgerBusy,
    Malformed,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    WalletServiceError,
    problem_body,
)
from service.metrics import NO_ROUTE
from service.outages import outages

log = structlog.get_logger()

_BY_STATUS: dict[int, type[WalletServiceError]] = {
    400: Malformed,
    401: Unauthenticated,
    404: NotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}
_SERVER_ERROR = 500
# More than that nobody reads, and each is longer than what it is about.
_SHOWN_ERRORS = 100
# By handler. Those of a process are the same in each application that it makes.
_PATHS: dict[Any, str] = {}
# A new primary is there within a second or two.
_RETRY_AFTER_S = 2


def problem_response(error: WalletServiceError) -> Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        problem_body(error, correlation_id.get()), error.http_status, headers, media_type=PROBLEM_MEDIA_TYPE
    )


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(WalletServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    for outage in OUTAGES:
        app.add_exception_handler(outage, _on_outage)
    for refusal in REFUSALS:
        app.add_exception_handler(refusal, _on_refusal)


async def _on_service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, WalletServiceError)  # noqa: S101 registered for this class
    if isinstance(error, ClockOff):
        pass  # `clock.off` has told of it, once
    elif isinstance(error, LedgerBusy | ExportsBusy):
        log.warning("request.refused", error=error.code)
    elif isinstance(error, Unavailable):
        outages.met("requests", error)
    elif error.http_status >= _SERVER_ERROR:
        log.error("request.failed", error=error.code, detail=error.message)
    return problem_response(error)


async def _on_outage(_request: Request, error: Exception) -> Response:
    outages.met("requests", error)
    return problem_response(Unavailable(retry_after_s=_RETRY_AFTER_S))


async def _on_refusal(request: Request, error: Exception) -> Response:
    """MongoDB refused a command. Raises the error again, as the defect that it is, unless the server is going away."""
    if not says_it_is_away(error):
        raise error
    return await _on_outage(request, error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 registered for this class
    kind = _BY_STATUS.get(error.status_code)
    if kind is None:
        log.error("request.failed", status=error.status_code, detail=str(error.detail))
        kind = InternalError
    response = problem_response(kind())
    if error.headers:
        response.headers.update(error.headers)
    if kind is MethodNotAllowed:
        # The router names those of the first route that fits the path; there are others beside it.
        response.headers["Allow"] = ", ".join(_allowed_methods(request))
    return response


def note_methods(app: FastAPI) -> None:
    """Keeps by path which methods there are, for answers that say so, and by handler which path is its own."""
    paths: dict[str, set[str]] = {}
    for route in app.routes:
        if isinstance(route, APIRoute):
            paths.setdefault(route.path, set()).update(route.methods or ())
            _PATHS[route.endpoint] = route.path
    app.state.methods_by_path = paths


def route_template(scope: Scope) -> str:
    """The path of the route that a request came to, as it is declared: without ids."""
    return _PATHS.get(scope.get("endpoint"), NO_ROUTE)


def _allowed_methods(request: Request) -> list[str]:
    """RFC 9110, section 15.5.6: a 405 tells what may be asked instead."""
    paths: dict[str, set[str]] = request.app.state.methods_by_path
    asked = request.scope["path"]
    if asked in paths:
        return sorted(paths[asked])
    # Only here, where somebody errs, so that it may take its time.
    return sorted(set().union(*(paths[path] for path in paths if compile_path(path)[0].match(asked))))


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 registered for this class
    found = error.errors()
    for one in found:
        if one["type"] == "json_invalid":
            return problem_response(Malformed(f"The body is not valid JSON: {one.get('ctx', {}).get('error', '')}"))
        if tuple(one["loc"]) == ("header", "Idempotency-Key"):
            return problem_response(IdempotencyKeyMissing())
    return problem_response(InvalidFields(fields=tuple(_field_error(one) for one in found[:_SHOWN_ERRORS])))


def _field_error(one: dict[str, Any]) -> FieldError:
    """Says what is wrong without repeating the input, which may be anything, secrets included."""
    return FieldError(_pointer(one["loc"]), one["type"], one["msg"])


def _pointer(location: Sequence[str | int]) -> str:
    """JSON pointer into the body; for other parts of a request the part's name stands in front."""
    place, *path = location
    parts = path if place == "body" else location
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
