"""The second factor: enrolling an authenticator app, its codes and recovery codes, each good for one use.

A try is counted before it is looked at and given back when it was right, so that tries at the same time are bounded as
those one after the other are. Wrong passwords count like wrong codes: asked again here, they are no less a target.
"""

import math
import secrets
from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import uuid4

import pyotp
import structlog

from service.domain.clock import utc_now
from service.domain.sealed import SealedField, Unreadable
from service.domain.totp import (
    RECOVERY_CODE_BYTES,
    RECOVERY_CODES,
    TRIES,
    Enrolment,
    Proof,
    TotpStatus,
    hash_recovery_code,
    looks_like_totp,
    matching_step,
    otpauth_uri,
    recovery_code,
)
from service.errors import (
    InternalError,
    InvalidCode,
    TooManyAttempts,
    TotpAlreadyActive,
    TotpNotEnrolled,
    WrongPassword,
)
from service.repositories import totp_enrolments as enrolment_repository
from service.services.callers import Caller
from service.services.passwords import Passwords
from service.services.sealing import open_sealed, seal
from service.services.users import get_user
from service.settings import Settings

log = structlog.get_logger()


class Consumed(StrEnum):
    """What became of a code that was sent as the second factor."""

    TOTP = "totp"
    RECOVERY = "recovery"
    WRONG = "wrong"
    NOT_ENROLLED = "not_enrolled"


class Begun(NamedTuple):
    """What the authenticator app has to learn; shown once."""

    secret: str
    otpauth_uri: str


class _NewRecoveryCodes(NamedTuple):
    shown: list[str]
    hashes: list[str]


async def consume_factor(user_id: str, code: str, settings: Settings, use: str) -> Consumed:
    """Uses the code up where it fits: the same code again, or at the same time, is WRONG.

    Unless it is the same request again, which `use` names: one that was not answered must not cost a code.
    NOT_ENROLLED where no app is active; a pending one does not count. Raises TooManyAttempts.
    """
    now = utc_now()
    enrolment = await _take_try(user_id, {TotpStatus.ACTIVE}, now)
    if enrolment is None:
        return Consumed.NOT_ENROLLED
    proof = _proof(enrolment, code, settings, now)
    if proof is None:
        _log_refusal(enrolment, "code")
        return Consumed.WRONG
    if await enrolment_repository.use_up(enrolment, proof, use, now):
        _log_recovery_code(enrolment, proof)
    elif not await enrolment_repository.is_last_use(enrolment, use, now):
        _log_refusal(enrolment, "code")
        return Consumed.WRONG
    return Consumed.TOTP if proof.recovery_hash is None else Consumed.RECOVERY


async def find_enrolment(user_id: str) -> Enrolment | None:
    return await enrolment_repository.find(user_id)


async def begin_enrolment(passwords: Passwords, settings: Settings, token: Caller, password: str) -> Begun:
    """A new secret, pending until a code of it is sent; one that was pending before is forgotten.

    Raises TotpAlreadyActive, WrongPassword, TooManyAttempts, and what get_user raises.
    """
    user = await get_user(token)
    now = utc_now()
    await enrolment_repository.ensure(user.id, now)
    enrolment = await _take_try(user.id, {TotpStatus.NONE, TotpStatus.PENDING}, now)
    if enrolment is None:
        raise TotpAlreadyActive
    await _check_password(passwords, enrolment, password, user.password_hash)
    secret = pyotp.random_base32()
    sealed = seal(settings, secret, SealedField.TOTP_SECRET, user.id)
    if not await enrolment_repository.start(user.id, uuid4().hex, sealed, now):
        raise TotpAlreadyActive
    log.info("totp.enrolled", user_id=user.id)
    return Begun(secret, otpauth_uri(secret, user.email))


async def activate(settings: Settings, token: Caller, code: str) -> list[str]:
    """The recovery codes, which nobody can show again. `code` proves that the app has the secret, and is used up.

    Raises TotpAlreadyActive, TotpNotEnrolled, InvalidCode, TooManyAttempts, and what get_user raises.
    """
    user = await get_user(token)
    now = utc_now()
    enrolment = await _take_try(user.id, {TotpStatus.PENDING}, now)
    if enrolment is None:
        found = await enrolment_repository.find(user.id)
        is_active = found is not None and found.status is TotpStatus.ACTIVE
        raise TotpAlreadyActive if is_active else TotpNotEnrolled
    secret = _secret_of(enrolment, settings)
    step = matching_step(secret, code, now)
    if step is None:
        raise _invalid_code(enrolment)
    fresh = _new_recovery_codes(secret, user.id)
    if not await enrolment_repository.activate(enrolment, step, fresh.hashes, now):
        raise _invalid_code(enrolment)
    log.info("totp.activated", user_id=user.id)
    return fresh.shown


