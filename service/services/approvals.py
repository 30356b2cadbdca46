"""The approval of payments above a settable amount: sending the code, confirming with it, canceling, lapsing."""

from datetime import datetime
from typing import Any

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation
from service.domain.outbox import OutboxRow
from service.domain.step_up import Challenge
from service.domain.transfers import Transfer
from service.errors import NotFound
from service.ledger.approvals import CancelPayment, LapsePayment
from service.ledger.committer import Ledger
from service.repositories import records as record_repository
from service.services.orders import Requester
from service.settings import Settings

log = structlog.get_logger()

Payment = Operation | Transfer
_KINDS: dict[str, type[Payment]] = {Prefix.WITHDRAWAL: Operation, Prefix.TRANSFER: Transfer}


def new_challenge(payment_id: str, now: datetime, settings: Settings) -> Challenge:
    raise NotImplementedError


async def send_code(row: OutboxRow) -> None:
    raise NotImplementedError


async def lapse_payment(row: OutboxRow, ledger: Ledger) -> None:
    """The time to answer is over: what was held goes back, unless it was answered."""
    payment = await _find(row.subject_id)
    if payment is None:
        log.error("outbox.without_payment", payment_id=row.subject_id)
        return
    kind: type[Payment] = type(payment)
    lapsed = await ledger.change(LapsePayment(**_about(payment), request_id=row.request_id), kind)
    log.info("payment.lapsed", payment_id=payment.id, status=lapsed.status)


async def cancel_payment(
    ledger: Ledger, user: Requester, payment_id: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Raises NotFound where it is not the user's. That it is too late is an answer (409)."""
    payment = await _find_own(payment_id, user)
    decided = await ledger.execute(
        CancelPayment(**_about(payment), **user._asdict(), claim=claim, request_id=request_id)
    )
    assert decided.answer is not None, "a command with a key has an answer"  # noqa: S101 a defect of the ledger
    return decided.answer


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
