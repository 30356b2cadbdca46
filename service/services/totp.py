"""The second factor: enrolling an authenticator app, its codes and recovery codes, each good for one use.

Each change takes the factor before it: a mailed code for a new app, a code of the app for the rest. It is written with
its audit event and a notice to the owner. A new app confirms payments after `totp_wait_s`; until then mailed codes do.

A try is counted before it is looked at and given back when it was right, so that tries at the same time are bounded as
those one after the other are. Wrong passwords count like wrong codes: asked again here, they are no less a target.
"""

import math
import secrets
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import uuid4

import pyotp
import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.sealed import SealedField, Unreadable
from service.domain.step_up import CodeOutcome, check_code
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
from service.gateways.job_queue import Job
from service.repositories import totp_enrolments as enrolment_repository
from service.repositories.totp_enrolments import Activation, NewApp
from service.services import factor_changes
from service.services.callers import Caller
from service.services.factor_changes import FactorChange, challenge_subject
from service.services.password_changes import Locksmith
from service.services.passwords import Passwords
from service.services.sealing import open_sealed, seal
from service.services.step_up import hash_sent_code, new_challenge
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


class UsedCode(NamedTuple):
    """A code that confirms something, and the request that it came with: `use` names it, to the letter."""

    user_id: str
    code: str
    use: str
    request_id: str | None
    session_id: str = ""


class SentCodes(NamedTuple):
    """For a new app: its first code, and the one that was mailed."""

    app: str
    mailed: str


async def consume_factor(client: Client, sent: UsedCode, settings: Settings) -> Consumed:
    """Uses the code up where it fits: the same code again, or at the same time, is WRONG.

    Unless it is the same request again: one that was not answered must not cost a code. NOT_ENROLLED where no app is
    active, or it does not confirm payments yet. Raises TooManyAttempts.
    """
    now = utc_now()
    enrolment = await _take_try(sent.user_id, {TotpStatus.ACTIVE}, now, confirms_payments=True)
    if enrolment is None:
        return Consumed.NOT_ENROLLED
    proof = _proof(enrolment, sent.code, settings, now)
    if proof is None:
        _log_refusal(enrolment, "code")
        return Consumed.WRONG
    if await _use_up(client, enrolment, proof, sent, now):
        _log_recovery_code(enrolment, proof)
    elif not await enrolment_repository.is_last_use(enrolment, sent.use, now):
        _log_refusal(enrolment, "code")
        return Consumed.WRONG
    return Consumed.TOTP if proof.recovery_hash is None else Consumed.RECOVERY


async def _use_up(client: Client, enrolment: Enrolment, proof: Proof, sent: UsedCode, now: datetime) -> bool:
    """A recovery code is rare, and perhaps a thief's: its owner is told."""
    if proof.recovery_hash is None:
        return await enrolment_repository.use_up(enrolment, proof, sent.use, now, session=None)
    change = FactorChange(sent.user_id, sent.session_id, ends_others=False, request_id=sent.request_id, now=now)

    async def use_up(session: AsyncClientSession) -> bool:
        is_used_up = await enrolment_repository.use_up(enrolment, proof, sent.use, now, session=session)
        if is_used_up:
            await factor_changes.record(AuditAction.TOTP_RECOVERY_CODE_USED, change, session=session)
        return is_used_up

    return await run_in_transaction(client, use_up)


async def count_mailed_code(user_id: str, *, is_right: bool) -> None:
    """A mailed code costs a try of the user's, as an app's does, whichever payment it is sent for.

    Raises TooManyAttempts, also where the code is right. Otherwise a right one ends the count.
    """
    now = utc_now()
    await enrolment_repository.ensure(user_id, now)
    await _take_try(user_id, set(TotpStatus), now)
    if is_right:
        await enrolment_repository.give_tries_back(user_id, now)


async def find_enrolment(user_id: str) -> Enrolment | None:
    return await enrolment_repository.find(user_id)


