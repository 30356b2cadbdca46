"""People: registering, logging in, and who somebody is."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import structlog
from email_validator import EmailNotValidError, validate_email
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.database import Client, run_in_transaction
from service.documents import User
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.permissions import Permission
from service.domain.wallets import Wallet, new_wallet
from service.errors import (
    AccountDeactivated,
    EmailTaken,
    FieldError,
    InvalidCredentials,
    InvalidFields,
    Unauthenticated,
)
from service.repositories import audit_events as audit_repository
from service.repositories import sessions as session_repository
from service.repositories import user_limits as user_limits_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.services.audit_events import ANYBODY, AuditTrail, new_audit_event
from service.services.callers import Caller
from service.services.passwords import Passwords, refuse_weak_password
from service.services.refresh_tokens import Tokens, open_session
from service.settings import Settings
from service.turns import Turns

log = structlog.get_logger()


# RFC 5321, section 4.5.3.1.3, less the brackets. It is looked at before anything else: what is longer costs more to
# parse than to send.
EMAIL_LIMIT_BYTES: Final = 254
# Nearly all addresses, and a hundredth of the work: what the library gives back as it is, but for capitals.
_PLAIN_EMAIL: Final = re.compile(
    r"(?=[^@]{1,64}@)(?!.*--)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,63}"
)

# Has the shape of somebody.
_NOBODY: dict[str, Any] = {
    "_id": "usr_" + 32 * "0",
    "first_name": "Nobody",
    "last_name": "Nowhere",
    "email": "nobody@example.com",
    "password_hash": 97 * "-",
    "roles": ["user"],
    "is_active": False,
    "token_version": 0,
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
}


class Registration(NamedTuple):
    first_name: str
    last_name: str
    email: str
    password: str


class Credentials(NamedTuple):
    email: str
    password: str


class LoggedIn(NamedTuple):
    user: User
    tokens: Tokens


async def register_user(
    client: Client,
    passwords: Passwords,
    settings: Settings,
    order: Registration,
    roles: tuple[str, ...] = ("user",),
    *,
    is_verified: bool = False,
) -> tuple[User, Wallet]:
    """Registers the user and their wallet in the default currency, both or neither.

    `is_verified`: who runs the service answers for the address.

    Raises InvalidFields for an e-mail or a password that will not do, EmailTaken, and Unavailable.
    """
    email = normal_email(order.email)
    refuse_weak_password(order.password, email, (order.first_name, order.last_name))
    # Before the transaction, which must not wait for it.
    password_hash = await passwords.hash(order.password)
    now = utc_now()
    verified_at = now if is_verified else None
    user = new_user(order.first_name, order.last_name, email, password_hash, roles, now, verified_at=verified_at)
    wallet = new_wallet(new_id(Prefix.WALLET), user.id, settings.default_currency, now)

    async def insert_both(session: AsyncClientSession) -> None:
        await user_repository.insert(user, session=session)
        await wallet_repository.insert(wallet, session=session)

    try:
        await run_in_transaction(client, insert_both)
    except DuplicateKeyError as error:
        raise EmailTaken from error
    log.info("user.registered", user_id=user.id, wallet_id=wallet.id)
    return user, wallet


async def ensure_users(
    client: Client, names: Mapping[str, tuple[str, str]], password_hash: str, currency: str
) -> list[str]:
    """Many users at once, by e-mail with first and last name, each with a wallet in `currency`; ids in that order.

    For those who make users in bulk and have hashed their password. Who or what is there already stays as it is.
    """

    async def insert_missing(session: AsyncClientSession) -> list[str]:
        now = utc_now()
        ids = await user_repository.find_ids(list(names), session=session)
        users = [
            new_user(first_name, last_name, email, password_hash, ("user",), now, verified_at=now)
            for email, (first_name, last_name) in names.items()
            if email not in ids
        ]
        if users:
            await user_repository.insert_many(users, session=session)
            ids |= {user.email: user.id for user in users}
        owners = [(user_id, currency) for user_id in ids.values()]
        known = {
            wallet.user_id for wallet in (await wallet_repository.find_named([], owners, session=session)).values()
        }
        missing = [user_id for user_id in ids.values() if user_id not in known]
        wallets = [new_wallet(new_id(Prefix.WALLET), user_id, currency, now) for user_id in missing]
        known_before = {*missing} - {user.id for user in users}
        for position, wallet in enumerate(wallets):
            if wallet.user_id in known_before:
                user_limits = await user_limits_repository.read_for_new_wallet(wallet.user_id, now, session=session)
                wallets[position] = wallet._replace(
                    owner_time_zone=user_limits.time_zone, counts_for_owner=user_limits.has_counters
                )
        if wallets:
            await wallet_repository.insert_many(wallets, session=session)
        return [ids[email] for email in names]

    return await run_in_transaction(client, insert_missing)


def new_user(
    first_name: str,
    last_name: str,
    email: str,
    password_hash: str,
    roles: tuple[str, ...],
    now: datetime,
    *,
    verified_at: datetime | None = None,
) -> User:
    return User(
        id=new_id(Prefix.USER),
        first_name=first_name,
        last_name=last_name,
        email=email,
        password_hash=password_hash,
        roles=list(roles),
        is_active=True,
        token_version=0,
        created_at=now,
        updated_at=now,
        email_verified_at=verified_at,
    )


async def log_in(
    client: Client,
    passwords: Passwords,
    settings: Settings,
    audit_trail: AuditTrail,
    credentials: Credentials,
    request_id: str | None,
) -> LoggedIn:
    """A new session. Raises InvalidCredentials, alike and after the same time for an unknown e-mail, a wrong password,
    a deactivated account and one that needs a reset by mail first, and Unavailable where too many are waiting.
    """
    found = await _find_by_email(credentials.email)
    # Who is not there is gone through like anybody: each step that only the others took could be told by its time.
    user = found or User.model_validate(_NOBODY)
    is_right = await passwords.verify(credentials.password, None if found is None else found.password_hash)
    if found is None or not is_right or not user.is_active or user.must_reset_password:
        held_back = "must_reset_password" if user.is_active else "deactivated"
        reason = "unknown_email" if found is None else held_back if is_right else "wrong_secret"
        log.warning("user.login_refused", reason=reason, user_id=None if found is None else user.id)
        refused = _refused_login(user, reason, request_id)
        if found is not None:
            # Later: a write of its own would tell by its time that there is such an account.
            audit_trail.note(refused)
        raise InvalidCredentials
    opened = open_session(user, settings, utc_now())
    event = new_audit_event(
        AuditAction.USER_LOGGED_IN,
        actor_id=user.id,
        subject_id=user.id,
        request_id=request_id,
        session_id=opened.session.id,
    )

    async def insert_both(session: AsyncClientSession) -> None:
        await session_repository.insert(opened.session, session=session)
        await audit_repository.insert(event, session=session)

    await run_in_transaction(client, insert_both)
    log.info("user.logged_in", user_id=user.id, session_id=opened.session.id)
    return LoggedIn(user, opened.tokens)


def _refused_login(user: User, reason: str, request_id: str | None) -> AuditEvent:
    return new_audit_event(
        AuditAction.USER_LOGIN_REFUSED, actor_id=ANYBODY, subject_id=user.id, request_id=request_id, cause=reason
    )


async def find_user_ids(emails: Collection[str]) -> dict[str, str]:
    """Finds who has proven that an address is theirs, however it is spelt; others are left out."""
    normal: dict[str, str] = {}
    turns = Turns()
    for email in emails:
        try:
            normal[email] = normal_email(email)
        except InvalidFields:
            continue
        finally:
            await turns.rest()
    ids = await user_repository.find_active_ids(list(normal.values()))
    return {email: ids[one] for email, one in normal.items() if one in ids}


async def get_user(caller: Caller) -> User:
    """Returns the user as they are now. Raises Unauthenticated for a revoked token, AccountDeactivated."""
    user = await user_repository.find(caller.user_id)
    if user is None or user.token_version != caller.token_version:
        raise Unauthenticated("The access token is no longer valid")
    if not user.is_active:
        raise AccountDeactivated
    return user


async def look_up_caller(caller: Caller) -> Caller:
    """Returns who asks, with the roles that they have now. Raises what get_user raises."""
    return caller._replace(roles=tuple((await get_user(caller)).roles))


async def may_now(caller: Caller, permission: Permission) -> bool:
    """Tells whether they may, not only by the token but as they are now. Raises what get_user raises."""
    return caller.may(permission) and (await look_up_caller(caller)).may(permission)


async def _find_by_email(email: str) -> User | None:
    try:
        return await user_repository.find_by_email(normal_email(email))
    except InvalidFields:
        # Nobody could register with it, so nobody has it; saying more than that would be of no use here.
        return None


def account_name(email: str) -> str:
    """One for an account, however its e-mail is spelt; what nobody could register with is its own."""
    try:
        return normal_email(email)
    except InvalidFields:
        return email.casefold()


def normal_email(email: str) -> str:
    """One address, one spelling: syntax checked, Unicode normalised, in small letters. Raises InvalidFields.

    Not case folded, which makes another domain, or box, of one with a ß in it: mails would go to somebody else.
    """
    if len(email) > EMAIL_LIMIT_BYTES or len(email.encode(errors="surrogatepass")) > EMAIL_LIMIT_BYTES:
        raise _invalid_email()
    if _PLAIN_EMAIL.fullmatch(email) is not None:
        return email.lower()
    try:
        # Special domains (.test, .local) are left to the mail server: an address there does nobody harm.
        checked = validate_email(email, check_deliverability=False, globally_deliverable=False)
        return unicodedata.normalize("NFC", checked.normalized.lower())
    except EmailNotValidError as error:
        raise _invalid_email() from error


def _invalid_email() -> InvalidFields:
    return InvalidFields(
        fields=(FieldError("/email", "invalid_email", "Send an e-mail address, e.g. asha@example.com"),)
    )
