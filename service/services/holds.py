"""Holds: money set aside for somebody, captured or released later, or given back when its time is over."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import structlog

from service.documents import User
from service.domain.clock import utc_now
from service.domain.holds import Hold, HoldStatus
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.money import format_minor
from service.domain.outbox import OutboxRow
from service.domain.permissions import Permission
from service.errors import FieldError, InvalidFields
from service.gateways.mailbox import Mail, Mailbox
from service.ledger.committer import Ledger
from service.ledger.holds import CaptureHold, ExpireHold, ReleaseHold, RequestHold
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.repositories.records import RecordFilter
from service.services.callers import Caller
from service.services.orders import Requester
from service.services.records import get_record
from service.settings import Settings

log = structlog.get_logger()


class HoldRole(StrEnum):
    PAYER = "payer"
    PAYEE = "payee"


class HoldOrder(NamedTuple):
    """`amount` in minor units; without `expires_in_s` the usual time, without a recipient for the house."""

    wallet_id: str
    to_wallet_id: str | None
    amount: int
    currency: str
    expires_in_s: int | None
    category: str | None
    description: str | None
    metadata: Mapping[str, str]


class CaptureOrder(NamedTuple):
    """All of it, unless `amount` says how much; to whom the hold names, unless it names nobody."""

    amount: int | None
    to_wallet_id: str | None


async def request_hold(
    ledger: Ledger,
    user: Requester,
    order: HoldOrder,
    claim: IdempotencyClaim,
    request_id: str | None,
    settings: Settings,
) -> Answer:
    """Sets the amount aside until it is captured, released or expires. A refusal is an answer too.

    Raises InvalidFields for a lifetime that is too long, and what Ledger.execute raises.
    """
    lifetime_s = settings.hold_lifetime_s if order.expires_in_s is None else order.expires_in_s
    if lifetime_s > settings.hold_lifetime_max_s:
        message = f"Send at most {settings.hold_lifetime_max_s} seconds"
        raise InvalidFields(fields=(FieldError("/expires_in_s", "too_long", message),))
    command = RequestHold(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        claim=claim,
        user_id=user.user_id,
        token_version=user.token_version,
        hold_id=new_id(Prefix.HOLD),
        wallet_id=order.wallet_id,
        to_wallet_id=order.to_wallet_id,
        amount=order.amount,
        currency=order.currency,
        lifetime=timedelta(seconds=lifetime_s),
        category=order.category,
        description=order.description,
        metadata=order.metadata,
        entry_id=new_id(Prefix.ENTRY),
    )
    answer = await ledger.answer(command)
    log.info("hold.answered", hold_id=command.hold_id, user_id=user.user_id, status=answer.status_code)
    return answer


async def capture_hold(
    ledger: Ledger,
    token: Caller,
    hold_id: str,
    order: CaptureOrder,
    claim: IdempotencyClaim,
    request_id: str | None,
) -> Answer:
    """Raises NotFound where there is no such hold. Who may not, and that it is too late, are answers."""
    hold = await get_record(hold_id, Hold)
    command = CaptureHold(
        **_about(hold),
        **_asked_by(token),
        claim=claim,
        request_id=request_id,
        named_wallet_id=hold.to_wallet_id,
        to_wallet_id=order.to_wallet_id,
        capture_to=token.capture_to,
        amount=order.amount,
        out_entry_id=new_id(Prefix.ENTRY),
        in_entry_id=new_id(Prefix.ENTRY),
    )
    answer = await ledger.answer(command)
    log.info("hold.capture_answered", hold_id=hold.id, user_id=token.user_id, status=answer.status_code)
    return answer


async def release_hold(
    ledger: Ledger, token: Caller, hold_id: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Raises NotFound where there is no such hold, HoldGuaranteed where it is not the payer's to release."""
    hold = await get_record(hold_id, Hold)
    command = ReleaseHold(**_about(hold), **_asked_by(token), claim=claim, request_id=request_id)
    answer = await ledger.answer(command)
    log.info("hold.release_answered", hold_id=hold.id, user_id=token.user_id, status=answer.status_code)
    return answer


async def expire_hold(row: OutboxRow, ledger: Ledger) -> None:
    """Its time is over: what was held goes back, unless it has ended otherwise. Safe to repeat."""
    hold = await record_repository.find(row.subject_id, Hold)
    if hold is None:
        log.error("outbox.without_hold", hold_id=row.subject_id)
        return
    if hold.status is HoldStatus.HELD and utc_now() < hold.expires_at:
        # A clock that was set back since, or a row that was brought forward: it is early, and nothing has failed.
        await outbox_repository.put_back(row, hold.expires_at)
        return
    ended = await ledger.change(ExpireHold(**_about(hold), request_id=row.request_id), Hold)
    log.info("hold.expired", hold_id=hold.id, status=ended.status)


async def send_notice(row: OutboxRow, mailbox: Mailbox) -> None:
    """Tells the recipient that a return took money out of the hold. At least once, under the same id."""
    hold = await record_repository.find(row.subject_id, Hold)
    recipient = None if hold is None or hold.to_user_id is None else await user_repository.find(hold.to_user_id)
    if hold is not None and recipient is not None and recipient.takes_notices:
        await mailbox.send(_notice_mail(row, hold, recipient))
    await outbox_repository.delete(row)


def _notice_mail(row: OutboxRow, hold: Hold, recipient: User) -> Mail:
    return_id = row.id.rpartition(":")[2]
    taken = sum(taking.amount for taking in hold.takings if taking.return_id == return_id)
    amount, gone, left = (format_minor(minor, hold.currency) for minor in (hold.amount, taken, hold.left))
    text = (
        f"Of the hold {hold.id} of {amount} that was made for you, {gone} is no longer held, since "
        f"{row.created_at:%Y-%m-%d %H:%M} UTC: the bank that this money came from took it back.\n"
        "\n"
    )
    if hold.status is HoldStatus.HELD:
        text += f"{left} is still held for you, until {hold.expires_at:%Y-%m-%d %H:%M} UTC.\n"
    else:
        text += f"The hold is {hold.status}.\n"
    return Mail(id=row.id, to=recipient.email, subject="Less is held for you", text=text)


async def list_holds(
    user_id: str, role: HoldRole, wanted: RecordFilter, *, before_id: str | None, limit: int
) -> list[Hold]:
    """Lists those that the user pays, or is to be paid by; newest first."""
    return await record_repository.find_of_user(
        Prefix.HOLD,
        Hold,
        user_id,
        wanted,
        before_id=before_id,
        limit=limit,
        is_recipient=role is HoldRole.PAYEE,
    )


def _about(hold: Hold) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "hold_id": hold.id,
        "wallet_id": hold.wallet_id,
        "release_entry_id": new_id(Prefix.ENTRY),
    }


def _asked_by(token: Caller) -> dict[str, Any]:
    return {
        "user_id": token.user_id,
        "token_version": token.token_version,
        "acts_for_house": token.may(Permission.HOLDS_ANY),
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "reason": None,
    }
