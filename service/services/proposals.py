"""Access proposals: one admin asks for more access for somebody, and another confirms it.

Granting `admin` or `service`, a key that does more than read, and removing somebody's second factor.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.domain.api_keys import ApiKey, KeyStatus, approved, revoked, rotated
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.permissions import Role
from service.domain.proposals import AccessProposal, ProposalKind, ProposalStatus, are_independent
from service.errors import (
    ApiKeyEnded,
    IllegalTransition,
    NotFound,
    OwnAccount,
    SecondAdminRequired,
    TotpNotEnrolled,
    Unauthenticated,
)
from service.repositories import api_keys as key_repository
from service.repositories import audit_events as audit_repository
from service.repositories import proposals as proposal_repository
from service.repositories import totp_enrolments as enrolment_repository
from service.repositories import users as user_repository
from service.services import factor_changes
from service.services.audit_events import new_audit_event
from service.services.callers import Caller
from service.services.factor_changes import FactorChange

log = structlog.get_logger()


def new_proposal(
    kind: ProposalKind, user_id: str, admin: Caller, reason: str | None, request_id: str | None, now: datetime
) -> AccessProposal:
    return AccessProposal(new_id(Prefix.PROPOSAL), kind, user_id, reason, admin.user_id, request_id, now, now)


async def insert(proposal: AccessProposal, *, session: AsyncClientSession) -> AccessProposal:
    """In the transaction of the request. Where the same already waits, returns that one."""
    if proposal.api_key_id is None:
        for waiting in await proposal_repository.find_waiting(proposal.user_id, session=session):
            if waiting.repeats(proposal):
                return waiting
    await proposal_repository.insert(proposal, session=session)
    event = _event(AuditAction.PROPOSAL_REQUESTED, proposal, proposal.requested_by, proposal.request_id)
    await audit_repository.insert(event._replace(reason=proposal.reason), session=session)
    return proposal


async def propose_totp_removal(
    client: Client, admin: Caller, user_id: str, reason: str, request_id: str | None
) -> AccessProposal:
    """For a user who has lost their authenticator app. Raises OwnAccount, NotFound, TotpNotEnrolled, Unavailable."""
    if user_id == admin.user_id:
        raise OwnAccount
    proposal = new_proposal(ProposalKind.TOTP_REMOVAL, user_id, admin, reason, request_id, utc_now())

    async def propose(session: AsyncClientSession) -> AccessProposal:
        if await user_repository.find_standing(user_id, session=session) is None:
            raise NotFound(f"There is no user {user_id}")
        if not await enrolment_repository.is_active(user_id, session=session):
            raise TotpNotEnrolled
        return await insert(proposal, session=session)

    proposed = await run_in_transaction(client, propose)
    log.info("proposal.requested", proposal_id=proposed.id, by=admin.user_id, kind=proposed.kind)
    return proposed


async def approve_proposal(client: Client, admin: Caller, proposal_id: str, request_id: str | None) -> AccessProposal:
    """Does what was asked for, once.

    Raises NotFound, SecondAdminRequired, IllegalTransition where it was decided already or no longer fits,
    ApiKeyEnded, TotpNotEnrolled, Unauthenticated where the admin was demoted at the same time, Unavailable.
    """
    now = utc_now()

    async def approve(session: AsyncClientSession) -> AccessProposal:
        proposal = await _take_up(proposal_id, admin, session)
        await _require_second_admin(proposal, admin.user_id, session)
        done = _decided(proposal, ProposalStatus.SUCCESS, admin, now)
        await proposal_repository.replace(done, session=session)
        await audit_repository.insert(
            _event(AuditAction.PROPOSAL_APPROVED, done, admin.user_id, request_id), session=session
        )
        await _DEEDS[done.kind](done, request_id, session)
        return done

    done = await run_in_transaction(client, approve)
    log.info("proposal.approved", proposal_id=done.id, by=admin.user_id, kind=done.kind)
    return done


async def reject_proposal(
    client: Client, admin: Caller, proposal_id: str, reason: str, request_id: str | None
) -> AccessProposal:
    """By any admin: who asked for it may take it back. A key that waits for it is revoked.

    Raises NotFound, IllegalTransition, Unauthenticated, Unavailable.
    """
    now = utc_now()

    async def reject(session: AsyncClientSession) -> AccessProposal:
        proposal = await _take_up(proposal_id, admin, session)
        done = _decided(proposal, ProposalStatus.REJECTED, admin, now)._replace(rejection_reason=reason)
        await proposal_repository.replace(done, session=session)
        event = _event(AuditAction.PROPOSAL_REJECTED, done, admin.user_id, request_id)
        await audit_repository.insert(event._replace(reason=reason), session=session)
        if done.kind is ProposalKind.API_KEY:
            key = await _find_key(done, session)
            if key.revoked_at is None:
                await key_repository.replace(revoked(key, now), session=session)
        return done

    done = await run_in_transaction(client, reject)
    log.info("proposal.rejected", proposal_id=done.id, by=admin.user_id, kind=done.kind)
    return done


async def get_proposal(proposal_id: str) -> AccessProposal:
    """Raises NotFound."""
    return await _find(proposal_id, None)


async def list_proposals(status: ProposalStatus | None, *, before_id: str | None, limit: int) -> list[AccessProposal]:
    """Newest first."""
    return await proposal_repository.find_newest(status, before_id=before_id, limit=limit)


async def are_unrelated(requester_id: str, approver_id: str, *, session: AsyncClientSession) -> bool:
    """Tells whether the two go back to nobody in common, so that one may approve what the other asks for."""
    return are_independent(
        await user_repository.find_origins((requester_id,), session=session),
        await user_repository.find_origins((approver_id,), session=session),
    )


async def _take_up(proposal_id: str, admin: Caller, session: AsyncClientSession) -> AccessProposal:
    proposal = await _find(proposal_id, session)
    if proposal.status is not ProposalStatus.REQUIRES_APPROVAL:
        raise IllegalTransition(
            f"{proposal.id} is {proposal.status} and cannot be decided again", status_now=proposal.status
        )
    if not await user_repository.count_deed(admin.user_id, admin.token_version, session=session):
        raise Unauthenticated("The access token is no longer valid")
    return proposal


async def _require_second_admin(proposal: AccessProposal, admin_id: str, session: AsyncClientSession) -> None:
    """Raises SecondAdminRequired, and IllegalTransition where whoever asked is no admin any more."""
    requester = await user_repository.find_in(proposal.requested_by, session=session)
    if requester is None or not requester.is_active or Role.ADMIN not in requester.roles:
        raise IllegalTransition("Whoever asked for it is no admin any more", status_now=proposal.status)
    if admin_id == proposal.user_id or not await are_unrelated(requester.id, admin_id, session=session):
        raise SecondAdminRequired


def _decided(proposal: AccessProposal, status: ProposalStatus, admin: Caller, now: datetime) -> AccessProposal:
    return proposal._replace(
        status=status, decided_by=admin.user_id, decided_at=now, updated_at=now, version=proposal.version + 1
    )


async def _set_roles(proposal: AccessProposal, request_id: str | None, session: AsyncClientSession) -> None:
    user = await user_repository.find_in(proposal.user_id, session=session)
    if user is None or set(user.roles) != set(proposal.was_roles):
        raise IllegalTransition("The user's roles have changed since it was asked for", status_now=proposal.status)
    event = _deed(
        AuditAction.USER_ROLES_CHANGED,
        proposal,
        proposal.user_id,
        request_id,
        roles=",".join(proposal.roles),
        was_roles=",".join(proposal.was_roles),
    )
    assert proposal.decided_by is not None, "it was decided just now"  # noqa: S101 a defect of ours
    changes = {
        "roles": list(proposal.roles),
        "role_givers": sorted({*user.role_givers, proposal.requested_by, proposal.decided_by}),
        "updated_at": proposal.updated_at,
    }
    ends_tokens = bool(set(proposal.was_roles) - set(proposal.roles))
    await user_repository.change(user.id, changes, ends_tokens=ends_tokens, session=session)
    await audit_repository.insert(event, session=session)


async def _approve_key(proposal: AccessProposal, _request_id: str | None, session: AsyncClientSession) -> None:
    key = await _find_key(proposal, session)
    if key.status(proposal.updated_at) is not KeyStatus.REQUIRES_APPROVAL:
        raise ApiKeyEnded(status=key.status(proposal.updated_at))
    assert proposal.decided_by is not None, "it was decided just now"  # noqa: S101 a defect of ours
    await key_repository.replace(approved(key, proposal.decided_by, proposal.updated_at), session=session)


async def _rotate_key(proposal: AccessProposal, request_id: str | None, session: AsyncClientSession) -> None:
    key = await _find_key(proposal, session)
    now = proposal.updated_at
    if key.status(now) is not KeyStatus.ACTIVE:
        raise ApiKeyEnded(status=key.status(now))
    assert proposal.secret_hash is not None and proposal.decided_by is not None, "it is a rotation"  # noqa: S101, PT018 a defect of ours
    makers = (proposal.requested_by, proposal.decided_by)
    after = rotated(key, proposal.secret_hash, timedelta(seconds=proposal.overlap_s), makers, now)
    await key_repository.replace(after, session=session)
    event = _deed(
        AuditAction.API_KEY_ROTATED,
        proposal,
        key.id,
        request_id,
        user_id=key.user_id,
        name=key.name,
        overlap_s=proposal.overlap_s,
    )
    await audit_repository.insert(event, session=session)


async def _remove_totp(proposal: AccessProposal, request_id: str | None, session: AsyncClientSession) -> None:
    if not await enrolment_repository.remove(proposal.user_id, proposal.updated_at, session=session):
        raise TotpNotEnrolled
    change = FactorChange(proposal.user_id, "", ends_others=False, request_id=request_id, now=proposal.updated_at)
    event = _deed(AuditAction.TOTP_REMOVED, proposal, proposal.user_id, request_id)
    await factor_changes.record_event(event, change, session=session)


_DEEDS: Final[Mapping[ProposalKind, Callable[[AccessProposal, str | None, AsyncClientSession], Awaitable[None]]]] = (
    MappingProxyType(
        {
            ProposalKind.ROLES: _set_roles,
            ProposalKind.API_KEY: _approve_key,
            ProposalKind.API_KEY_ROTATION: _rotate_key,
            ProposalKind.TOTP_REMOVAL: _remove_totp,
        }
    )
)


async def _find(proposal_id: str, session: AsyncClientSession | None) -> AccessProposal:
    proposal = await proposal_repository.find(proposal_id, session=session)
    if proposal is None:
        raise NotFound(f"There is no proposal {proposal_id}")
    return proposal


async def _find_key(proposal: AccessProposal, session: AsyncClientSession) -> ApiKey:
    assert proposal.api_key_id is not None, "it is about a key"  # noqa: S101 a defect of ours
    key = await key_repository.find(proposal.api_key_id, session=session)
    if key is None:
        raise NotFound(f"There is no API key {proposal.api_key_id}")
    return key


def _event(action: AuditAction, proposal: AccessProposal, actor_id: str, request_id: str | None) -> AuditEvent:
    return new_audit_event(
        action,
        actor_id=actor_id,
        subject_id=proposal.id,
        request_id=request_id,
        kind=proposal.kind,
        user_id=proposal.user_id,
        requested_by=proposal.requested_by,
        roles=",".join(proposal.roles) or None,
        api_key_id=proposal.api_key_id,
    )


def _deed(
    action: AuditAction, proposal: AccessProposal, subject_id: str, request_id: str | None, **details: str | int
) -> AuditEvent:
    """The event of the deed itself: by whoever confirmed it, with whoever asked for it in the details."""
    assert proposal.decided_by is not None, "it was decided just now"  # noqa: S101 a defect of ours
    return new_audit_event(
        action,
        actor_id=proposal.decided_by,
        subject_id=subject_id,
        request_id=request_id,
        reason=proposal.reason,
        requested_by=proposal.requested_by,
        proposal_id=proposal.id,
        **details,
    )