async def begin_enrolment(smith: Locksmith, token: Caller, password: str, request_id: str | None) -> Begun:
    """A new secret, pending until a code of it is sent beside one that is mailed. One that was pending is forgotten.

    Raises TotpAlreadyActive, WrongPassword, TooManyAttempts, and what get_user raises.
    """
    user = await get_user(token)
    now = utc_now()
    await enrolment_repository.ensure(user.id, now)
    enrolment = await _take_try(user.id, {TotpStatus.NONE, TotpStatus.PENDING}, now)
    if enrolment is None:
        raise TotpAlreadyActive
    await _check_password(smith.passwords, enrolment, password, user.password_hash)
    secret, secret_id = pyotp.random_base32(), uuid4().hex
    app = NewApp(
        secret_id,
        seal(smith.settings, secret, SealedField.TOTP_SECRET, user.id),
        new_challenge(smith.settings, challenge_subject(user.id, secret_id), now),
    )
    change = _change_of(token, now, request_id)

    async def start(session: AsyncClientSession) -> bool:
        is_started = await enrolment_repository.start(user.id, app, now, session=session)
        if is_started:
            await factor_changes.record(AuditAction.TOTP_ENROLLED, change, session=session)
            await factor_changes.order_code(change, secret_id, session=session)
        return is_started

    if not await run_in_transaction(smith.client, start):
        raise await _why_not_started(user.id, now)
    smith.jobs.wake(Job.DRAIN_OUTBOX)
    log.info("totp.enrolled", user_id=user.id)
    return Begun(secret, otpauth_uri(secret, user.email))


async def _why_not_started(user_id: str, now: datetime) -> TotpAlreadyActive | TooManyAttempts:
    found = await enrolment_repository.find(user_id)
    if found is None or found.status is TotpStatus.ACTIVE:
        return TotpAlreadyActive()
    log.warning("totp.too_many_mails", user_id=user_id)
    return TooManyAttempts(retry_after_s=_seconds_until(found.mails_until or now, now))


async def activate(
    smith: Locksmith, token: Caller, codes: SentCodes, request_id: str | None, *, ends_others: bool = False
) -> list[str]:
    """The recovery codes, which nobody can show again. The app's code proves that the app has the secret, and is used
    up; the mailed one, that the owner of the address agrees.

    Raises TotpAlreadyActive, TotpNotEnrolled, InvalidCode, TooManyAttempts, and what get_user raises.
    """
    user = await get_user(token)
    now = utc_now()
    enrolment = await _take_try(user.id, {TotpStatus.PENDING}, now)
    if enrolment is None:
        found = await enrolment_repository.find(user.id)
        is_active = found is not None and found.status is TotpStatus.ACTIVE
        raise TotpAlreadyActive if is_active else TotpNotEnrolled
    secret = _secret_of(enrolment, smith.settings)
    step = matching_step(secret, codes.app, now)
    if step is None or not _is_mailed(enrolment, codes.mailed, smith.settings, now):
        raise _invalid_code(enrolment)
    fresh = _new_recovery_codes(secret, user.id)
    wait = timedelta(seconds=smith.settings.totp_wait_s)
    activation = Activation(step, fresh.hashes, now + wait if wait else None)

    async def change(session: AsyncClientSession) -> bool:
        return await enrolment_repository.activate(enrolment, activation, now, session=session)

    done = _change_of(token, now, request_id, ends_others=ends_others)
    if not await _change_factor(smith, AuditAction.TOTP_ACTIVATED, done, change):
        raise _invalid_code(enrolment)
    log.info("totp.activated", user_id=user.id)
    return fresh.shown


async def renew_recovery_codes(
    smith: Locksmith, token: Caller, code: str, request_id: str | None, *, ends_others: bool = False
) -> list[str]:
    """Ten new ones; those before hold no more. Raises TotpNotEnrolled, InvalidCode, TooManyAttempts, and what get_user
    raises.
    """
    user = await get_user(token)
    now = utc_now()
    enrolment = await _active(user.id, now)
    proof = _proof(enrolment, code, smith.settings, now)
    if proof is None:
        raise _invalid_code(enrolment)
    fresh = _new_recovery_codes(_secret_of(enrolment, smith.settings), user.id)

    async def change(session: AsyncClientSession) -> bool:
        return await enrolment_repository.use_up_for_new_recovery_codes(
            enrolment, proof, fresh.hashes, now, session=session
        )

    done = _change_of(token, now, request_id, ends_others=ends_others)
    if not await _change_factor(smith, AuditAction.TOTP_RECOVERY_CODES_RENEWED, done, change):
        raise _invalid_code(enrolment)
    _log_recovery_code(enrolment, proof)
    log.info("totp.recovery_codes_renewed", user_id=user.id)
    return fresh.shown


