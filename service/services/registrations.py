"""Registering by mail: an account comes into being when somebody has read what was sent to its address.

The request does the same for everybody's address and for nobody's: it keeps the registration and one outbox row, and
looks nobody up. A worker does, and mails. So neither the answer nor its time tells who has an account, and a stranger's
registration holds nobody's address.
"""

from datetime import datetime, timedelta

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.database import Client, run_in_transaction
from service.documents import User
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.keys import KeyPurpose, derive_key
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.domain.password_resets import ResetToken, hash_reset_token
from service.domain.registrations import Registration, derive_proof_token
from service.domain.sessions import Ending
from service.domain.wallets import new_wallet
from service.errors import InvalidProofToken
from service.gateways.job_queue import Job
from service.gateways.mailbox import Mail, Mailbox, MailRefused
from service.repositories import audit_events as audit_repository
from service.repositories import outbox as outbox_repository
from service.repositories import password_resets as reset_repository
from service.repositories import registrations as registration_repository
from service.repositories import users as user_repository
from service.repositories import wallets as wallet_repository
from service.services.audit_events import new_audit_event
from service.services.email_proofs import end_what_was_before_the_proof
from service.services.password_changes import Locksmith
from service.services.passwords import refuse_weak_password
from service.services.users import Registration as NewPerson
from service.services.users import new_user, normal_email
from service.settings import Settings

log = structlog.get_logger()

# Each costs a hashing. Whoever finds that strangers came after them registers anew, and is the newest.
_LOOKED_AT = 5


async def request_registration(smith: Locksmith, person: NewPerson, request_id: str | None) -> None:
    """Raises InvalidFields for an e-mail or a password that will not do, and Unavailable."""
    email = normal_email(person.email)
    refuse_weak_password(person.password, email, (person.first_name, person.last_name))
    await _keep(
        smith, email, (person.first_name, person.last_name), await smith.passwords.hash(person.password), request_id
    )


async def offer_proof(smith: Locksmith, user: User, request_id: str | None) -> None:
    """For an account that was opened at once: the same mail, and the same way to prove its address."""
    await _keep(smith, user.email, (user.first_name, user.last_name), user.password_hash, request_id)


async def _keep(
    smith: Locksmith, email: str, names: tuple[str, str], password_hash: str, request_id: str | None
) -> None:
    now, registration_id = utc_now(), new_id(Prefix.REGISTRATION)
    first_name, last_name = names
    registration = Registration(
        id=registration_id,
        email=email,
        first_name=first_name,
        last_name=last_name,
        password_hash=password_hash,
        token_hash=hash_reset_token(_token(smith.settings.root_key, registration_id, email)),
        created_at=now,
        expires_at=now + timedelta(seconds=smith.settings.registration_lifetime_s),
    )

    async def keep(session: AsyncClientSession) -> None:
        await registration_repository.insert(registration, session=session)
        row = outbox_row(OutboxTopic.EMAIL_PROOF, registration.id, request_id, now)
        await outbox_repository.insert_many([row], session=session)

    await run_in_transaction(smith.client, keep)
    smith.jobs.wake(Job.DRAIN_OUTBOX)
    log.info("registration.requested", registration_id=registration.id)


def _token(root_key: bytes, registration_id: str, email: str) -> str:
    return derive_proof_token(derive_key(root_key, KeyPurpose.REGISTRATIONS), registration_id, email)


async def send_proof_mail(row: OutboxRow, client: Client, mailbox: Mailbox, settings: Settings) -> None:
    """To whoever reads the address's mails, unless they got too many lately. At least once, under the same id.

    An address that the server refuses was made up, or has a slip in it: nobody has to look at that.
    """
    now = utc_now()
    registration = await registration_repository.find(row.subject_id, now)
    if registration is not None:
        if await _may_mail(row, registration, client, settings, now):
            known = await user_repository.find_by_email(registration.email)
            has_account = known is not None and known.email_verified_at is not None
            mail = _account_mail(row, registration) if has_account else _proof_mail(row, registration, settings)
            try:
                await mailbox.send(mail)
            except MailRefused as refused:
                log.info("registration.mail_refused", registration_id=registration.id, code=refused.code)
        else:
            log.warning("registration.too_many_mails", registration_id=registration.id)
    await outbox_repository.delete(row)


async def _may_mail(
    row: OutboxRow, registration: Registration, client: Client, settings: Settings, now: datetime
) -> bool:
    """Counted by address, where mails to accounts are counted by user. A repetition counts for nothing."""
    counted = f"registrations:{registration.email}"
    mail = ResetToken(row.id, registration.token_hash, now, now)

    async def add(session: AsyncClientSession) -> bool:
        return await reset_repository.add(counted, mail, settings.password_reset_mails_per_hour, session=session)

    await reset_repository.ensure(counted, now)
    return await run_in_transaction(client, add) or await reset_repository.has(counted, row.id)


