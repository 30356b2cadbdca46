"""Appoints the first admins from the command line, before there is any admin."""

import secrets
from enum import StrEnum
from typing import NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.documents import User
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.outbox import OutboxTopic, outbox_id, outbox_row
from service.domain.permissions import Role
from service.domain.wallets import new_wallet
from service.errors import AccountDeactivated
from service.repositories import audit_events as audit_repository
from service.repositories import outbox as outbox_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.services.audit_events import OPERATOR, new_audit_event
from service.services.passwords import Passwords
from service.services.users import new_user, normal_email

log = structlog.get_logger()

# Four eyes need two. Whoever else is to be one, these can make.
ENOUGH_ADMINS = 2
_PASSWORD_BYTES = 32


class Outcome(StrEnum):
    # An account was made; its owner chooses a password by mail.
    CREATED = "created"
    # Somebody who had an account already.
    PROMOTED = "promoted"
    # An admin whom others had made is independent of them from now on.
    VOUCHED = "vouched"
    # They were one before.
    UNCHANGED = "unchanged"
    # The account's address is not proven: it may be somebody else's.
    UNPROVEN = "unproven"
    # There are enough admins, who can make others.
    REFUSED = "refused"


class Appointment(NamedTuple):
    """`admins` counts all who can act as one afterwards."""

    outcome: Outcome
    admins: int


class Deed(NamedTuple):
    """Who runs the command and why, for the audit event; `is_forced` where there are enough admins already."""

    by: str
    reason: str
    is_forced: bool = False


async def appoint_admin(
    client: Client, passwords: Passwords, email: str, names: tuple[str, str], currency: str, deed: Deed
) -> Appointment:
    """Makes whoever has the address an admin. Where nobody has it, an account is made, with `names` and a wallet, and a
    mail lets its owner choose a password. Repeating it is harmless. Forced for an admin whom others made, it makes that
    one independent of them: whoever runs the service vouches that they are a person.

    Raises InvalidFields for what is no address, AccountDeactivated.
    """
    address = normal_email(email)
    # Nobody knows it, so that only the mail leads in. Hashed before the transaction, which must not wait for it.
    unknown = await passwords.hash(secrets.token_urlsafe(_PASSWORD_BYTES))

    async def do(session: AsyncClientSession) -> Appointment:
        admins = await user_repository.count_admins(session=session)
        found = await user_repository.find_by_email_in(address, session=session)
        if found is not None and not found.is_active:
            raise AccountDeactivated
        is_admin = found is not None and Role.ADMIN in found.roles
        if found is not None and is_admin and not (deed.is_forced and found.role_givers):
            return Appointment(Outcome.UNCHANGED, admins)
        if admins >= ENOUGH_ADMINS and not deed.is_forced:
            return Appointment(Outcome.REFUSED, admins)
        if found is not None and found.email_verified_at is None:
            return Appointment(Outcome.UNPROVEN, admins)
        if found is None:
            user = new_user(*names, address, unknown, ("user", Role.ADMIN.value), utc_now())
            await _open_account(user, currency, session=session)
        else:
            user = found
            # Whoever runs the service vouches for them, whoever gave them a role before.
            roles = found.roles if is_admin else [*found.roles, Role.ADMIN.value]
            changes = {"roles": roles, "role_givers": [], "updated_at": utc_now()}
            await user_repository.change(found.id, changes, ends_tokens=False, session=session)
        event = new_audit_event(
            AuditAction.ADMIN_APPOINTED,
            actor_id=OPERATOR,
            subject_id=user.id,
            request_id=None,
            reason=deed.reason,
            by=deed.by,
            is_new=found is None,
            is_forced=deed.is_forced,
            **({"was_given_by": ",".join(user.role_givers)} if is_admin else {}),
        )
        await audit_repository.insert(event, session=session)
        if is_admin:
            return Appointment(Outcome.VOUCHED, admins)
        return Appointment(Outcome.CREATED if found is None else Outcome.PROMOTED, admins + 1)

    appointment = await run_in_transaction(client, do)
    log.info("admin.appointed", outcome=appointment.outcome, admins=appointment.admins)
    return appointment


async def _open_account(user: User, currency: str, *, session: AsyncClientSession) -> None:
    """With a wallet, as everybody has one, and the mail by which its owner comes in."""
    await user_repository.insert(user, session=session)
    wallet = new_wallet(new_id(Prefix.WALLET), user.id, currency, user.created_at)
    await wallet_repository.insert(wallet, session=session)
    row = outbox_row(OutboxTopic.PASSWORD_RESET, user.email, None, user.created_at)
    reset = outbox_id(OutboxTopic.PASSWORD_RESET, new_id(Prefix.PASSWORD_RESET))
    await outbox_repository.insert_many([row._replace(id=reset)], session=session)
