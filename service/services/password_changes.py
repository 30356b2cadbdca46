"""A new password: by who knows the old one, or by a token that came by mail.

Either way every session and every access token is out, and whoever was in has to show the new password.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.documents import User
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.keys import KeyPurpose, derive_key
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_id, outbox_row
from service.domain.password_resets import ResetToken, derive_reset_token, hash_reset_token
from service.domain.sessions import Ending
from service.errors import InvalidResetToken, Unauthenticated, WrongPassword
from service.gateways.job_queue import Job, JobQueue
from service.gateways.mailbox import Mail, Mailbox
from service.repositories import audit_events as audit_repository
from service.repositories import outbox as outbox_repository
from service.repositories import password_resets as reset_repository
from service.repositories import sessions as session_repository
from service.repositories import users as user_repository
from service.services.audit_events import ANYBODY, new_audit_event
from service.services.callers import Caller
from service.services.email_proofs import end_what_was_before_the_proof
from service.services.ended_tokens import EndedTokens
from service.services.passwords import Passwords, refuse_weak_password
from service.services.refresh_tokens import Tokens, open_session
from service.services.users import get_user, normal_email
from service.settings import Settings

log = structlog.get_logger()

_POINTER = "/new_password"


class Locksmith(NamedTuple):
    """What changing a password or a second factor needs."""

    client: Client
    jobs: JobQueue
    ended_tokens: EndedTokens
    passwords: Passwords
    settings: Settings


class _NewLock(NamedTuple):
    """`token_version` is the one before."""

    user_id: str
    token_version: int
    password_hash: str
    ending: Ending
    now: datetime
    # Whoever chooses it has read a mail, as nobody had for this account before.
    is_first_proof: bool = False


async def change_password(
    smith: Locksmith, token: Caller, current_password: str, new_password: str, request_id: str | None
) -> Tokens:
    """Tokens of a new session, the only one that is left.

    Raises WrongPassword, InvalidFields for a new password that will not do, Unavailable, and what get_user raises.
    """
    user = await get_user(token)
    if not await smith.passwords.verify(current_password, user.password_hash):
        log.warning("user.password_refused", user_id=user.id)
        raise WrongPassword
    password_hash = await _hash(smith.passwords, new_password, user)
    now = utc_now()
    lock = _NewLock(user.id, token.token_version, password_hash, Ending.PASSWORD_CHANGED, now)
    opened = open_session(user.model_copy(update={"token_version": user.token_version + 1}), smith.settings, now)
    event = new_audit_event(
        AuditAction.USER_PASSWORD_CHANGED, actor_id=user.id, subject_id=user.id, request_id=request_id
    )

    async def change(session: AsyncClientSession) -> None:
        if not await _put_in(lock, event, session=session):
            raise Unauthenticated("The access token is no longer valid")
        await session_repository.insert(opened.session, session=session)

    await run_in_transaction(smith.client, change)
    smith.ended_tokens.note_user(user.id, token.token_version + 1, now)
    smith.jobs.wake(Job.DRAIN_OUTBOX)
    log.info("user.password_changed", user_id=user.id)
    return opened.tokens


async def request_reset(jobs: JobQueue, email: str, request_id: str | None) -> None:
    """Does the same for everybody's address and for nobody's: whether it is somebody's, the worker looks up.

    Raises InvalidFields for what is no address.
    """
    address = normal_email(email)
    row = outbox_row(OutboxTopic.PASSWORD_RESET, address, request_id, utc_now())
    # By an id of its own, since an address may be waiting already: that would be something else to do.
    request = outbox_id(OutboxTopic.PASSWORD_RESET, new_id(Prefix.PASSWORD_RESET))
    await outbox_repository.insert_many([row._replace(id=request)], session=None)
    jobs.wake(Job.DRAIN_OUTBOX)
    log.info("password_reset.requested")


async def send_reset_token(row: OutboxRow, client: Client, mailbox: Mailbox, settings: Settings) -> None:
    """To whoever has the address, if anybody has, and unless they got too many lately.

    At least once: who dies between the sending and the note of it sends it again, the same mail with the same id.
    """
    user = await user_repository.find_by_email(row.subject_id)
    if user is not None and user.is_active:
        token = derive_reset_token(derive_key(settings.root_key, KeyPurpose.PASSWORD_RESETS), row.id, user.id)
        if await _keep(row, user.id, token, client, settings):
            await mailbox.send(_reset_mail(row, user, token, settings))
        else:
            log.warning("password_reset.too_many_mails", user_id=user.id)
    await outbox_repository.delete(row)


async def _keep(row: OutboxRow, user_id: str, token: str, client: Client, settings: Settings) -> bool:
    """False where the user got as many mails as they may. The repetition of one that was kept counts for nothing."""
    now = utc_now()
    expires_at = now + timedelta(seconds=settings.password_reset_lifetime_s)
    kept = ResetToken(row.id, hash_reset_token(token), now, expires_at)
    event = new_audit_event(
        AuditAction.USER_PASSWORD_RESET_REQUESTED, actor_id=ANYBODY, subject_id=user_id, request_id=row.request_id
    )

    async def add(session: AsyncClientSession) -> bool:
        is_added = await reset_repository.add(user_id, kept, settings.password_reset_mails_per_hour, session=session)
        if is_added:
            await audit_repository.insert(event, session=session)
        return is_added

    await reset_repository.ensure(user_id, now)
    return await run_in_transaction(client, add) or await reset_repository.has(user_id, row.id)


async def reset_password(smith: Locksmith, reset_token: str, new_password: str, request_id: str | None) -> None:
    """The token is used up, and all others of the user's. An authenticator app stays what it was, unless nobody had
    proven the address: then whatever was made before may be somebody else's, and ends.

    Raises InvalidResetToken, InvalidFields for a password that will not do, Unavailable.
    """
    token_hash = hash_reset_token(reset_token)
    user = await _holder(token_hash)
    password_hash = await _hash(smith.passwords, new_password, user)
    now = utc_now()
    is_first_proof = user.email_verified_at is None
    lock = _NewLock(user.id, user.token_version, password_hash, Ending.PASSWORD_RESET, now, is_first_proof)
    event = new_audit_event(
        AuditAction.USER_PASSWORD_RESET, actor_id=user.id, subject_id=user.id, request_id=request_id
    )

    async def reset(session: AsyncClientSession) -> None:
        # First: of two with one token, the second finds it used.
        is_good = await reset_repository.use_up(user.id, token_hash, now, session=session)
        if not is_good or not await _put_in(lock, event, session=session):
            raise InvalidResetToken
        if is_first_proof:
            await end_what_was_before_the_proof(
                user.id, Ending.PASSWORD_RESET, smith.settings, request_id, now, session=session
            )

    await run_in_transaction(smith.client, reset)
    smith.ended_tokens.note_user(user.id, user.token_version + 1, now)
    smith.jobs.wake(Job.DRAIN_OUTBOX)
    log.info("user.password_reset", user_id=user.id)


async def _holder(token_hash: str) -> User:
    user_id = await reset_repository.find_holder(token_hash, utc_now())
    user = None if user_id is None else await user_repository.find(user_id)
    if user is None or not user.is_active:
        log.warning("password_reset.refused", user_id=user_id)
        raise InvalidResetToken
    return user


async def _hash(passwords: Passwords, new_password: str, user: User) -> str:
    """Before any transaction, which must not wait for it."""
    refuse_weak_password(new_password, user.email, (user.first_name, user.last_name), _POINTER)
    return await passwords.hash(new_password)


async def _put_in(lock: _NewLock, event: AuditEvent, *, session: AsyncClientSession) -> bool:
    """Sets the new password and ends all sessions. False if it was changed meanwhile or the user may not act."""
    if not await user_repository.set_password(
        lock.user_id,
        lock.token_version,
        lock.password_hash,
        lock.now,
        proves_email=lock.is_first_proof,
        session=session,
    ):
        return False
    await session_repository.revoke_all(lock.user_id, lock.ending, lock.now, session=session)
    # What was mailed before could undo it.
    await reset_repository.expire_all(lock.user_id, lock.now, session=session)
    await audit_repository.insert(event, session=session)
    row = outbox_row(OutboxTopic.PASSWORD_NOTICE, lock.user_id, event.request_id, lock.now)
    notice = outbox_id(OutboxTopic.PASSWORD_NOTICE, event.id)
    await outbox_repository.insert_many([row._replace(id=notice)], session=session)
    return True


async def send_notice(row: OutboxRow, mailbox: Mailbox) -> None:
    """At least once, the same mail with the same id."""
    user = await user_repository.find(row.subject_id)
    if user is not None and user.takes_notices:
        await mailbox.send(_notice_mail(row, user))
    await outbox_repository.delete(row)


def _reset_mail(row: OutboxRow, user: User, token: str, settings: Settings) -> Mail:
    """The token stands in the text only: a subject shows on locked screens."""
    text = (
        f"Your reset token is {token}\n"
        "\n"
        "Whoever has it can choose a new password for your account. It is good once, for "
        f"{settings.password_reset_lifetime_s // 60} minutes.\n"
        "\n"
        "We never ask for it, not by telephone, by mail or in a chat.\n"
        "If you have not asked for a new password, do nothing: your password stays as it is.\n"
    )
    return Mail(id=row.id, to=user.email, subject="Choose a new password", text=text)


def _notice_mail(row: OutboxRow, user: User) -> Mail:
    text = (
        f"The password of your account was changed at {row.created_at:%Y-%m-%d %H:%M} UTC.\n"
        "Whoever was logged in has been logged out.\n"
        "\n"
        "If it was not you: ask for a password reset at once, which puts everybody out again.\n"
    )
    return Mail(id=row.id, to=user.email, subject="Your password was changed", text=text)
