"""Callbacks of the bank: verified, kept once, answered, and only then applied by a worker."""

import base64
import hmac
import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from time import monotonic
from typing import Any, Literal

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.incidents import IncidentKind, Said, SaidEvent
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.operations import Operation
from service.errors import InvalidSignature
from service.gateways.bank import BankReport, BankState
from service.gateways.job_queue import Job, JobQueue
from service.ledger.committer import Ledger
from service.repositories import bank_callbacks as inbox
from service.repositories import records as record_repository
from service.services import leases
from service.services.bank_reports import Applied, apply_report
from service.services.incidents import open_incident
from service.services.returns import apply_return, comes_early
from service.settings import Settings
from service.tracing import continued

log = structlog.get_logger()

# With back-off to 10 minutes, about two hours: hardly any return comes earlier than that before its settlement. After
# them people are told, and it goes on waiting, since nobody knows how long they will take.
_ATTEMPT_LIMIT = 20
_RETRY_MAX_S = 600.0
_LONG_WAIT_S = 3600.0
_EARLY = "early"
# Enough of the digest that nobody meets it by chance.
_DIGEST_DIGITS = 16
_REFERENCE_LIMIT = 64
# Older or newer ones are refused, as in the specification's own libraries.
_SIGNATURE_LIFETIME = timedelta(minutes=5)
_WARNING_EVERY_S = 10.0