async def renew_recovery_codes(settings: Settings, token: Caller, code: str) -> list[str]:
    """Ten new ones; those before hold no more. Raises TotpNotEnrolled, InvalidCode, TooManyAttempts, and what get_user
    raises.
    """
    user = await get_user(token)
    now = utc_now()
    enrolment = await _active(user.id, now)
    proof = _proof(enrolment, code, settings, now)
    fresh = _new_recovery_codes(_secret_of(enrolment, settings), user.id)
    if proof is None or not await enrolment_repository.use_up_for_new_recovery_codes(
        enrolment, proof, fresh.hashes, now
    ):
        raise _invalid_code(enrolment)
    _log_recovery_code(enrolment, proof)
    log.info("totp.recovery_codes_renewed", user_id=user.id)
    return fresh.shown


async def disable(passwords: Passwords, settings: Settings, token: Caller, password: str, code: str) -> None:
    """Forgets the secret and the recovery codes.

    Raises TotpNotEnrolled, WrongPassword, InvalidCode, TooManyAttempts, and what get_user raises.
    """
    user = await get_user(token)
    now = utc_now()
    enrolment = await _active(user.id, now)
    # First, so that nobody without the password learns whether a code fits.
    await _check_password(passwords, enrolment, password, user.password_hash)
    proof = _proof(enrolment, code, settings, now)
    if proof is None or not await enrolment_repository.use_up_and_disable(enrolment, proof, now):
        raise _invalid_code(enrolment)
    _log_recovery_code(enrolment, proof)
    log.info("totp.disabled", user_id=user.id)


async def _active(user_id: str, now: datetime) -> Enrolment:
    enrolment = await _take_try(user_id, {TotpStatus.ACTIVE}, now)
    if enrolment is None:
        raise TotpNotEnrolled
    return enrolment


async def _take_try(user_id: str, statuses: Collection[TotpStatus], now: datetime) -> Enrolment | None:
    """None where there is no enrolment of such a status. Raises TooManyAttempts."""
    enrolment = await enrolment_repository.take_try(user_id, statuses, now)
    if enrolment is not None:
        return enrolment
    found = await enrolment_repository.find(user_id)
    if found is None or found.status not in statuses:
        return None
    log.warning("totp.too_many_attempts", user_id=user_id)
    # At least a second: a try that was right may have ended the wait since.
    raise TooManyAttempts(retry_after_s=max(1, math.ceil((found.tries_until - now).total_seconds())))


async def _check_password(passwords: Passwords, enrolment: Enrolment, password: str, password_hash: str) -> None:
    if not await passwords.verify(password, password_hash):
        _log_refusal(enrolment, "wrong_secret")
        raise WrongPassword(tries_left=TRIES - enrolment.tries)


def _proof(enrolment: Enrolment, code: str, settings: Settings, now: datetime) -> Proof | None:
    """Returns what the code would prove. The database says whether it is used up already, while it uses it up."""
    secret = _secret_of(enrolment, settings)
    if looks_like_totp(code):
        step = matching_step(secret, code, now)
        return None if step is None else Proof(step=step)
    return Proof(recovery_hash=hash_recovery_code(secret, enrolment.user_id, code))


def _secret_of(enrolment: Enrolment, settings: Settings) -> str:
    assert enrolment.sealed_secret is not None, "pending and active ones have a secret"  # noqa: S101 a defect of ours
    try:
        return open_sealed(settings, enrolment.sealed_secret, SealedField.TOTP_SECRET, enrolment.user_id)
    except Unreadable as error:
        # Another WALLET_ENCRYPTION_KEY than the one it was sealed with, or somebody has moved it between users.
        log.critical("totp.secret_unreadable", user_id=enrolment.user_id)
        raise InternalError from error


def _new_recovery_codes(secret: str, user_id: str) -> _NewRecoveryCodes:
    shown = [recovery_code(secrets.token_bytes(RECOVERY_CODE_BYTES)) for _ in range(RECOVERY_CODES)]
    return _NewRecoveryCodes(shown, [hash_recovery_code(secret, user_id, code) for code in shown])


def _invalid_code(enrolment: Enrolment) -> InvalidCode:
    _log_refusal(enrolment, "code")
    return InvalidCode(tries_left=TRIES - enrolment.tries)


def _log_refusal(enrolment: Enrolment, reason: str) -> None:
    log.warning("totp.refused", reason=reason, user_id=enrolment.user_id, tries=enrolment.tries)


def _log_recovery_code(enrolment: Enrolment, proof: Proof) -> None:
    if proof.recovery_hash is not None:
        log.info("totp.recovery_code_used", user_id=enrolment.user_id, left=len(enrolment.recovery_hashes) - 1)
