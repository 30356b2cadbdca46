"""API keys: what admins do with them, and who asks with one."""

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError, PyMongoError

from service.database import Client, run_in_transaction
from service.domain.api_keys import (
    PREFIX_ALPHABET,
    PREFIX_LENGTH,
    SECRET_BYTES,
    ApiKey,
    KeyStatus,
    hash_secret,
    key_text,
    read_key_text,
    revoked,
    rotated,
)
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.permissions import Permission, Role, key_takes_two_admins
from service.domain.proposals import AccessProposal, ProposalKind
from service.errors import ApiKeyEnded, FieldError, InvalidFields, NotFound, Unauthenticated, UserIsNoService
from service.repositories import api_keys as key_repository
from service.repositories import audit_events as audit_repository
from service.repositories import users as user_repository
from service.services import proposals
from service.services.audit_events import new_audit_event
from service.services.callers import Caller

log = structlog.get_logger()

# With 40 bits of prefix even the second try is one in a million among a million keys.
_PREFIX_TRIES = 3


class KeyOrder(NamedTuple):
    user_id: str
    name: str
    permissions: Sequence[Permission]
    expires_at: datetime | None
    capture_to: tuple[str, ...] = ()


class IssuedKey(NamedTuple):
    """`text` is what the service sends; it cannot be shown again. It opens nothing before `proposal_id` is approved."""

    key: ApiKey
    text: str
    proposal_id: str | None


class KeyUses:
    """Notes when keys were last used, beside the requests, once a minute for each key."""

    def __init__(self) -> None:
        self._noting: dict[str, asyncio.Task[None]] = {}

    def note(self, key: ApiKey, now: datetime) -> None:
        if not key.was_used_lately(now) and key.id not in self._noting:
            self._noting[key.id] = asyncio.create_task(self._note(key.id, now))

    async def _note(self, key_id: str, now: datetime) -> None:
        try:
            await key_repository.note_use(key_id, now)
        except PyMongoError as error:
            log.warning("api_key.use_not_noted", api_key_id=key_id, error=repr(error))
        finally:
            del self._noting[key_id]

    async def close(self) -> None:
        await asyncio.gather(*self._noting.values())


async def authenticate(text: str, uses: KeyUses) -> Caller:
    """Returns who asks, as they are now: a key that was revoked, or whose user is no service any more, ends at once.

    Raises Unauthenticated, alike whatever is wrong with a secret; that a key has ended is told to its holders.
    """
    presented = read_key_text(text)
    if presented is None:
        raise Unauthenticated("The API key is not valid")
    found, now = await key_repository.find_with_user(presented.prefix), utc_now()
    if found is None or not found[0].fits(presented.secret_hash, now):
        log.warning("api_key.refused", prefix=presented.prefix, reason="unknown" if found is None else "wrong_secret")
        raise Unauthenticated("The API key is not valid")
    key, user = found
    status = key.status(now)
    if status is not KeyStatus.ACTIVE:
        log.warning("api_key.refused", api_key_id=key.id, reason=status)
        raise Unauthenticated(f"The API key is {status}")
    if user is None or not user.is_active or Role.SERVICE not in user.roles:
        log.warning("api_key.refused", api_key_id=key.id, reason="user", user_id=key.user_id)
        raise Unauthenticated("The API key is not valid")
    uses.note(key, now)
    return Caller(
        key.user_id,
        user.roles,
        user.token_version,
        scopes=key.scopes,
        api_key_id=key.id,
        capture_to=frozenset(key.capture_to),
    )


async def create_key(
    client: Client, admin: Caller, order: KeyOrder, request_id: str | None, lifetime: timedelta
) -> IssuedKey:
    """A key that does more than read waits for a second admin, unless it is for what this admin has. So does one that
    lasts for longer than `lifetime`.

    Raises NotFound where there is no such user, UserIsNoService, InvalidFields, Unavailable.
    """
    now = utc_now()
    if order.expires_at is not None and order.expires_at <= now:
        raise InvalidFields(fields=(FieldError("/expires_at", "in_the_past", "Send a time to come"),))
    lasts_long = order.expires_at is None or order.expires_at > now + lifetime
    for tries_left in reversed(range(_PREFIX_TRIES)):
        secret = secrets.token_bytes(SECRET_BYTES)
        key = ApiKey(
            id=new_id(Prefix.API_KEY),
            prefix="".join(secrets.choice(PREFIX_ALPHABET) for _ in range(PREFIX_LENGTH)),
            secret_hash=hash_secret(secret),
            created_by=admin.user_id,
            created_at=now,
            updated_at=now,
            is_waiting=lasts_long or key_takes_two_admins(order.permissions, order.user_id, admin.user_id),
            **order._asdict(),
        )
        try:
            proposal_id = await _insert(client, admin, key, request_id)
        except DuplicateKeyError:
            if not tries_left:
                raise
        else:
            log.info("api_key.created", api_key_id=key.id, user_id=key.user_id, by=admin.user_id)
            return IssuedKey(key, key_text(key.prefix, secret), proposal_id)
    raise AssertionError("the last try returns or raises")


