"""A new password over HTTP: with the old one, or with a token that comes by mail."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Request, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.auth import (
    TOKEN_LENGTH_LIMIT,
    CookiesView,
    Email,
    NewPassword,
    Password,
    TokensView,
    answer_cookies,
    answer_tokens,
    locksmith_of,
)
from service.controllers.client_address import ClientAddress
from service.controllers.cookies import came_by_cookie
from service.controllers.dependencies import OpenResources, require
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import View, problem_responses
from service.domain.permissions import Permission
from service.errors import AccountDeactivated, InvalidResetToken, TooManyAttempts, WrongPassword
from service.services import password_changes
from service.services.callers import Caller

router = api_router("Passwords")

_NEW_PASSWORD = "velvet-harbor-tundra-58"  # noqa: S105 an example
_RESET_TOKEN = "wpr_" + "dGhpcnR5LXR3byBieXRlcyBpbiBhbGwgaGVyZS4uLi4"
# Said to everybody, so that it tells nobody who has an account.
_MAIL_IS_COMING = "If there is an account with this e-mail, a mail with a reset token is on its way"


class PasswordChangeRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"current_password": "copper-lantern-meadow-41", "new_password": _NEW_PASSWORD}]
        }
    )

    current_password: Password
    new_password: NewPassword


class PasswordResetRequest(StrictModel):
    email: Email


class PasswordResetView(View):
    message: str = Field(examples=[_MAIL_IS_COMING])


class PasswordResetConfirmation(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"token": _RESET_TOKEN, "new_password": _NEW_PASSWORD}]})

    token: str = Field(max_length=TOKEN_LENGTH_LIMIT, description="From the mail", examples=[_RESET_TOKEN])
    new_password: NewPassword


@router.post(
    "/me/password",
    response_model=TokensView | CookiesView,
    responses=problem_responses(AccountDeactivated, WrongPassword, TooManyAttempts),
    summary="Change the password, and end all other sessions",
)
async def change_password(
    body: PasswordChangeRequest,
    request: Request,
    user: Annotated[Caller, require(Permission.PROFILE_WRITE)],
    resources: OpenResources,
) -> Response:
    """Every token from before is out, this request's own too; the answer has those of a new session.

    A mail tells of it.
    """
    async with resources.login_guard.password_again(user.user_id):
        tokens = await password_changes.change_password(
            locksmith_of(resources), user, body.current_password, body.new_password, correlation_id.get()
        )
    return answer_cookies(tokens, resources.settings) if came_by_cookie(request) else answer_tokens(tokens)


@router.post(
    "/auth/password-reset",
    status_code=202,
    response_model=PasswordResetView,
    responses=problem_responses(TooManyAttempts),
    summary="Ask for a reset token by mail",
)
async def request_password_reset(
    body: PasswordResetRequest, resources: OpenResources, address: ClientAddress
) -> Response:
    """The answer is the same whoever it is. Who asks too often within an hour gets no more mails."""
    await resources.login_guard.reset_request(address)
    await password_changes.request_reset(resources.jobs, body.email, correlation_id.get())
    return json_response({"message": _MAIL_IS_COMING}, 202)


@router.post(
    "/auth/password-reset/confirm",
    status_code=204,
    responses=problem_responses(InvalidResetToken),
    summary="Choose a new password with the reset token",
)
async def confirm_password_reset(body: PasswordResetConfirmation, resources: OpenResources) -> Response:
    """Every session and every token from before is out. An authenticator app stays what it was, unless the address was
    not proven before: then API keys, webhook endpoints and the app end too, as they may be somebody else's.
    """
    await password_changes.reset_password(locksmith_of(resources), body.token, body.new_password, correlation_id.get())
    return Response(status_code=204)
