"""Lockdowns: an admin stops everything of a user in one act, and two admins lift it.

Each act is a transaction on the user's account and then one command of the ledger for each wallet. The account comes
first: from then on nobody can begin anything as this user, and the bank gets no withdrawal that it has not accepted.
Where the process dies in between, the lockdown shows as `incomplete` or `lifting`, and the same act finishes it.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.documents import User
from service.documents.users import Lockdown
from service.domain.api_keys import revoked
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.lockdowns import LOCKDOWN_DETAIL, FreezeBefore, LockdownStatus, status_of
from service.domain.money import EXPONENTS
from service.domain.outbox import OutboxTopic, outbox_id, outbox_row
from service.domain.permissions import Role
from service.domain.sessions import Ending
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.domain.webhook_endpoints import DisabledReason, EndpointStatus, disabled
from service.errors import (
    IllegalTransition,
    NotFound,
    OwnAccount,
    SecondAdminRequired,
    Unauthenticated,
    WalletBooksDisagree,
)
from service.ledger.audit_events import Unchanged
from service.ledger.committer import Ledger
from service.ledger.lockdowns import LockWallet, UnlockWallet
from service.ledger.wallet_life import OnWallet
from service.repositories import api_keys as key_repository
from service.repositories import audit_events as audit_repository
from service.repositories import outbox as outbox_repository
from service.repositories import sessions as session_repository
from service.repositories import user_limits as user_limits_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.repositories import webhook_endpoints as endpoint_repository
from service.services import api_keys
from service.services.audit_events import new_audit_event
from service.services.breaks import require_books_agree
from service.services.callers import Caller
from service.services.ended_tokens import EndedTokens
from service.services.proposals import are_unrelated
from service.services.wallet_life import money_beside

log = structlog.get_logger()

_Decide = Callable[[User, AsyncClientSession], Awaitable[dict[str, Any] | None]]


class LockdownState(NamedTuple):
    """The user, the status of their lockdown, and all their wallets as they are now."""

    user: User
    status: LockdownStatus
    wallets: list[Wallet]


class Lockdowns:
    """What an admin does about lockdowns, with what it takes."""

    def __init__(self, client: Client, ledger: Ledger, ended_tokens: EndedTokens) -> None:
        self._client = client
        self._ledger = ledger
        self._ended_tokens = ended_tokens

    async def lock_down(self, admin: Caller, user_id: str, reason: str, request_id: str | None) -> LockdownState:
        """Ends sessions and API keys, disables webhook endpoints, deactivates the user, freezes all wallets both ways.

        A repeat finishes an interrupted lockdown, and cancels a lift that was proposed or has begun.
        Raises OwnAccount, NotFound, Unauthenticated where the admin was demoted, and what Ledger.execute raises.
        """
        now = utc_now()

        async def decide(user: User, session: AsyncClientSession) -> dict[str, Any] | None:
            standing = user.lockdown
            if standing is not None and standing.lift_proposed_at is None:
                return None
            event = _event(AuditAction.USER_LOCKED_DOWN, admin, user_id, request_id, reason)
            lockdown = Lockdown(
                event_id=event.id if standing is None else standing.event_id,
                locked_by=admin.user_id,
                reason=reason,
                locked_at=now,
                was_active=user.is_active if standing is None else standing.was_active,
            )
            # A wallet that is opened at this very moment bumps the same document: the two conflict, so that either
            # the wallet is frozen below, or it is not opened.
            await user_limits_repository.read_for_new_wallet(user_id, now, session=session)
            await session_repository.revoke_all(user_id, Ending.LOCKED_DOWN, now, session=session)
            await _disable_endpoints(admin, user_id, request_id, now, session)
            await _revoke_keys(admin, user_id, reason, request_id, now, session)
            await api_keys.revoke_made_by(user_id, admin, reason, request_id, now, session=session)
            await audit_repository.insert(event, session=session)
            return {
                "is_active": False,
                "deactivation_event_id": event.id,
                "lockdown": lockdown.model_dump(),
            }

        user = await self._change(admin, user_id, decide, now, ends_tokens=True)
        self._ended_tokens.note_user(user.id, user.token_version, now)
        lockdown = user.lockdown
        assert lockdown is not None, "the transaction has set it"  # noqa: S101 a snapshot is one moment
        for wallet in await _wallets_of(user_id):
            fields = _fields(admin, wallet, reason, request_id)
            await self._execute(LockWallet(**fields, lockdown_id=lockdown.event_id))
        log.warning("user.locked_down", user_id=user_id, by=admin.user_id)
        return await get_lockdown(user_id)

    async def propose_lift(self, admin: Caller, user_id: str, reason: str, request_id: str | None) -> LockdownState:
        """Proposes to lift it. A later proposal takes the place of an earlier one.

        Raises OwnAccount, NotFound, IllegalTransition where there is no lockdown or its lift has begun,
        Unauthenticated.
        """
        now = utc_now()

        async def decide(user: User, session: AsyncClientSession) -> dict[str, Any] | None:
            lockdown = _standing(user)
            if lockdown.lift_approved_at is not None:
                raise IllegalTransition("The lift is approved already", status_now=LockdownStatus.LIFTING)
            if lockdown.lift_proposed_by == admin.user_id:
                return None
            event = _event(AuditAction.USER_LOCKDOWN_LIFT_PROPOSED, admin, user_id, request_id, reason)
            await audit_repository.insert(event, session=session)
            proposed = {"lift_proposed_by": admin.user_id, "lift_reason": reason, "lift_proposed_at": now}
            return {"lockdown": lockdown.model_dump() | proposed}

        await self._change(admin, user_id, decide, now, ends_tokens=False)
        return await get_lockdown(user_id)

    async def approve_lift(self, admin: Caller, user_id: str, request_id: str | None) -> LockdownState:
        """Opens the wallets that the lockdown froze, and lets the user log in again once they have reset their password
        by mail. API keys stay revoked, and webhook endpoints disabled until their owner enables them.

        A wallet stays frozen where it was so before, while something is owed, or while a break of its books is open.
        Any admin can repeat it to finish what a dead process left. Raises OwnAccount, NotFound, SecondAdminRequired,
        IllegalTransition where no lift is proposed, Unauthenticated, and what Ledger.execute raises.
        """
        user = await self._approve(admin, user_id, request_id)
        lockdown = user.lockdown
        assert lockdown is not None, "the transaction has left it"  # noqa: S101 a snapshot is one moment
        for wallet in await _wallets_of(user_id):
            before = await _frozen_before(wallet, lockdown.event_id)
            if before is None or not await _agrees(wallet):
                continue
            fields = _fields(admin, wallet, lockdown.lift_reason, request_id)
            beside = await money_beside(wallet.id)
            await self._execute(UnlockWallet(**fields, lockdown_id=lockdown.event_id, before=before, beside=beside))
        await self._end(admin, user_id, lockdown, request_id)
        log.warning("user.lockdown_lifted", user_id=user_id, by=admin.user_id)
        return await get_lockdown(user_id)

    async def _approve(self, admin: Caller, user_id: str, request_id: str | None) -> User:
        now = utc_now()

        async def decide(user: User, session: AsyncClientSession) -> dict[str, Any] | None:
            lockdown = _standing(user)
            if lockdown.lift_proposed_by is None:
                raise IllegalTransition("Nobody has proposed to lift it", status_now=LockdownStatus.LOCKED)
            if lockdown.lift_approved_at is not None:
                return None
            proposer = await user_repository.find_in(lockdown.lift_proposed_by, session=session)
            if proposer is None or not proposer.is_active or Role.ADMIN not in proposer.roles:
                raise SecondAdminRequired
            if not await are_unrelated(proposer.id, admin.user_id, session=session):
                raise SecondAdminRequired
            event = _event(AuditAction.USER_LOCKDOWN_LIFT_APPROVED, admin, user_id, request_id, lockdown.lift_reason)
            await audit_repository.insert(event, session=session)
            return {"lockdown": lockdown.model_dump() | {"lift_approved_by": admin.user_id, "lift_approved_at": now}}

        return await self._change(admin, user_id, decide, now, ends_tokens=False)

    async def _end(self, admin: Caller, user_id: str, lifted: Lockdown, request_id: str | None) -> None:
        now = utc_now()

        async def decide(user: User, session: AsyncClientSession) -> dict[str, Any] | None:
            if user.lockdown is None or user.lockdown != lifted:
                # Another admin has finished it, or has locked the user down again.
                return None
            event = _event(AuditAction.USER_LOCKDOWN_LIFTED, admin, user_id, request_id, lifted.lift_reason)
            await audit_repository.insert(event, session=session)
            # Those that were made while it stood.
            await _revoke_keys(admin, user_id, lifted.lift_reason, request_id, now, session)
            # One that was registered while the lockdown began, or that a release before this one left alone.
            await _disable_endpoints(admin, user_id, request_id, now, session)
            if lifted.was_active:
                await _ask_for_reset(user, request_id, now, session)
            changes: dict[str, Any] = {
                "lockdown": None,
                "is_active": lifted.was_active,
                "must_reset_password": True,
            }
            return changes | ({"deactivation_event_id": None} if lifted.was_active else {})

        await self._change(admin, user_id, decide, now, ends_tokens=False)

    async def _change(self, admin: Caller, user_id: str, decide: _Decide, now: datetime, *, ends_tokens: bool) -> User:
        """Returns the user afterwards; `decide` returns None where nothing changes. The admin's own document is written
        too: an admin who is demoted at the same moment does nothing.
        """
        if user_id == admin.user_id:
            raise OwnAccount

        async def change(session: AsyncClientSession) -> User:
            user = await user_repository.find_in(user_id, session=session)
            if user is None:
                raise NotFound(f"There is no user {user_id}")
            changes = await decide(user, session)
            if changes is None:
                return user
            if not await user_repository.count_deed(admin.user_id, admin.token_version, session=session):
                raise Unauthenticated("The access token is no longer valid")
            changes["updated_at"] = now
            return await user_repository.change(user_id, changes, ends_tokens=ends_tokens, session=session)

        return await run_in_transaction(self._client, change)

    async def _execute(self, command: OnWallet) -> None:
        try:
            await self._ledger.execute(command)
        except Unchanged:
            log.info("wallet.unchanged", wallet_id=command.wallet_id, command=type(command).__name__)


async def get_lockdown(user_id: str) -> LockdownState:
    """Raises NotFound."""
    user = await user_repository.find(user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}")
    wallets, lockdown = await _wallets_of(user_id), user.lockdown
    status = status_of(
        is_standing=lockdown is not None,
        is_proposed=lockdown is not None and lockdown.lift_proposed_at is not None,
        is_approved=lockdown is not None and lockdown.lift_approved_at is not None,
        wallets=wallets,
    )
    return LockdownState(user, status, wallets)


async def _wallets_of(user_id: str) -> list[Wallet]:
    return await wallet_repository.find_of_user(user_id, before_id=None, limit=len(EXPONENTS))


async def _revoke_keys(
    admin: Caller,
    user_id: str,
    reason: str | None,
    request_id: str | None,
    now: datetime,
    session: AsyncClientSession,
) -> None:
    for key in await key_repository.find_unrevoked(user_id, session=session):
        await key_repository.replace(revoked(key, now), session=session)
        event = new_audit_event(
            AuditAction.API_KEY_REVOKED,
            actor_id=admin.user_id,
            subject_id=key.id,
            request_id=request_id,
            reason=reason,
            user_id=user_id,
            name=key.name,
        )
        await audit_repository.insert(event, session=session)


async def _disable_endpoints(
    admin: Caller, user_id: str, request_id: str | None, now: datetime, session: AsyncClientSession
) -> None:
    """Until their owner enables each again: a thief may have registered one, or moved it."""
    for endpoint in await endpoint_repository.find_all_owned(user_id, session=session):
        if endpoint.status is not EndpointStatus.ACTIVE:
            continue
        await endpoint_repository.replace(disabled(endpoint, DisabledReason.LOCKED_DOWN, now), session=session)
        event = new_audit_event(
            AuditAction.WEBHOOK_ENDPOINT_DISABLED,
            actor_id=admin.user_id,
            subject_id=endpoint.id,
            request_id=request_id,
            why=DisabledReason.LOCKED_DOWN.value,
            user_id=user_id,
        )
        await audit_repository.insert(event, session=session)


async def _ask_for_reset(user: User, request_id: str | None, now: datetime, session: AsyncClientSession) -> None:
    """Mails the owner a reset token: without it they cannot log in."""
    row = outbox_row(OutboxTopic.PASSWORD_RESET, user.email, request_id, now)
    reset = outbox_id(OutboxTopic.PASSWORD_RESET, new_id(Prefix.PASSWORD_RESET))
    await outbox_repository.insert_many([row._replace(id=reset)], session=session)


async def _frozen_before(wallet: Wallet, lockdown_id: str) -> FreezeBefore | None:
    """Returns how the wallet was frozen before the lockdown froze it; None where something else froze it."""
    if wallet.status is not WalletStatus.FROZEN or wallet.freeze_event_id is None:
        return None
    event = await audit_repository.find(wallet.freeze_event_id)
    if event is None or event.details.get(LOCKDOWN_DETAIL) != lockdown_id:
        return None
    direction = event.details.get("was_direction")
    return FreezeBefore(event.id, None if direction is None else Freeze(str(direction)))


async def _agrees(wallet: Wallet) -> bool:
    try:
        await require_books_agree(wallet.id)
    except WalletBooksDisagree:
        return False
    return True


def _standing(user: User) -> Lockdown:
    if user.lockdown is None:
        raise IllegalTransition(f"{user.id} is not locked down", status_now=LockdownStatus.NONE)
    return user.lockdown


def _event(action: AuditAction, admin: Caller, user_id: str, request_id: str | None, reason: str | None) -> AuditEvent:
    return new_audit_event(action, actor_id=admin.user_id, subject_id=user_id, request_id=request_id, reason=reason)


def _fields(admin: Caller, wallet: Wallet, reason: str | None, request_id: str | None) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "request_id": request_id,
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "wallet_id": wallet.id,
        "reason": reason,
        **admin.requester._asdict(),
    }