async def _insert(client: Client, admin: Caller, key: ApiKey, request_id: str | None) -> str | None:
    """Returns the id of the proposal that another admin has to approve, where one has to."""
    event = _event(AuditAction.API_KEY_CREATED, key, key.created_by, request_id, permissions=",".join(key.permissions))

    async def insert(session: AsyncClientSession) -> str | None:
        user = await user_repository.find_standing(key.user_id, session=session)
        if user is None:
            raise NotFound(f"There is no user {key.user_id}")
        if Role.SERVICE not in user.roles:
            raise UserIsNoService(user_id=key.user_id)
        await _require_admin_still(admin, session)
        await key_repository.insert(key, session=session)
        await audit_repository.insert(event, session=session)
        if not key.is_waiting:
            return None
        proposal = _proposal(ProposalKind.API_KEY, key, admin, request_id, key.created_at)
        return (await proposals.insert(proposal, session=session)).id

    return await run_in_transaction(client, insert)


async def rotate_key(
    client: Client, admin: Caller, key_id: str, overlap: timedelta, request_id: str | None
) -> IssuedKey:
    """Another secret; the one before is good for `overlap` longer. Of a key that takes two admins, it opens nothing
    before another one confirms it. Raises NotFound, ApiKeyEnded, Unavailable.
    """
    now = utc_now()
    secret = secrets.token_bytes(SECRET_BYTES)

    async def rotate(session: AsyncClientSession) -> tuple[ApiKey, str | None]:
        key = await _find(key_id, session)
        if key.status(now) is not KeyStatus.ACTIVE:
            raise ApiKeyEnded(status=key.status(now))
        await _require_admin_still(admin, session)
        overlap_s = int(overlap.total_seconds())
        if key_takes_two_admins(key.permissions, key.user_id, admin.user_id):
            asked = _proposal(ProposalKind.API_KEY_ROTATION, key, admin, request_id, now)
            asked = asked._replace(secret_hash=hash_secret(secret), overlap_s=overlap_s)
            return key, (await proposals.insert(asked, session=session)).id
        after = rotated(key, hash_secret(secret), overlap, (admin.user_id,), now)
        await key_repository.replace(after, session=session)
        event = _event(AuditAction.API_KEY_ROTATED, key, admin.user_id, request_id, overlap_s=overlap_s)
        await audit_repository.insert(event, session=session)
        return after, None

    key, proposal_id = await run_in_transaction(client, rotate)
    log.info("api_key.rotated", api_key_id=key.id, by=admin.user_id, proposal_id=proposal_id)
    return IssuedKey(key, key_text(key.prefix, secret), proposal_id)


async def revoke_key(client: Client, admin: Caller, key_id: str, reason: str | None, request_id: str | None) -> ApiKey:
    """For good, and at once. Repeating it is harmless. Raises NotFound, Unavailable."""
    now = utc_now()

    async def revoke(session: AsyncClientSession) -> ApiKey:
        key = await _find(key_id, session)
        if key.revoked_at is not None:
            return key
        after = revoked(key, now)
        await key_repository.replace(after, session=session)
        event = _event(AuditAction.API_KEY_REVOKED, key, admin.user_id, request_id, reason=reason)
        await audit_repository.insert(event, session=session)
        return after

    key = await run_in_transaction(client, revoke)
    log.info("api_key.revoked", api_key_id=key.id, by=admin.user_id)
    return key


async def revoke_made_by(
    maker_id: str, admin: Caller, reason: str, request_id: str | None, now: datetime, *, session: AsyncClientSession
) -> None:
    """Revokes all keys of which this admin may know a secret, in the transaction that shuts them out."""
    for key in await key_repository.find_made_by(maker_id, session=session):
        if maker_id in key.all_makers:
            await key_repository.replace(revoked(key, now), session=session)
            event = _event(AuditAction.API_KEY_REVOKED, key, admin.user_id, request_id, reason, made_by=maker_id)
            await audit_repository.insert(event, session=session)


async def _require_admin_still(admin: Caller, session: AsyncClientSession) -> None:
    """Writes the admin's document too: of who makes a key, and who shuts them out at this moment, one comes second."""
    if not await user_repository.count_deed(admin.user_id, admin.token_version, session=session):
        raise Unauthenticated("The access token is no longer valid")


async def get_key(key_id: str) -> ApiKey:
    """Raises NotFound."""
    return await _find(key_id, None)


async def list_keys(user_id: str | None, *, before_id: str | None, limit: int) -> list[ApiKey]:
    """Of one user, or of all where none is named; newest first."""
    return await key_repository.find_newest(user_id, before_id=before_id, limit=limit)


async def _find(key_id: str, session: AsyncClientSession | None) -> ApiKey:
    key = await key_repository.find(key_id, session=session)
    if key is None:
        raise NotFound(f"There is no API key {key_id}")
    return key


def _proposal(kind: ProposalKind, key: ApiKey, admin: Caller, request_id: str | None, now: datetime) -> AccessProposal:
    proposal = proposals.new_proposal(kind, key.user_id, admin, None, request_id, now)
    return proposal._replace(api_key_id=key.id, permissions=tuple(key.permissions), capture_to=key.capture_to)


def _event(
    action: AuditAction,
    key: ApiKey,
    admin_id: str,
    request_id: str | None,
    reason: str | None = None,
    **details: str | int,
) -> AuditEvent:
    return new_audit_event(
        action,
        actor_id=admin_id,
        subject_id=key.id,
        request_id=request_id,
        reason=reason,
        user_id=key.user_id,
        name=key.name,
        **details,
    )
