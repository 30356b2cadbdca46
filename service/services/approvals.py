"""The approval of payments above a settable amount: sending the code, confirming with it, canceling, lapsing."""

from hashlib import sha256
from typing import Any

import structlog

from service.database import Client
from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation, OperationStatus
from service.domain.outbox import OutboxRow
from service.domain.transfers import Transfer
from service.errors import AccountDeactivated, NotFound, Unauthenticated
from service.gateways.mailbox import Mailbox
from service.ledger.approvals import CancelPayment, ConfirmPayment, LapsePayment, Payment
from service.ledger.committer import Ledger
from service.repositories import idempotency_keys as idempotency_repository
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.services.orders import Requester
from service.services.step_up import code_for, compose_code_mail, hash_sent_code
from service.services.totp import Consumed, UsedCode, consume_factor, count_mailed_code, find_enrolment
from service.settings import Settings

log = structlog.get_logger()

_KINDS: dict[str, type[Payment]] = {Prefix.WITHDRAWAL: Operation, Prefix.TRANSFER: Transfer}


async def send_code(row: OutboxRow, mailbox: Mailbox, settings: Settings) -> None:
    """The code goes to whoever asked for the payment, unless an authenticator app is to tell it.

    At least once: who dies between the sending and the note of it sends it again, the same mail with the same id.
    """
    payment = await _find(row.subject_id)
    if payment is not None and payment.challenge is not None and payment.challenge.expires_at > utc_now():
        enrolment = await find_enrolment(payment.user_id)
        user = await user_repository.find(payment.user_id)
        if user is not None and (enrolment is None or not enrolment.confirms_payments(utc_now())):
            nonce = payment.challenge.nonce
            await mailbox.send(
                compose_code_mail(
                    email=user.email,
                    operation_id=payment.id,
                    purpose=_purpose(payment),
                    amount=payment.amount,
                    currency=payment.currency,
                    nonce=nonce,
                    code=code_for(settings, payment.id, payment.challenge),
                )
            )
    await outbox_repository.delete(row)


def _purpose(payment: Payment) -> str:
    if isinstance(payment, Transfer):
        return f"transfer to {payment.to_wallet_id}"
    return f"withdrawal to {payment.account_masked}"


async def confirm_payment(
    ledger: Ledger,
    client: Client,
    user: Requester,
    payment_id: str,
    code: str,
    claim: IdempotencyClaim,
    request_id: str | None,
    settings: Settings,
) -> Answer:
    """With the mailed code or, where an authenticator app is active, one of the app's or a recovery code.

    Raises NotFound where it is not the user's, InvalidCode (a try is used up), TooManyAttempts.
    """
    payment = await _find_own(payment_id, user)
    consumed = Consumed.NOT_ENROLLED
    # A payment that waits for nothing uses no code up, nor does a request that was answered before.
    is_waiting = payment.status is OperationStatus.REQUIRES_APPROVAL
    if is_waiting and not await idempotency_repository.is_answered(claim.id):
        await _require_requester(user)
        sent = UsedCode(user.user_id, code, _name_of(claim), request_id)
        consumed = await consume_factor(client, sent, settings)
        if consumed is Consumed.NOT_ENROLLED:
            await count_mailed_code(user.user_id, is_right=_is_right(payment, code, settings))
    answer = await ledger.answer(
        ConfirmPayment(
            **_about(payment),
            **user._asdict(),
            claim=claim,
            request_id=request_id,
            # With an app there is no mailed code, so whatever does not fit the app is wrong.
            code_hash=hash_sent_code(settings, payment.id, code, payment.challenge)
            if consumed is Consumed.NOT_ENROLLED
            else "",
            is_verified=consumed in (Consumed.TOTP, Consumed.RECOVERY),
            out_entry_id=new_id(Prefix.ENTRY),
            in_entry_id=new_id(Prefix.ENTRY),
        )
    )
    log.info("payment.confirmed", payment_id=payment.id, status=answer.status_code)
    return answer


def _is_right(payment: Payment, code: str, settings: Settings) -> bool:
    challenge = payment.challenge
    return challenge is not None and hash_sent_code(settings, payment.id, code, challenge) == challenge.code_hash


async def _require_requester(user: Requester) -> None:
    """As the ledger does once more: nobody who is out uses a code up. Raises AccountDeactivated, Unauthenticated."""
    found = await user_repository.find(user.user_id)
    if found is None or not found.is_active:
        raise AccountDeactivated
    if user.token_version not in (None, found.token_version):
        raise Unauthenticated("The access token is no longer valid")


def _name_of(claim: IdempotencyClaim) -> str:
    """Of the request, to the letter: the same key, payment and code."""
    return sha256(f"{claim.id}\0{claim.fingerprint}".encode()).hexdigest()


async def lapse_payment(row: OutboxRow, ledger: Ledger) -> None:
    """The time to answer is over: what was held goes back, unless it was answered."""
    payment = await _find(row.subject_id)
    if payment is None:
        log.error("outbox.without_payment", payment_id=row.subject_id)
        return
    challenge = payment.challenge if payment.status is OperationStatus.REQUIRES_APPROVAL else None
    if challenge is not None and utc_now() < challenge.expires_at:
        # A clock that was set back since, or a row that was brought forward: it is early, and nothing has failed.
        await outbox_repository.put_back(row, challenge.expires_at)
        return
    kind: type[Payment] = Operation if isinstance(payment, Operation) else Transfer
    lapsed = await ledger.change(LapsePayment(**_about(payment), request_id=row.request_id), kind)
    log.info("payment.lapsed", payment_id=payment.id, status=lapsed.status)


async def cancel_payment(
    ledger: Ledger, user: Requester, payment_id: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Raises NotFound where it is not the user's. That it is too late is an answer (409)."""
    payment = await _find_own(payment_id, user)
    return await ledger.answer(CancelPayment(**_about(payment), **user._asdict(), claim=claim, request_id=request_id))


def _about(payment: Payment) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "payment_id": payment.id,
        "wallet_id": payment.wallet_id,
        "to_wallet_id": payment.to_wallet_id if isinstance(payment, Transfer) else None,
        "release_entry_id": new_id(Prefix.ENTRY),
    }


async def _find_own(payment_id: str, user: Requester) -> Payment:
    payment = await _find(payment_id)
    if payment is None or payment.user_id != user.user_id:
        raise NotFound(f"There is no payment {payment_id}")
    return payment


async def _find(payment_id: str) -> Payment | None:
    kind = _KINDS.get(payment_id.partition("_")[0])
    return None if kind is None else await record_repository.find(payment_id, kind)
