"""What goes with a change of somebody's second factor: its audit event, a notice by mail, the end of other sessions."""

from datetime import datetime
from typing import Final, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import User
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_id, outbox_row
from service.domain.sessions import Ending
from service.domain.step_up import CODE_LIFETIME, Challenge
from service.domain.totp import Enrolment, TotpStatus
from service.gateways.mailbox import Mail, Mailbox
from service.repositories import audit_events as audit_repository
from service.repositories import outbox as outbox_repository
from service.repositories import sessions as session_repository
from service.repositories import totp_enrolments as enrolment_repository
from service.repositories import users as user_repository
from service.services.audit_events import new_audit_event
from service.services.step_up import code_for
from service.settings import Settings

_WHAT_HAPPENED: Final = {
    AuditAction.TOTP_ACTIVATED: "An authenticator app was added to your account",
    AuditAction.TOTP_RECOVERY_CODE_USED: "A recovery code of your account was used",
    AuditAction.TOTP_RECOVERY_CODES_RENEWED: "New recovery codes were made for your account",
    AuditAction.TOTP_REMOVED: "The authenticator app was removed from your account",
}


class FactorChange(NamedTuple):
    """Who changes it, from which session; `ends_others` ends all sessions but that one."""

    user_id: str
    session_id: str
    ends_others: bool
    request_id: str | None
    now: datetime


def challenge_subject(user_id: str, secret_id: str) -> str:
    """What the mailed code is derived for: this app of this user, and no other."""
    return f"{user_id}:{secret_id}"


async def record(action: AuditAction, change: FactorChange, *, session: AsyncClientSession) -> list[str]:
    """In the transaction of the change. Returns the ids of the sessions that it ended."""
    ended: list[str] = []
    if change.ends_others:
        ended = await session_repository.revoke_others(
            change.user_id, change.session_id, Ending.FACTOR_CHANGED, change.now, session=session
        )
    event = new_audit_event(
        action,
        actor_id=change.user_id,
        subject_id=change.user_id,
        request_id=change.request_id,
        session_id=change.session_id,
        ended_sessions=len(ended),
    )
    await record_event(event, change, session=session)
    return ended


async def record_event(event: AuditEvent, change: FactorChange, *, session: AsyncClientSession) -> None:
    """The audit event, and a notice to the owner where it is one to tell them of."""
    await audit_repository.insert(event, session=session)
    if event.action in _WHAT_HAPPENED:
        row = outbox_row(OutboxTopic.FACTOR_NOTICE, change.user_id, change.request_id, change.now)
        notice = row._replace(id=outbox_id(OutboxTopic.FACTOR_NOTICE, event.id))
        await outbox_repository.insert_many([notice], session=session)


async def order_code(change: FactorChange, secret_id: str, *, session: AsyncClientSession) -> None:
    """Has the code for a new app mailed."""
    row = outbox_row(OutboxTopic.FACTOR_CODE, change.user_id, change.request_id, change.now)
    await outbox_repository.insert_many(
        [row._replace(id=outbox_id(OutboxTopic.FACTOR_CODE, secret_id))], session=session
    )


async def send_code(row: OutboxRow, mailbox: Mailbox, settings: Settings) -> None:
    """At least once, the same mail with the same id; not for an app that was begun anew since."""
    user = await user_repository.find(row.subject_id)
    enrolment = await enrolment_repository.find(row.subject_id)
    challenge = None if enrolment is None else _open_challenge(row, enrolment)
    if user is not None and enrolment is not None and challenge is not None:
        code = code_for(settings, challenge_subject(user.id, enrolment.secret_id), challenge)
        await mailbox.send(_code_mail(row, user, code))
    await outbox_repository.delete(row)


def _open_challenge(row: OutboxRow, enrolment: Enrolment) -> Challenge | None:
    is_this_app = row.id == outbox_id(OutboxTopic.FACTOR_CODE, enrolment.secret_id)
    if enrolment.status is not TotpStatus.PENDING or not is_this_app:
        return None
    challenge = enrolment.challenge
    return challenge if challenge is not None and utc_now() < challenge.expires_at else None


async def send_notice(row: OutboxRow, mailbox: Mailbox) -> None:
    """At least once, the same mail with the same id."""
    user = await user_repository.find(row.subject_id)
    event = await audit_repository.find(row.id.removeprefix(outbox_id(OutboxTopic.FACTOR_NOTICE, "")))
    if user is not None and user.takes_notices and event is not None:
        await mailbox.send(_notice_mail(row, user, _WHAT_HAPPENED[event.action]))
    await outbox_repository.delete(row)


def _code_mail(row: OutboxRow, user: User, code: str) -> Mail:
    """The code stands in the text only: a subject shows on locked screens."""
    text = (
        f"Your code is {code}\n"
        "\n"
        "It adds an authenticator app to your account. From then on that app confirms your large payments.\n"
        f"It is valid for {CODE_LIFETIME.seconds // 60} minutes.\n"
        "\n"
        "We never ask for this code, not by telephone, by mail or in a chat.\n"
        "If you are not adding an app, somebody knows your password: keep the code to yourself and change your "
        "password at once.\n"
    )
    return Mail(id=row.id, to=user.email, subject="Confirm your authenticator app", text=text)


def _notice_mail(row: OutboxRow, user: User, what_happened: str) -> Mail:
    text = (
        f"{what_happened} at {row.created_at:%Y-%m-%d %H:%M} UTC.\n"
        "\n"
        "If it was not you: change your password at once, which ends every session, and write to us.\n"
    )
    return Mail(id=row.id, to=user.email, subject="Your second factor was changed", text=text)
