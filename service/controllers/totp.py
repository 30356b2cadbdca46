"""One's authenticator app over HTTP: enrolling, recovery codes, and giving it up."""

from datetime import datetime
from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.auth import Password, locksmith_of
from service.controllers.dependencies import OpenResources, require
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import TIME, View, problem_responses
from service.domain.clock import to_rfc3339
from service.domain.permissions import Permission
from service.domain.totp import Enrolment, TotpStatus
from service.errors import (
    AccountDeactivated,
    InvalidCode,
    TooManyAttempts,
    TotpAlreadyActive,
    TotpNotEnrolled,
    WrongPassword,
)
from service.services import totp
from service.services.callers import Caller
from service.services.totp import SentCodes

router = api_router("Second factor")

_CODE_LENGTH_LIMIT = 64
_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # noqa: S105 an example
_RECOVERY_CODE = "MZXW-6YTB-OI3D-4NRQ"

AppCode = Annotated[
    str, Field(min_length=1, max_length=_CODE_LENGTH_LIMIT, description="Six digits, from the app", examples=["492039"])
]
AnyCode = Annotated[
    str,
    Field(
        min_length=1,
        max_length=_CODE_LENGTH_LIMIT,
        description="Six digits from the app, or a recovery code",
        examples=["492039", _RECOVERY_CODE],
    ),
]


class PasswordAgain(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"password": "copper-lantern-meadow-41"}]})

    password: Password


class ChangeRequest(StrictModel):
    end_other_sessions: bool = Field(default=False, description="Ends all sessions but this one, with their tokens")


class ActivationRequest(ChangeRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "492039", "mailed_code": "815204"}]})

    code: AppCode
    mailed_code: str = Field(
        min_length=1, max_length=_CODE_LENGTH_LIMIT, description="Six digits, from the mail", examples=["815204"]
    )


class CodeRequest(ChangeRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "492039"}]})

    code: AnyCode


class DisablingRequest(ChangeRequest):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"password": "copper-lantern-meadow-41", "code": "492039"}]}
    )

    password: Password
    code: AnyCode


class TotpView(View):
    status: TotpStatus = Field(examples=["active"])
    recovery_codes_left: int = Field(ge=0, examples=[10])
    activated_at: str | None = TIME
    confirms_payments_from: str | None = Field(
        description="Until then codes for large payments are mailed", examples=["2026-11-22T09:14:56.123Z"]
    )


class TotpSecretView(View):
    """Shown once."""

    status: TotpStatus = Field(examples=["pending"])
    secret: str = Field(description="Base32, for typing it in", examples=[_SECRET])
    otpauth_uri: str = Field(
        description="The same as a QR code carries it",
        examples=[
            f"otpauth://totp/Wallet%20service:asha%40example.com?secret={_SECRET}&issuer=Wallet%20service",
        ],
    )


class RecoveryCodesView(View):
    """Shown once. Each replaces the app's code one time."""

    status: TotpStatus = Field(examples=["active"])
    recovery_codes: list[str] = Field(examples=[[_RECOVERY_CODE, "KRSX-G5DF-OJZG-C2LT"]])


@router.get(
    "/me/totp",
    response_model=TotpView,
    summary="Whether one has an authenticator app, and how many recovery codes are left",
    description="`pending` until a code of the app was sent, `none` without one.",
)
async def get_totp(user: Annotated[Caller, require(Permission.PROFILE_READ)]) -> Response:
    return _shape(_view(await totp.find_enrolment(user.user_id)))


@router.post(
    "/me/totp",
    operation_id="begin_totp",
    status_code=201,
    response_model=TotpSecretView,
    responses=problem_responses(AccountDeactivated, TotpAlreadyActive, WrongPassword, TooManyAttempts),
    summary="Begin with an authenticator app; it counts once a code of it was sent",
    description="The answer is shown once: put its secret into the app. A mail brings a code that is asked for beside "
    "the app's first one. Beginning again replaces one that does not count yet.",
)
async def begin_enrolment(
    body: PasswordAgain, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    begun = await totp.begin_enrolment(locksmith_of(resources), user, body.password, correlation_id.get())
    return _shape({"status": TotpStatus.PENDING, **begun._asdict()}, 201)


@router.post(
    "/me/totp/confirm",
    operation_id="confirm_totp",
    response_model=RecoveryCodesView,
    responses=problem_responses(AccountDeactivated, TotpAlreadyActive, TotpNotEnrolled, InvalidCode, TooManyAttempts),
    summary="Make the app count, with a code of it and the mailed one; the answer has the recovery codes",
    description="After a day (`confirms_payments_from`) large payments ask for a code of the app instead of mailing "
    "one. A mail tells of the change. Keep the recovery codes: they are shown once.",
)
async def activate(
    body: ActivationRequest, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    codes = await totp.activate(
        locksmith_of(resources),
        user,
        SentCodes(body.code, body.mailed_code),
        correlation_id.get(),
        ends_others=body.end_other_sessions,
    )
    return _recovery_codes(codes)


@router.post(
    "/me/totp/recovery-codes",
    response_model=RecoveryCodesView,
    responses=problem_responses(AccountDeactivated, TotpNotEnrolled, InvalidCode, TooManyAttempts),
    summary="Ten new recovery codes; the old ones hold no more",
    description="With a code of the app or one of the old recovery codes.",
)
async def renew_recovery_codes(
    body: CodeRequest, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    codes = await totp.renew_recovery_codes(
        locksmith_of(resources), user, body.code, correlation_id.get(), ends_others=body.end_other_sessions
    )
    return _recovery_codes(codes)


# Not DELETE: its body means nothing (RFC 9110, section 9.3.5), proxies may drop it, and a password belongs in no URL.
@router.post(
    "/me/totp/disable",
    operation_id="disable_totp",
    response_model=TotpView,
    responses=problem_responses(AccountDeactivated, TotpNotEnrolled, WrongPassword, InvalidCode, TooManyAttempts),
    summary="Give the app up, with the password and a code",
    description="Codes for large payments are mailed again.",
)
async def disable(
    body: DisablingRequest, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    await totp.disable(
        locksmith_of(resources),
        user,
        body.password,
        body.code,
        correlation_id.get(),
        ends_others=body.end_other_sessions,
    )
    return _shape(_view(None))


def _view(enrolment: Enrolment | None) -> dict[str, Any]:
    if enrolment is None:
        return {
            "status": TotpStatus.NONE,
            "recovery_codes_left": 0,
            "activated_at": None,
            "confirms_payments_from": None,
        }
    return {
        "status": enrolment.status,
        "recovery_codes_left": len(enrolment.recovery_hashes),
        "activated_at": _time(enrolment.activated_at),
        "confirms_payments_from": _time(enrolment.confirms_from or enrolment.activated_at),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)


def _recovery_codes(codes: list[str]) -> Response:
    return _shape({"status": TotpStatus.ACTIVE, "recovery_codes": codes})


def _shape(answer: dict[str, Any], status_code: int = 200) -> Response:
    return json_response(answer, status_code)