async def disable(
    smith: Locksmith, token: Caller, password: str, code: str, request_id: str | None, *, ends_others: bool = False
) -> None:
    """Forgets the secret and the recovery codes.

    Raises TotpNotEnrolled, WrongPassword, InvalidCode, TooManyAttempts, and what get_user raises.
    """
    user = await get_user(token)
    now = utc_now()
    enrolment = await _active(user.id, now)
    # First, so that nobody without the password learns whether a code fits.
    await _check_password(smith.passwords, enrolment, password, user.password_hash)
    proof = _proof(enrolment, code, smith.settings, now)
    if proof is None:
        raise _invalid_code(enrolment)

    async def change(session: AsyncClientSession) -> bool:
        return await enrolment_repository.use_up_and_disable(enrolment, proof, now, session=session)

    done = _change_of(token, now, request_id, ends_others=ends_others)
    if not await _change_factor(smith, AuditAction.TOTP_REMOVED, done, change):
        raise _invalid_code(enrolment)
    _log_recovery_code(enrolment, proof)
    log.info("totp.disabled", user_id=user.id)


def _change_of(token: Caller, now: datetime, request_id: str | None, *, ends_others: bool = False) -> FactorChange:
    return FactorChange(token.user_id, token.session_id, ends_others, request_id, now)


async def _change_factor(
    smith: Locksmith,
    action: AuditAction,
    done: FactorChange,
    change: Callable[[AsyncClientSession], Awaitable[bool]],
) -> bool:
    """The change with its audit event and its notice, in one transaction. False where somebody else was faster."""

    async def change_and_record(session: AsyncClientSession) -> list[str] | None:
        if not await change(session):
            return None
        return await factor_changes.record(action, done, session=session)

    ended = await run_in_transaction(smith.client, change_and_record)
    if ended is None:
        return False
    for session_id in ended:
        smith.ended_tokens.note_session(session_id, done.now)
    smith.jobs.wake(Job.DRAIN_OUTBOX)
    return True


def _is_mailed(enrolment: Enrolment, code: str, settings: Settings, now: datetime) -> bool:
    if enrolment.challenge is None:
        return False
    subject = challenge_subject(enrolment.user_id, enrolment.secret_id)
    sent = hash_sent_code(settings, subject, code, enrolment.challenge)
    return check_code(enrolment.challenge, sent, now).outcome is CodeOutcome.ACCEPTED


async def _active(user_id: str, now: datetime) -> Enrolment:
    enrolment = await _take_try(user_id, {TotpStatus.ACTIVE}, now)
    if enrolment is None:
        raise TotpNotEnrolled
    return enrolment


async def _take_try(
    user_id: str, statuses: Collection[TotpStatus], now: datetime, *, confirms_payments: bool = False
) -> Enrolment | None:
    """None where there is no enrolment of such a status. Raises TooManyAttempts."""
    found = await enrolment_repository.find(user_id)
    if found is None or found.status not in statuses or (confirms_payments and not found.confirms_payments(now)):
        return None
    enrolment = await enrolment_repository.take_try(user_id, statuses, now)
    if enrolment is not None:
        return enrolment
    found = await enrolment_repository.find(user_id)
    if found is None or found.status not in statuses:
        return None
    log.warning("totp.too_many_attempts", user_id=user_id)
    raise TooManyAttempts(retry_after_s=_seconds_until(found.tries_until, now))


def _seconds_until(moment: datetime, now: datetime) -> int:
    """At least one: a try that was right may have ended the wait since."""
    return max(1, math.ceil((moment - now).total_seconds()))


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
