"""What admins do with other people's accounts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.documents import User
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.permissions import TWO_ADMIN_ROLES, Role
from service.domain.proposals import AccessProposal, ProposalKind
from service.errors import NotFound, OwnAccount, Unauthenticated, UserLockedDown
from service.repositories import audit_events as audit_repository
from service.repositories import users as user_repository
from service.repositories.users import UserFilter as UserFilter  # noqa: PLC0414 controllers name it, and may not reach below
from service.services import api_keys, proposals
from service.services.audit_events import new_audit_event
from service.services.callers import Caller
from service.services.users import account_name

log = structlog.get_logger()


class _Deed(NamedTuple):
    """The fields to set, the audit details, and whether tokens that exist must end."""

    action: AuditAction
    changes: dict[str, Any]
    details: dict[str, str]
    ends_tokens: bool


async def list_users(wanted: UserFilter, *, before_id: str | None, limit: int) -> list[User]:
    """Newest first; `email` may be spelt in any way."""
    if wanted.email is not None:
        wanted = wanted._replace(email=account_name(wanted.email))
    return await user_repository.find_newest(wanted, before_id=before_id, limit=limit)


async def get_user(user_id: str) -> User:
    """Raises NotFound."""
    user = await user_repository.find(user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}")
    return user


async def deactivate_user(client: Client, admin: Caller, user_id: str, reason: str, request_id: str | None) -> User:
    """They can neither log in nor begin anything; what is under way ends as it would. Repeating it is harmless.

    Raises OwnAccount, NotFound, Unauthenticated where the admin was demoted at the same time, Unavailable.
    """
    return await _turn(client, admin, user_id, False, reason, request_id)


async def reactivate_user(client: Client, admin: Caller, user_id: str, reason: str, request_id: str | None) -> User:
    """Tokens from before stay ended. Repeatable. Raises UserLockedDown and what deactivate_user raises."""
    return await _turn(client, admin, user_id, True, reason, request_id)


async def set_roles(
    client: Client, admin: Caller, user_id: str, roles: Sequence[Role], reason: str, request_id: str | None
) -> User | AccessProposal:
    """In place of the roles before. What gives `admin` or `service` only becomes a proposal, for another admin to
    confirm. Repeating it is harmless. Raises what deactivate_user raises.
    """
    after = [role.value for role in Role if role in roles]
    asked = proposals.new_proposal(ProposalKind.ROLES, user_id, admin, reason, request_id, utc_now())

    def decide(user: User) -> _Deed | AccessProposal | None:
        if set(after) == set(user.roles):
            return None
        if not TWO_ADMIN_ROLES.isdisjoint(set(after) - set(user.roles)):
            return asked._replace(roles=tuple(after), was_roles=tuple(user.roles))
        details = {"roles": ",".join(after), "was_roles": ",".join(user.roles)}
        taken_away = set(user.roles) - set(after)
        return _Deed(AuditAction.USER_ROLES_CHANGED, {"roles": after}, details, bool(taken_away))

    return await _administer(client, admin, user_id, decide, reason, request_id)


async def _turn(
    client: Client, admin: Caller, user_id: str, is_active: bool, reason: str, request_id: str | None
) -> User:
    def decide(user: User) -> _Deed | None:
        if is_active and user.lockdown is not None:
            raise UserLockedDown(user_id=user.id)
        if user.is_active == is_active:
            return None
        action = AuditAction.USER_REACTIVATED if is_active else AuditAction.USER_DEACTIVATED
        return _Deed(action, {"is_active": is_active}, {}, not is_active)

    user = await _administer(client, admin, user_id, decide, reason, request_id)
    assert isinstance(user, User), "who is turned on or off gets no role"  # noqa: S101 a defect of ours
    return user


def _acts_as_admin(user: User) -> bool:
    return user.is_active and Role.ADMIN in user.roles


async def _administer(
    client: Client,
    admin: Caller,
    user_id: str,
    decide: Callable[[User], _Deed | AccessProposal | None],
    reason: str,
    request_id: str | None,
) -> User | AccessProposal:
    """Returns the user as they stand afterwards, or what another admin has to confirm first.

    Whoever does it is an admin still when it is done, so that there is one left always: nobody does it to themself,
    and the admin's own document is written too. Of two who demote each other at once, one finds it changed.
    """
    if user_id == admin.user_id:
        raise OwnAccount
    now = utc_now()

    async def do(session: AsyncClientSession) -> tuple[User | AccessProposal, _Deed | None]:
        user = await user_repository.find_in(user_id, session=session)
        if user is None:
            raise NotFound(f"There is no user {user_id}")
        deed = decide(user)
        if deed is None:
            return user, None
        if not await user_repository.count_deed(admin.user_id, admin.token_version, session=session):
            raise Unauthenticated("The access token is no longer valid")
        if isinstance(deed, AccessProposal):
            return await proposals.insert(deed, session=session), None
        event = new_audit_event(
            deed.action,
            actor_id=admin.user_id,
            subject_id=user_id,
            request_id=request_id,
            reason=reason,
            **deed.details,
        )
        changes = deed.changes | {"updated_at": now}
        if "is_active" in changes:
            changes["deactivation_event_id"] = None if changes["is_active"] else event.id
        changed = await user_repository.change(user_id, changes, ends_tokens=deed.ends_tokens, session=session)
        if _acts_as_admin(user) and not _acts_as_admin(changed):
            await api_keys.revoke_made_by(user_id, admin, reason, request_id, now, session=session)
        await audit_repository.insert(event, session=session)
        return changed, deed

    after, deed = await run_in_transaction(client, do)
    _log_deed(after, deed, admin)
    return after


def _log_deed(after: User | AccessProposal, deed: _Deed | None, admin: Caller) -> None:
    if isinstance(after, AccessProposal):
        log.info("proposal.requested", proposal_id=after.id, by=admin.user_id, kind=after.kind)
    elif deed is None:
        log.info("user.unchanged", user_id=after.id)
    else:
        log.info(deed.action, user_id=after.id, by=admin.user_id)
