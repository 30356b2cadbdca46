"""Registering and logging in over HTTP."""

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from asgi_correlation_id import correlation_id
from fastapi import Response
from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.controllers.client_address import ClientAddress
from service.controllers.cookies import set_cookies
from service.controllers.dependencies import OpenResources
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import InSchema, UserView, View, WalletView, problem_responses
from service.controllers.users import user_view
from service.domain.wallets import wallet_view
from service.errors import EmailTaken, InvalidCredentials, InvalidProofToken, TooManyAttempts
from service.services import registrations, users
from service.services.csrf import csrf_token
from service.services.password_changes import Locksmith
from service.services.passwords import MAX_LENGTH, MIN_LENGTH
from service.services.refresh_tokens import Tokens
from service.settings import Settings
from service.startup import Resources

router = api_router("Authentication")

REFRESH_TOKEN_EXAMPLE = "wrt_" + "Zm9ydHktZWlnaHQgYnl0ZXM" * 2 + "aW4gYWxsIGhlcmUuLi"
_PROOF_TOKEN = "wev_" + "dGhpcnR5LXR3byBieXRlcyBpbiBhbGwgaGVyZS4uLi4"
# Ours have 47 characters; white space around it is forgiven, what is longer is none.
TOKEN_LENGTH_LIMIT = 256
# Said to everybody, so that it tells nobody who has an account.
_REGISTRATION_MAIL = "A mail is on its way to this address"
_NAME_LENGTH_LIMIT = 100
EMAIL_LENGTH_LIMIT = 254
# Control, format, surrogate, private and unassigned characters, line and paragraph separators: they forge log
# lines or turn text around.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Persian and Indian names are spelt with these two.
_JOINERS = frozenset("\u200c\u200d")


def _name(text: str) -> str:
    name = unicodedata.normalize("NFC", text).strip()
    if not name:
        raise PydanticCustomError("blank", "Send a name")
    if any(unicodedata.category(character) in _INVISIBLE for character in name if character not in _JOINERS):
        raise PydanticCustomError("not_printable", "Control characters are not allowed")
    return name


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("not_printable", "NUL is not allowed")
    return text


# _name() as a pattern.
_IN_NAMES = r"(?:[^\p{C}\u2028\u2029]|[\u200C\u200D])"
Name = Annotated[
    str,
    Field(min_length=1, max_length=_NAME_LENGTH_LIMIT),
    AfterValidator(_name),
    InSchema(pattern=rf"^{_IN_NAMES}*[^\p{{C}}\p{{Z}}]{_IN_NAMES}*$"),
]
_WithoutNul = InSchema(pattern=r"^[^\u0000]*$")
Email = Annotated[
    str,
    Field(max_length=EMAIL_LENGTH_LIMIT, json_schema_extra={"format": "email"}, examples=["asha@example.com"]),
]
NewPassword = Annotated[
    str,
    Field(
        min_length=MIN_LENGTH,
        max_length=MAX_LENGTH,
        json_schema_extra={"format": "password"},
        description="Not one that others would guess early",
    ),
    AfterValidator(_without_nul),
    _WithoutNul,
]
Password = Annotated[
    str,
    Field(max_length=MAX_LENGTH, json_schema_extra={"format": "password"}),
    AfterValidator(_without_nul),
    _WithoutNul,
]


class RegistrationRequest(StrictModel):
    first_name: Name
    last_name: Name
    email: Email
    password: NewPassword


class LoginRequest(StrictModel):
    email: Email
    password: Password
    cookies: bool = Field(
        default=False,
        description="For web pages: sets the tokens as cookies that no script can read, and answers with a CSRF token",
    )


class RegistrationConfirmation(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": _PROOF_TOKEN, "password": "copper-lantern-meadow-41"}]}
    )

    token: str = Field(max_length=TOKEN_LENGTH_LIMIT, description="From the mail", examples=[_PROOF_TOKEN])
    password: Password


class MailIsComingView(View):
    message: str = Field(examples=[_REGISTRATION_MAIL])


class RegistrationView(View):
    user: UserView
    wallet: WalletView


class TokensView(View):
    """The refresh token is good once: for the next two tokens."""

    access_token: str = Field(description="A JWT", examples=["eyJhbGciOiJIUzI1NiIs…"])
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds", examples=[900])
    refresh_token: str = Field(description="For `POST /api/v1/auth/refresh`", examples=[REFRESH_TOKEN_EXAMPLE])
    refresh_expires_in: int = Field(description="Seconds", examples=[2_592_000])