class Payload(BaseModel):
    """Of any type. Types that are not known are kept, and come to nothing."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: str = Field(max_length=64)


class CallbackPayload(Payload):
    """`payment.settled`: what became of the order with our reference."""

    reference: str = Field(min_length=1, max_length=_REFERENCE_LIMIT)
    status: str = Field(pattern="^(success|failed)$")
    amount: int = Field(ge=1, le=MAX_AMOUNT_MINOR)
    currency: str = Field(pattern="^[A-Z]{3}$")
    bank_reference: str | None = Field(None, max_length=64)
    failure_code: str | None = Field(None, max_length=64)
    failure_message: str | None = Field(None, max_length=256)


class ReturnPayload(Payload):
    """`payment.returned`: the money of a settled order has come back (a payout) or was taken back (a collection)."""

    type: Literal["payment.returned"]
    reference: str = Field(min_length=1, max_length=_REFERENCE_LIMIT)
    amount: int = Field(ge=1, le=MAX_AMOUNT_MINOR)
    currency: str = Field(pattern="^[A-Z]{3}$")
    bank_reference: str | None = Field(None, max_length=64)
    return_code: str = Field(max_length=64)
    return_message: str | None = Field(None, max_length=256)


class UnknownPayload(Payload):
    """Of a type that is not known: all of it as text, since it may hold what no document can."""

    reference: str | None
    body: str


_PAYLOADS: Mapping[str, type[Payload]] = {SaidEvent.SETTLED: CallbackPayload, SaidEvent.RETURNED: ReturnPayload}


class _Refusals:
    """Anybody may send what is not signed, as often as they like: the log says so now and then, and how often."""

    def __init__(self) -> None:
        self._count = 0
        self._next_at_s = 0.0

    def note(self, reason: str) -> None:
        self._count += 1
        now_s = monotonic()
        if now_s >= self._next_at_s:
            log.warning("bank.callback_refused", reason=reason, count=self._count)
            self._count, self._next_at_s = 0, now_s + _WARNING_EVERY_S


_refusals = _Refusals()


def verify_signature(body: bytes, headers: Mapping[str, str], settings: Settings) -> str:
    """The webhook-id, where the signature over id, time and the very bytes of the body holds, under either secret.

    Standard Webhooks 1.0.0: HMAC-SHA256, and no older or newer than five minutes; of several signatures in the header
    one has to hold. Raises InvalidSignature.
    """
    refusal: Exception = InvalidSignature()
    for secret in settings.bank_webhook_secrets:
        try:
            _verify(Webhook(secret), body, headers)
        except (WebhookVerificationError, ValueError) as error:
            # ValueError: text that is not UTF-8 or a signature that is not base64.
            refusal = error
        else:
            return headers["webhook-id"]
    _refusals.note(type(refusal).__name__)
    raise InvalidSignature from refusal


def _verify(webhook: Webhook, body: bytes, headers: Mapping[str, str]) -> None:
    """As the library verifies, but by our time, which is right where the machine's clock is not."""
    callback_id, sent_at, signatures = (headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    if not (callback_id and sent_at and signatures):
        raise WebhookVerificationError("Missing required headers")
    try:
        signed_at = datetime.fromtimestamp(float(sent_at), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise WebhookVerificationError("Invalid Signature Headers") from error
    if abs(utc_now() - signed_at) > _SIGNATURE_LIFETIME:
        raise WebhookVerificationError("Message timestamp too old or too new")
    expected = base64.b64decode(webhook.sign(callback_id, signed_at, body.decode()).partition(",")[2])
    for one in signatures.split(" "):
        version, _, signature = one.partition(",")
        if version == "v1" and hmac.compare_digest(expected, base64.b64decode(signature)):
            return
    raise WebhookVerificationError("No matching signature found")


def read_payload(said: Any) -> Payload:  # noqa: ANN401 any JSON
    """The body of a callback. Raises pydantic's ValidationError for what is not of the shape that its type has."""
    known = _PAYLOADS.get(Payload.model_validate(said).type)
    if known is not None:
        return known.model_validate(said)
    reference = said.get("reference")
    is_reference = isinstance(reference, str) and len(reference) <= _REFERENCE_LIMIT
    return UnknownPayload(type=said["type"], reference=reference if is_reference else None, body=json.dumps(said))


async def receive_callback(callback_id: str, payload: Payload, request_id: str | None, jobs: JobQueue) -> None:
    """Keeps the callback; the same once more changes nothing. Another one under its id is kept apart, to be told of."""
    said = payload.model_dump()
    is_new = await inbox.insert_once(callback_id, said, request_id, utc_now())
    if not is_new and not _says_again(said, await inbox.find_payload(callback_id)):
        digest = sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_DIGEST_DIGITS]
        is_new = await inbox.insert_reuse(f"{callback_id}#{digest}", callback_id, said, request_id, utc_now())
    reach(CrashPoint.CALLBACK_KEPT)
    jobs.wake(Job.APPLY_CALLBACKS)
    log.info("bank.callback_received", callback_id=callback_id, reference=said.get("reference"), is_new=is_new)


def _says_again(said: Mapping[str, Any], kept: Mapping[str, Any] | None) -> bool:
    """By what is kept: a version before this one may have kept fewer fields of the same body."""
    return kept is not None and all(name in said and said[name] == value for name, value in kept.items())


async def claim_callbacks(limit: int) -> list[dict[str, Any]]:
    """Callbacks that wait in the inbox, for as long as applying one may take."""
    return await inbox.claim(now=utc_now(), lease_s=leases.CALLBACKS_S, limit=limit)


async def apply_callback(row: dict[str, Any], ledger: Ledger) -> None:
    """Does what the bank said, and notes in the inbox what became of it; safe to repeat at any point."""
    reach(CrashPoint.CALLBACK_CLAIMED)
    structlog.contextvars.bind_contextvars(request_id=row["request_id"], callback_id=row["_id"])
    facts = {"wallet.operation_id": str(row["payload"].get("reference")), "wallet.attempt": row["attempts"]}
    with continued(row.get("traceparent"), "callback.apply", "consumer", facts) as traced:
        applied = await _apply(row, ledger)
        traced.note({"wallet.outcome": applied.result})
    reach(CrashPoint.CALLBACK_APPLIED)
    if applied.incident_id is not None:
        await inbox.note_incident(row["_id"], applied.incident_id)
    if applied.result == _EARLY:
        await inbox.postpone(row, utc_now() + timedelta(seconds=_wait_s(row["attempts"])))
    else:
        await inbox.mark_applied(row["_id"], applied.result, utc_now())


def _wait_s(attempts: int) -> float:
    if attempts < _ATTEMPT_LIMIT:
        return min(_RETRY_MAX_S, 2.0**attempts)
    return random.uniform(_LONG_WAIT_S / 2, _LONG_WAIT_S)  # noqa: S311 no secret


async def _leave_waiting(row: dict[str, Any], said: Said, ledger: Ledger) -> Applied:
    """Until the operation has ended, however long that takes; people are told once it takes long."""
    reference = row["payload"]["reference"]
    log.info("bank.return_early", reference=reference)
    if row["attempts"] < _ATTEMPT_LIMIT or row.get("incident_id") is not None:
        return Applied(_EARLY)
    kind = IncidentKind.RETURN_OF_UNSETTLED
    return Applied(_EARLY, await open_incident(reference, said, row["request_id"], ledger, kind))


async def _apply(row: dict[str, Any], ledger: Ledger) -> Applied:
    said = row["payload"]
    if said["type"] not in _PAYLOADS:
        log.warning("bank.callback_ignored", type=said["type"], reference=said.get("reference"))
        return Applied("ignored_type")
    payload = _PAYLOADS[said["type"]].model_validate(said)
    words = said_in(payload, row["_id"])
    reference = said["reference"]
    if row.get("reuses") is not None:
        kind = IncidentKind.MESSAGE_ID_REUSED
        return Applied("id_reused", await open_incident(reference, words, row["request_id"], ledger, kind))
    operation = await record_repository.find_soon(reference, Operation)
    if operation is None:
        log.error("bank.unknown_reference", reference=reference)
        return Applied("unknown_reference", await open_incident(reference, words, row["request_id"], ledger))
    if isinstance(payload, ReturnPayload):
        is_early = comes_early(operation)
        return await (_leave_waiting(row, words, ledger) if is_early else apply_return(operation, words, ledger))
    assert isinstance(payload, CallbackPayload), "there are two types"  # noqa: S101 a type that is forgotten here
    report = BankReport(
        reference=reference,
        state=BankState(payload.status),
        amount=payload.amount,
        currency=payload.currency,
        bank_reference=payload.bank_reference,
        failure_code=payload.failure_code,
        failure_message=payload.failure_message,
    )
    return await apply_report(operation, report, ledger, callback_id=row["_id"], received_at=row.get("received_at"))


def said_in(payload: Payload, callback_id: str) -> Said:
    """Returns a callback's words, as an incident quotes them."""
    fields = payload.model_dump()
    return Said(
        event=SaidEvent(payload.type),
        status=fields.get("status"),
        amount=fields["amount"],
        currency=fields["currency"],
        bank_reference=fields["bank_reference"],
        code=fields.get("return_code", fields.get("failure_code")),
        message=fields.get("return_message", fields.get("failure_message")),
        callback_id=callback_id,
    )
