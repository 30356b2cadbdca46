"""Callbacks of the bank: verified, kept once, answered, and only then applied by a worker."""

from collections.abc import Mapping
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.operations import Operation
from service.errors import InvalidSignature
from service.gateways.bank import BankReport, BankState
from service.gateways.job_queue import Job, JobQueue
from service.ledger.committer import Ledger
from service.repositories import bank_callbacks as inbox
from service.repositories import records as record_repository
from service.services.bank_reports import apply_report
from service.settings import Settings

log = structlog.get_logger()

# Longer than applying ever takes, shorter than anyone would wait for a dead worker's share.
_LEASE_S = 15.0
_SETTLED = "payment.settled"


class CallbackPayload(BaseModel):
    """`payment.settled`: what became of the order with our reference."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: str = Field(max_length=64)
    reference: str = Field(min_length=1, max_length=64)
    status: str = Field(pattern="^(success|failed)$")
    amount: int = Field(ge=1, le=MAX_AMOUNT_MINOR)
    currency: str = Field(pattern="^[A-Z]{3}$")
    bank_reference: str | None = Field(None, max_length=64)
    failure_code: str | None = Field(None, max_length=64)
    failure_message: str | None = Field(None, max_length=256)


def verify_signature(body: bytes, headers: Mapping[str, str], settings: Settings) -> str:
    """The webhook-id, where the signature over id, time and the very bytes of the body holds.

    Standard Webhooks 1.0.0: HMAC-SHA256, and no older or newer than five minutes. Raises InvalidSignature.
    """
    try:
        Webhook(settings.bank_webhook_secret.get_secret_value()).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError) as error:
        # ValueError: text that is not UTF-8 or a signature that is not base64; the library lets these through.
        log.warning("bank.callback_refused", reason=type(error).__name__)
        raise InvalidSignature from error
    return headers["webhook-id"]


async def receive_callback(callback_id: str, payload: CallbackPayload, request_id: str | None, jobs: JobQueue) -> None:
    """Keeps the callback; a second one with the same id changes nothing."""
    is_new = await inbox.insert_once(callback_id, payload.model_dump(), request_id, utc_now())
    reach(CrashPoint.CALLBACK_KEPT)
    jobs.wake(Job.APPLY_CALLBACKS)
    log.info("bank.callback_received", callback_id=callback_id, reference=payload.reference, is_new=is_new)


async def claim_callbacks(limit: int) -> list[dict[str, Any]]:
    """Callbacks that wait in the inbox, for as long as applying one may take."""
    return await inbox.claim(now=utc_now(), lease_s=_LEASE_S, limit=limit)


async def apply_callback(row: dict[str, Any], ledger: Ledger) -> None:
    """Does what the bank said, and notes in the inbox what became of it; safe to repeat at any point."""
    reach(CrashPoint.CALLBACK_CLAIMED)
    structlog.contextvars.bind_contextvars(request_id=row["request_id"], callback_id=row["_id"])
    result = await _apply(row, ledger)
    reach(CrashPoint.CALLBACK_APPLIED)
    await inbox.mark_applied(row["_id"], result, utc_now())


async def _apply(row: dict[str, Any], ledger: Ledger) -> str:
    payload = CallbackPayload.model_validate(row["payload"])
    if payload.type != _SETTLED:
        log.warning("bank.callback_ignored", type=payload.type, reference=payload.reference)
        return "ignored_type"
    operation = await record_repository.find_soon(payload.reference, Operation)
    if operation is None:
        log.error("bank.unknown_reference", reference=payload.reference)
        return "unknown_reference"
    report = BankReport(
        reference=payload.reference,
        state=BankState(payload.status),
        amount=payload.amount,
        currency=payload.currency,
        bank_reference=payload.bank_reference,
        failure_code=payload.failure_code,
        failure_message=payload.failure_message,
    )
    return await apply_report(operation, report, ledger)
