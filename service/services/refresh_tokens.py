"""Refresh tokens: a login gives out the first one, and each is exchanged for its successor.

Whoever sends one token at the same moment, or again within the retry window, gets the same successor: several tabs of
one browser do that, and so does a client that lost the answer. A token that comes later, or after its successor was
used, ends the session.
"""

from datetime import datetime, timedelta
from typing import NamedTuple, assert_never

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.documents import User
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.keys import KeyPurpose, derive_key
from service.domain.sessions import (
    Ending,
    RefreshToken,
    Session,
    Verdict,
    judge,
    new_nonce,
    new_refresh_token,
    read_refresh_token,
    rotated,
)
from service.errors import InvalidRefreshToken, Unavailable
from service.repositories import audit_events as audit_repository
from service.repositories import sessions as session_repository
from service.repositories import users as user_repository
from service.services.access_tokens import issue_access_token
from service.services.audit_events import ANYBODY, new_audit_event
from service.services.csrf import require_csrf_token
from service.services.ended_tokens import EndedTokens
from service.settings import Settings

log = structlog.get_logger()

# Whoever loses a race finds the session rotated or revoked, and is answered by that. The rest is in reserve.
_ATTEMPTS = 4
_RETRY_AFTER_S = 1


class Tokens(NamedTuple):
    """For the client; lifetimes in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    session_id: str


class SentToken(NamedTuple):
    """A refresh token as a request brought it; by cookie, the CSRF token has to come with it."""

    text: str
    is_cookie: bool = False
    csrf_token: str | None = None


class Opened(NamedTuple):
    """A session that is nowhere yet: whoever opens it inserts it, in the transaction of what led to it."""

    session: Session
    tokens: Tokens


def open_session(user: User, settings: Settings, now: datetime) -> Opened:
    token = new_refresh_token()
    session = Session(
        id=new_id(Prefix.SESSION),
        user_id=user.id,
        token_version=user.token_version,
        handle_hash=token.handle_hash,
        secret_hash=token.secret_hash,
        previous_hash=None,
        nonce=b"",
        created_at=now,
        last_used_at=now,
        expires_at=_expires_at(now, now, settings),
    )
    return Opened(session, _tokens(session, user, token, settings, now))


async def refresh(
    client: Client, settings: Settings, ended_tokens: EndedTokens, sent: SentToken, request_id: str | None
) -> Tokens:
    """New tokens for a refresh token, which is good for nothing afterwards but retries within RETRY_WINDOW.

    Raises InvalidRefreshToken for anything else. One that was used before ends its session, and this process refuses
    the session's access tokens at once. Raises CsrfTokenInvalid before anything is changed.
    """
    token = read_refresh_token(sent.text)
    if token is None:
        raise InvalidRefreshToken
    for _ in range(_ATTEMPTS):
        session = await session_repository.find_by_handle(token.handle_hash)
        if session is None:
            log.warning("session.refresh_refused", reason="unknown")
            raise InvalidRefreshToken
        if sent.is_cookie:
            require_csrf_token(settings, session.id, sent.csrf_token)
        now = utc_now()
        verdict = judge(session, token.secret_hash, now)
        match verdict:
            case Verdict.CURRENT:
                tokens = await _rotate(session, token, settings, now)
            case Verdict.RETRIED:
                tokens = await _give_again(session, token, settings, now)
            case Verdict.REUSED:
                await _revoke_for_reuse(client, session, request_id)
                ended_tokens.note_session(session.id, now)
                raise InvalidRefreshToken
            case Verdict.ENDED:
                ended_tokens.note_session(session.id, now)
                _log_refusal(session, "ended")
                raise InvalidRefreshToken
            case _:
                assert_never(verdict)
        if tokens is not None:
            log.info("session.refreshed", user_id=session.user_id, session_id=session.id, verdict=verdict)
            return tokens
    raise Unavailable(retry_after_s=_RETRY_AFTER_S)


async def _rotate(session: Session, token: RefreshToken, settings: Settings, now: datetime) -> Tokens | None:
    """None where somebody else was faster."""
    user = await _holder(session)
    nonce = new_nonce()
    successor = token.successor(_key(settings), nonce)
    after = rotated(session, successor, nonce, now, _expires_at(session.created_at, now, settings))
    if not await session_repository.rotate(session, after):
        return None
    return _tokens(after, user, successor, settings, now)


async def _give_again(session: Session, token: RefreshToken, settings: Settings, now: datetime) -> Tokens:
    """The successor that was given out already, once more. Nothing is written, so any number may ask at once."""
    user = await _holder(session)
    successor = token.successor(_key(settings), session.nonce)
    if successor.secret_hash != session.secret_hash:
        # WALLET_ENCRYPTION_KEY is another one than some seconds ago. That is no fault of the client's.
        _log_refusal(session, "key_changed")
        raise InvalidRefreshToken
    return _tokens(session, user, successor, settings, now)


async def _holder(session: Session) -> User:
    """Reads the user before the session changes: if the user is put out in between, the token's version is old.

    Raises InvalidRefreshToken.
    """
    user = await user_repository.find(session.user_id)
    if user is None or not user.is_active or user.token_version != session.token_version:
        _log_refusal(session, "user_put_out")
        raise InvalidRefreshToken
    return user


async def _revoke_for_reuse(client: Client, session: Session, request_id: str | None) -> None:
    """Puts both holders out, since which of the two is the thief cannot be told."""
    now = utc_now()
    event = new_audit_event(
        AuditAction.SESSION_REVOKED_BY_REUSE,
        actor_id=ANYBODY,
        subject_id=session.user_id,
        request_id=request_id,
        session_id=session.id,
    )

    async def revoke(db_session: AsyncClientSession) -> bool:
        is_revoked = await session_repository.revoke(session.id, session.user_id, Ending.REUSE, now, session=db_session)
        if is_revoked:
            await audit_repository.insert(event, session=db_session)
        return is_revoked

    if await run_in_transaction(client, revoke):
        log.warning("session.revoked_by_reuse", user_id=session.user_id, session_id=session.id)


def _expires_at(created_at: datetime, now: datetime, settings: Settings) -> datetime:
    idle_end = now + timedelta(seconds=settings.refresh_token_lifetime_s)
    return min(idle_end, created_at + timedelta(seconds=settings.session_lifetime_s))


def _tokens(session: Session, user: User, token: RefreshToken, settings: Settings, now: datetime) -> Tokens:
    return Tokens(
        access_token=issue_access_token(user, settings, now, session.id),
        expires_in=settings.access_token_lifetime_s,
        refresh_token=token.text,
        refresh_expires_in=int((session.expires_at - now).total_seconds()),
        session_id=session.id,
    )


def _key(settings: Settings) -> bytes:
    return derive_key(settings.root_key, KeyPurpose.REFRESH_TOKENS)


def _log_refusal(session: Session, reason: str) -> None:
    log.warning("session.refresh_refused", reason=reason, user_id=session.user_id, session_id=session.id)
