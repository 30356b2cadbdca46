"""Proof that an e-mail address is its user's, and what the first proof ends.

Until then anybody may have registered with it. So the first proof takes away what was made before: sessions, API
keys, webhook endpoints and the authenticator app may be somebody else's.
"""

from datetime import datetime, timedelta

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.domain.api_keys import revoked
from service.domain.audit_events import AuditAction
from service.domain.sessions import Ending
from service.domain.webhook_endpoints import deleted
from service.repositories import api_keys as key_repository
from service.repositories import audit_events as audit_repository
from service.repositories import sessions as session_repository
from service.repositories import totp_enrolments as enrolment_repository
from service.repositories import users as user_repository
from service.repositories import webhook_endpoints as endpoint_repository
from service.services.audit_events import new_audit_event
from service.settings import Settings

log = structlog.get_logger()


async def end_what_was_before_the_proof(
    user_id: str,
    ending: Ending,
    settings: Settings,
    request_id: str | None,
    now: datetime,
    *,
    session: AsyncClientSession,
) -> None:
    """In the transaction of the first proof. Money and its history stay, and so do limits that an admin has set."""
    sessions = await session_repository.revoke_all(user_id, ending, now, session=session)
    keys = await key_repository.find_unrevoked(user_id, session=session)
    for key in keys:
        await key_repository.replace(revoked(key, now), session=session)
    endpoints = await endpoint_repository.find_all_owned(user_id, session=session)
    expires_at = now + timedelta(days=settings.webhook_retention_days)
    for endpoint in endpoints:
        await endpoint_repository.replace(deleted(endpoint, expires_at, now), session=session)
    had_app = await enrolment_repository.forget(user_id, now, session=session)
    event = new_audit_event(
        AuditAction.USER_EMAIL_VERIFIED,
        actor_id=user_id,
        subject_id=user_id,
        request_id=request_id,
        sessions=sessions,
        api_keys=len(keys),
        webhook_endpoints=len(endpoints),
        had_app=had_app,
    )
    await audit_repository.insert(event, session=session)


async def mark_addresses_proven_before() -> int:
    """For data from before addresses were proven: a password that was reset by mail counts as proof, and so does an
    authenticator app in use. All others have not; returns how many are proven.

    The first proof ends what was made before it. An app from before must not end by one mail: whoever reads somebody's
    mails would get rid of the very factor that protects from that.
    """
    apps = await enrolment_repository.find_activation_times()
    resets = await audit_repository.find_first_times(AuditAction.USER_PASSWORD_RESET)
    return await user_repository.mark_verified(apps | resets)