class CookiesView(View):
    """The tokens are in cookies (`HttpOnly`, `Secure`, `SameSite=Strict`), and nowhere in the answer."""

    csrf_token: str = Field(
        description="Send it as `X-CSRF-Token` with all but GET; the cookie `__Host-wallet_csrf` has it too",
        examples=["9c1185a5c5e9fc54612808977ee8f548b2258d31" + "0" * 24],
    )
    token_type: Literal["cookie"]
    expires_in: int = Field(description="Seconds", examples=[900])
    refresh_expires_in: int = Field(description="Seconds", examples=[2_592_000])


class LoginView(TokensView):
    user: UserView


class CookieLoginView(CookiesView):
    user: UserView


@router.post(
    "/auth/login",
    response_model=LoginView | CookieLoginView,
    responses=problem_responses(InvalidCredentials, TooManyAttempts),
    summary="Get an access token, and a refresh token for the next one",
    description="With e-mail and password. An unknown address, a wrong password and a deactivated account are "
    "answered alike.",
)
async def log_in(body: LoginRequest, resources: OpenResources, address: ClientAddress) -> Response:
    async with resources.login_guard.password_try(body.email, address):
        user, tokens = await users.log_in(
            resources.databases.client,
            resources.passwords,
            resources.settings,
            resources.audit_trail,
            users.Credentials(body.email, body.password),
            correlation_id.get(),
        )
    more = {"user": user_view(user)}
    return answer_cookies(tokens, resources.settings, more) if body.cookies else answer_tokens(tokens, more)


def answer_tokens(tokens: Tokens, more: Mapping[str, Any] | None = None) -> Response:
    return json_response(
        {
            "access_token": tokens.access_token,
            "token_type": "bearer",
            "expires_in": tokens.expires_in,
            "refresh_token": tokens.refresh_token,
            "refresh_expires_in": tokens.refresh_expires_in,
            **(more or {}),
        }
    )


def answer_cookies(tokens: Tokens, settings: Settings, more: Mapping[str, Any] | None = None) -> Response:
    response = json_response(
        {
            "csrf_token": csrf_token(settings, tokens.session_id),
            "token_type": "cookie",
            "expires_in": tokens.expires_in,
            "refresh_expires_in": tokens.refresh_expires_in,
            **(more or {}),
        }
    )
    set_cookies(response, tokens, settings)
    return response


@router.post(
    "/auth/register",
    status_code=201,
    response_model=RegistrationView,
    responses={
        202: {"model": MailIsComingView, "description": "A mail is on its way, whoever has the address"},
        **problem_responses(EmailTaken),
    },
    summary="Register; a wallet in the default currency comes with it",
    description="The password is refused if others would guess it early. In production the answer is 202, the same "
    "for every address: the account is opened with the token that comes by mail. Elsewhere it is opened at once, and a "
    "mail lets one prove the address.",
)
async def register(body: RegistrationRequest, resources: OpenResources) -> Response:
    smith, request_id = locksmith_of(resources), correlation_id.get()
    order = users.Registration(body.first_name, body.last_name, body.email, body.password)
    if resources.settings.registers_by_mail:
        await registrations.request_registration(smith, order, request_id)
        return json_response({"message": _REGISTRATION_MAIL}, 202)
    user, wallet = await users.register_user(resources.databases.client, resources.passwords, resources.settings, order)
    await registrations.offer_proof(smith, user, request_id)
    answer = {"user": user_view(user), "wallet": wallet_view(wallet)}
    return json_response(answer, 201)


@router.post(
    "/auth/register/confirm",
    response_model=UserView,
    responses=problem_responses(InvalidProofToken),
    summary="Prove the address with the token that came by mail",
    description="With the password that one registered with. Opens the account where it waits for this. Where it is "
    "there already, its sessions, API keys, webhook endpoints and authenticator app end: they may be somebody else's. "
    "Log in afterwards.",
)
async def confirm_registration(body: RegistrationConfirmation, resources: OpenResources) -> Response:
    user = await registrations.confirm_registration(
        locksmith_of(resources), body.token, body.password, correlation_id.get()
    )
    return json_response(user_view(user))


def locksmith_of(resources: Resources) -> Locksmith:
    return Locksmith(
        resources.databases.client,
        resources.jobs,
        resources.ended_tokens,
        resources.passwords,
        resources.settings,
    )