async def confirm_registration(smith: Locksmith, token: str, password: str, request_id: str | None) -> User:
    """Creates the user, or takes over an unproven one, of whom all but the money ends. Returns the user.

    The password is that of a registration: whoever only reads the mail does not open an account that somebody else
    has the password of. The token of any mail to the address will do, so that it does not matter whose registrations
    used up the mails that an address gets. Raises InvalidProofToken, Unavailable.
    """
    now = utc_now()
    mailed = await registration_repository.find_by_token(hash_reset_token(token), now)
    registration = None if mailed is None else await _with_password(mailed, password, smith, now)
    if registration is None:
        log.warning("registration.refused", is_known=mailed is not None)
        raise InvalidProofToken

    async def prove(session: AsyncClientSession) -> tuple[User, bool]:
        # First: of two with one token, the second finds it used.
        if not await registration_repository.use_up(registration, now, session=session):
            raise InvalidProofToken
        found = await user_repository.find_by_email_in(registration.email, session=session)
        if found is None:
            return await _open_account(registration, smith.settings, request_id, now, session=session), True
        if found.email_verified_at is not None or not found.is_active:
            raise InvalidProofToken
        return await _take_over(found, registration, smith.settings, request_id, now, session=session), False

    try:
        user, is_new = await run_in_transaction(smith.client, prove)
    except DuplicateKeyError as error:
        # Another token of the same address was faster.
        raise InvalidProofToken from error
    if not is_new:
        smith.ended_tokens.note_user(user.id, user.token_version, now)
    log.info("user.registered", user_id=user.id, is_new=is_new)
    return user


async def _with_password(mailed: Registration, password: str, smith: Locksmith, now: datetime) -> Registration | None:
    """Finds the registration of that address which has the password: that of the mail first, then the newest ones."""
    newest = await registration_repository.find_newest(mailed.email, now, _LOOKED_AT)
    for one in (mailed, *(other for other in newest if other.id != mailed.id)):
        if await smith.passwords.verify(password, one.password_hash):
            return one
    return None


async def _open_account(
    registration: Registration,
    settings: Settings,
    request_id: str | None,
    now: datetime,
    *,
    session: AsyncClientSession,
) -> User:
    names = (registration.first_name, registration.last_name)
    user = new_user(*names, registration.email, registration.password_hash, ("user",), now, verified_at=now)
    await user_repository.insert(user, session=session)
    wallet = new_wallet(new_id(Prefix.WALLET), user.id, settings.default_currency, now)
    await wallet_repository.insert(wallet, session=session)
    event = new_audit_event(
        AuditAction.USER_EMAIL_VERIFIED, actor_id=user.id, subject_id=user.id, request_id=request_id
    )
    await audit_repository.insert(event, session=session)
    return user


async def _take_over(
    found: User,
    registration: Registration,
    settings: Settings,
    request_id: str | None,
    now: datetime,
    *,
    session: AsyncClientSession,
) -> User:
    changes = {
        "first_name": registration.first_name,
        "last_name": registration.last_name,
        "password_hash": registration.password_hash,
        "email_verified_at": now,
        "updated_at": now,
    }
    user = await user_repository.change(found.id, changes, ends_tokens=True, session=session)
    await reset_repository.expire_all(found.id, now, session=session)
    await end_what_was_before_the_proof(found.id, Ending.EMAIL_VERIFIED, settings, request_id, now, session=session)
    return user


def _proof_mail(row: OutboxRow, registration: Registration, settings: Settings) -> Mail:
    """The token stands in the text only: a subject shows on locked screens."""
    tokens = [_token(key, registration.id, registration.email) for key in settings.root_keys]
    # While keys are changed, the registration may be older than the current one.
    token = next((one for one in tokens if hash_reset_token(one) == registration.token_hash), tokens[0])
    text = (
        f"Your registration token is {token}\n"
        "\n"
        "With it and the password that you have chosen, your account is opened. It is good once, for "
        f"{settings.registration_lifetime_s // 3600} hours.\n"
        "\n"
        "If you have not registered, do nothing: no account is opened with this address.\n"
    )
    return Mail(id=row.id, to=registration.email, subject="Confirm your registration", text=text)


def _account_mail(row: OutboxRow, registration: Registration) -> Mail:
    text = (
        "Somebody has registered with this address, and there is an account with it already. Nothing was changed.\n"
        "\n"
        "If it was you, log in with the password of that account, or ask for a password reset.\n"
    )
    return Mail(id=row.id, to=registration.email, subject="You have an account already", text=text)
