"""One's sessions: looking at them, ending one, ending all."""

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.sessions import Ending, Session
from service.errors import NotFound, Unauthenticated
from service.repositories import audit_events as audit_repository
from service.repositories import sessions as session_repository
from service.repositories import users as user_repository
from service.services.audit_events import new_audit_event
from service.services.callers import Caller
from service.services.users import get_user

log = structlog.get_logger()


async def list_sessions(token: Caller, *, before_id: str | None, limit: int) -> list[Session]:
    """Lists those that are not over, newest first. Raises what get_user raises."""
    user = await get_user(token)
    return await session_repository.find_live(user.id, utc_now(), before_id=before_id, limit=limit)


async def end_session(client: Client, token: Caller, session_id: str, request_id: str | None) -> None:
    """Raises NotFound where it is not the user's or is over."""
    if not await _revoke(client, token.user_id, session_id, Ending.ENDED_BY_OWNER, request_id):
        raise NotFound(f"There is no session {session_id}")


async def log_out(client: Client, token: Caller, request_id: str | None) -> None:
    """Ends the token's own session. That it is over already is no matter."""
    await _revoke(client, token.user_id, token.session_id, Ending.LOGGED_OUT, request_id)


async def _revoke(client: Client, user_id: str, session_id: str, ending: Ending, request_id: str | None) -> bool:
    now = utc_now()
    event = new_audit_event(
        AuditAction.USER_LOGGED_OUT,
        actor_id=user_id,
        subject_id=user_id,
        request_id=request_id,
        session_id=session_id,
    )

    async def revoke(session: AsyncClientSession) -> bool:
        is_revoked = await session_repository.revoke(session_id, user_id, ending, now, session=session)
        if is_revoked:
            await audit_repository.insert(event, session=session)
        return is_revoked

    is_revoked = await run_in_transaction(client, revoke)
    if is_revoked:
        log.info("user.logged_out", user_id=user_id, session_id=session_id, ending=ending)
    return is_revoked


async def log_out_everywhere(client: Client, token: Caller, request_id: str | None) -> None:
    """Ends all sessions, and all access tokens with them.

    Raises Unauthenticated for a token that is out already.
    """
    user_id, now = token.user_id, utc_now()

    async def revoke_all(session: AsyncClientSession) -> int:
        if not await user_repository.raise_token_version(user_id, token.token_version, now, session=session):
            raise Unauthenticated("The access token is no longer valid")
        sessions = await session_repository.revoke_all(user_id, Ending.LOGGED_OUT_EVERYWHERE, now, session=session)
        event = new_audit_event(
            AuditAction.USER_LOGGED_OUT_EVERYWHERE,
            actor_id=user_id,
            subject_id=user_id,
            request_id=request_id,
            sessions=sessions,
        )
        await audit_repository.insert(event, session=session)
        return sessions

    sessions = await run_in_transaction(client, revoke_all)
    log.info("user.logged_out_everywhere", user_id=user_id, sessions=sessions)
