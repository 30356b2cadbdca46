"""Sessions over HTTP: the next tokens, logging out, and looking at one's sessions."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Request, Response
from pydantic import ConfigDict, Field

from service.controllers.auth import (
    REFRESH_TOKEN_EXAMPLE,
    CookiesView,
    TokensView,
    answer_cookies,
    answer_tokens,
)
from service.controllers.cookies import CSRF_HEADER, REFRESH_COOKIE, clear_cookies
from service.controllers.dependencies import OpenResources, require
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import TIME, PageView, View, problem_responses
from service.domain.permissions import Permission
from service.domain.sessions import session_view
from service.errors import AccountDeactivated, CsrfTokenInvalid, FieldError, InvalidFields, InvalidRefreshToken
from service.services import refresh_tokens, sessions
from service.services.callers import Caller
from service.services.refresh_tokens import SentToken

router = api_router("Sessions")

# Ours have 68 characters; what is longer is none.
_TOKEN_LENGTH_LIMIT = 256

_SessionId = Annotated[str, Path(max_length=64, examples=["ses_0198c0ffee0070008000000000000001"])]


class RefreshRequest(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": REFRESH_TOKEN_EXAMPLE}]})

    refresh_token: str | None = Field(
        default=None,
        max_length=_TOKEN_LENGTH_LIMIT,
        description="The last one that was given out; not sent where a cookie has it",
        examples=[REFRESH_TOKEN_EXAMPLE],
    )


class SessionView(View):
    """A login, with all refreshes that came of it."""

    id: str = Field(examples=["ses_0198c0ffee0070008000000000000001"])
    created_at: str = TIME
    last_used_at: str = TIME
    expires_at: str = TIME
    is_current: bool = Field(description="Whether this request came with a token of it")


@router.post(
    "/auth/refresh",
    response_model=TokensView | CookiesView,
    responses=problem_responses(InvalidRefreshToken, CsrfTokenInvalid),
    summary="Get new tokens for the refresh token",
)
async def refresh(body: RefreshRequest, request: Request, resources: OpenResources) -> Response:
    """The refresh token is used up. Within ten seconds it may be sent again, also by several tabs at once, and brings
    the same refresh token each time. Any other use of one that is used up ends its session: it was copied.
    Without `refresh_token` the browser's cookie counts, beside its CSRF token, and the new tokens are cookies again.
    """
    sent = _token_sent(body, request)
    tokens = await refresh_tokens.refresh(
        resources.databases.client, resources.settings, resources.ended_tokens, sent, correlation_id.get()
    )
    return answer_cookies(tokens, resources.settings) if sent.is_cookie else answer_tokens(tokens)


def _token_sent(body: RefreshRequest, request: Request) -> SentToken:
    """Raises InvalidFields where there is none."""
    if body.refresh_token is not None:
        return SentToken(body.refresh_token)
    cookie = request.cookies.get(REFRESH_COOKIE)
    if cookie is None:
        raise InvalidFields(fields=(FieldError("/refresh_token", "missing", "Send the refresh token"),))
    return SentToken(cookie, is_cookie=True, csrf_token=request.headers.get(CSRF_HEADER))


@router.post(
    "/auth/logout",
    status_code=204,
    summary="End this session",
)
async def log_out(
    request: Request, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    """Its refresh token and its access tokens are good for nothing afterwards; other processes know within a second."""
    await sessions.log_out(resources.databases.client, user, correlation_id.get())
    await resources.ended_tokens.look()
    return _logged_out(request)


@router.post(
    "/auth/logout-all",
    status_code=204,
    responses=problem_responses(AccountDeactivated),
    summary="End all sessions, on every device",
)
async def log_out_everywhere(
    request: Request, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    """No access token is good for anything afterwards, this request's own included."""
    await sessions.log_out_everywhere(resources.databases.client, user, correlation_id.get())
    await resources.ended_tokens.look()
    return _logged_out(request)


def _logged_out(request: Request) -> Response:
    response = Response(status_code=204)
    clear_cookies(request, response)
    return response


@router.get(
    "/me/sessions",
    response_model=PageView[SessionView],
    responses=problem_responses(AccountDeactivated),
    summary="One's sessions that are not over, newest first",
    description="Each is a login on one device; end one of them where it is not known.",
)
async def list_sessions(
    query: Annotated[PageQuery, Query()],
    user: Annotated[Caller, require(Permission.PROFILE_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "sessions", user.user_id, str)
    rows = await sessions.list_sessions(user, before_id=page.position, limit=page.limit_and_one)
    return page_of(rows, page, lambda session: session.id, lambda session: session_view(session, user.session_id))


@router.delete(
    "/me/sessions/{session_id}",
    status_code=204,
    responses=problem_responses(AccountDeactivated),
    summary="End one of one's sessions",
)
async def end_session(
    session_id: _SessionId, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    """Its refresh token and its access tokens are good for nothing afterwards; other processes know within a second."""
    await sessions.end_session(resources.databases.client, user, session_id, correlation_id.get())
    await resources.ended_tokens.look()
    return Response(status_code=204)
