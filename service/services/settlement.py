"""The way of an order to the bank: submit, ask, come back later, or leave it to a person."""

import asyncio
import random
from collections.abc import Awaitable
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

import structlog

from service.crash_points import CrashPoint, reach
from service.database import Client
from service.domain.clock import utc_now
from service.domain.operations import (
    FINAL_STATUSES,
    BankCall,
    Operation,
    OperationStatus,
    rejection,
)
from service.domain.outbox import OutboxRow
from service.domain.rails import expected_by, pause_until_asked_s, rail_of
from service.domain.sealed import SealedField, Unreadable
from service.errors import IllegalTransition
from service.gateways.bank import (
    Bank,
    BankOrder,
    BankOutcomeUnknown,
    BankRejected,
    BankReport,
    BankState,
    BankUnavailable,
)
from service.gateways.bank_breaker import retry_after_s, visiting
from service.gateways.mailbox import Mailbox
from service.ledger.committer import Ledger
from service.ledger.orders import FlagForReview, MayBeUnderWay, NoteAttempt
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.services.bank_answers import ORDER_KINDS, require_answer_about
from service.services.bank_reports import about, apply_report, fail
from service.services.mail_limits import MailLimits
from service.services.retries import RETRY_MAX_S, retry_delay_s
from service.services.sealing import open_sealed
from service.settings import Settings

log = structlog.get_logger()

Answer = TypeVar("Answer")

# After that the orders that wait may themselves be what it stumbles over, while no others come to show that it is well.
_OUTAGE_MAX = timedelta(days=1)
# What an attempt came to, beside what the bank's errors say.
_NOT_FOUND = "not_found"
_NO_TIME_LEFT = "no time left for an answer"
_OUTCOME_LIMIT = 128

# Whether this task's visit was cut short while the bank had the word.
_was_at_bank: ContextVar[bool] = ContextVar("_was_at_bank", default=False)

_WITH_A_PERSON = (OperationStatus.REQUIRES_REVIEW, OperationStatus.BLOCKED)


class Desk(NamedTuple):
    """Who takes part in what the outbox asks for."""

    ledger: Ledger
    bank: Bank
    mailbox: Mailbox
    settings: Settings
    client: Client
    # None: mails are not bounded, as in tests of other things.
    mail_limits: MailLimits | None = None


async def pursue_order(row: OutboxRow, desk: Desk) -> None:
    """One visit to the bank for an operation that has not ended; safe to repeat at any point.

    The row is deleted in the transaction that ends the operation. Until then it falls due again and again, so
    that neither a lost job, a dead worker nor a silent bank can leave an operation behind. A visit never outlives
    its claim of the row, so that no two workers are at the bank for one order. A command that it has handed to the
    ledger may: it is decided on what others have written by then.
    """
    _was_at_bank.set(False)
    operation = await record_repository.find_soon(row.subject_id, Operation)
    if operation is None:
        log.error("outbox.without_operation", operation_id=row.subject_id)
        await outbox_repository.postpone(row, utc_now() + timedelta(seconds=RETRY_MAX_S))
        return
    if operation.status in FINAL_STATUSES or operation.status in _WITH_A_PERSON:
        await outbox_repository.delete(row)
        return
    is_probe = is_accepted = False
    try:
        # Before anything is noted: while the bank is known to be down, a pending operation stays pending.
        async with (
            asyncio.timeout(_left_of_claim_s(row, desk.settings)),
            visiting(desk.bank, operation.account_masked) as is_probe,
        ):
            is_accepted = await _visit_bank(operation, row, desk)
        if is_accepted:
            await _note_acceptance(operation, row, desk)
    except BankUnavailable as unavailable:
        await _put_back(row, unavailable.retry_after_s, desk)
    except BankOutcomeUnknown as unknown:
        log.warning("bank.outcome_unknown", operation_id=operation.id, visit=row.visits + 1, reason=str(unknown))
        down_for_s = retry_after_s(desk.bank)
        if down_for_s and not (is_probe and utc_now() - row.created_at > _OUTAGE_MAX):
            # It is the bank's trouble and not this order's, so it does not count.
            await _put_back(row, down_for_s, desk, str(unknown)[:_OUTCOME_LIMIT])
        else:
            delay_s = max(down_for_s, retry_delay_s(row.visits))
            await _come_back_or_give_up(operation, row, delay_s, desk, str(unknown))
    except TimeoutError:
        log.warning("bank.visit_cut_short", operation_id=operation.id, was_at_bank=_was_at_bank.get())
        if _was_at_bank.get():
            await _come_back_or_give_up(operation, row, retry_delay_s(row.visits), desk, _NO_TIME_LEFT)
        else:
            # It is we who were slow, which says nothing about the bank either. The next visit still has to know of an
            # acceptance, which this one may not have noted.
            outcome = None if row.last_outcome == BankState.ACCEPTED else _NO_TIME_LEFT
            await _put_back(row, retry_delay_s(row.visits), desk, outcome)
    except IllegalTransition:
        # A callback was faster: what it said stands.
        log.info("bank.order_overtaken", operation_id=operation.id)


def _left_of_claim_s(row: OutboxRow, settings: Settings) -> float:
    """Never longer than a claim lasts: the clock may have been set back since."""
    return min(settings.bank_recheck_s, (row.due_at - utc_now()).total_seconds())


async def _visit_bank(operation: Operation, row: OutboxRow, desk: Desk) -> bool:
    """Tells whether the bank has accepted the order and not carried it out yet."""
    report = await _ask_bank(operation, row, desk)
    if report is None:
        return False
    if report.state is BankState.ACCEPTED:
        return True
    await apply_report(operation, report, desk.ledger)
    return False


async def _note_acceptance(operation: Operation, row: OutboxRow, desk: Desk) -> None:
    """On the row, from where the next visit takes it into the operation before it asks the bank.

    The first visit writes this alone, since its row is due again soon anyway. A worker that dies before the write has
    heard nothing: the next visit asks the bank, and until `bank_in_flight_s` is over nothing is blocked.
    """
    if row.attempts > 1:
        await _wait_for(operation, row, desk)
    else:
        await outbox_repository.note_outcome(row, BankState.ACCEPTED)


async def _wait_for(operation: Operation, row: OutboxRow, desk: Desk) -> None:
    """Waits for the outcome of an order that the bank has accepted. Until `expected_by` no visit is counted; from then
    on each one counts towards the limit after which a person has to look.
    """
    now, recheck_s = utc_now(), desk.settings.bank_recheck_s
    # `operation` may be from before the attempt that has noted it: one submitted just now, or by an older release.
    expected = operation.expected_by or expected_by_of(operation, desk.settings, now)
    if expected <= now:
        delay_s = max(recheck_s, retry_delay_s(row.visits))
        await _come_back_or_give_up(operation, row, delay_s, desk, BankState.ACCEPTED)
        return
    pause_s = pause_until_asked_s(operation.created_at, now, expected, recheck_s)
    await outbox_repository.put_back(row, now + timedelta(seconds=pause_s), BankState.ACCEPTED, expected_by=expected)


def expected_by_of(operation: Operation, settings: Settings, now: datetime) -> datetime:
    """By the rail that the order takes, where it is submitted now."""
    rail = rail_of(settings.bank_rails, settings.bank_rail, operation.type, operation.currency)
    return expected_by(rail, now, settings.bank_holidays, timedelta(seconds=settings.bank_instant_s))


def _waits_until(operation: Operation, row: OutboxRow, now: datetime) -> datetime | None:
    """Returns when the outcome of an order is expected that the bank has accepted; None where nobody waits for it."""
    is_accepted = operation.accepted_at is not None or row.last_outcome == BankState.ACCEPTED
    return operation.expected_by if is_accepted and operation.expected_by and now < operation.expected_by else None


async def _take_refusal(operation: Operation, rejected: BankRejected, desk: Desk) -> None:
    """`operation` as it was when the order began that was refused."""
    begun_at = operation.attempt_log[-1].at
    try:
        # As it is now: orders that others have begun meanwhile stand there too.
        known, operation = await _find(operation, rejection(rejected.code), desk, answered_at=begun_at)
    except IllegalTransition:
        # A callback was faster. Where it told of a success, the refusal contradicts it; else it changes nothing.
        ended = await record_repository.find(operation.id, Operation)
        if ended is not None and ended.status is OperationStatus.SUCCESS:
            await fail(ended, rejected.code, rejected.message, None, desk.ledger)
        raise
    if known is not None:
        # The bank has it and refuses it all the same. To give money back on this word could be to give it twice.
        await _leave_to_a_person(operation, rejected.code, rejected.message, desk.ledger)
        return
    in_flight = timedelta(seconds=desk.settings.bank_in_flight_s)
    applied = await fail(operation, rejected.code, rejected.message, None, desk.ledger, in_flight=in_flight)
    if applied.result == OperationStatus.PROCESSING:
        raise BankOutcomeUnknown("refused, while another order may still be on its way") from rejected


async def _ask_bank(operation: Operation, row: OutboxRow, desk: Desk) -> BankReport | None:
    """Asks by reference where the bank may know it already; submits under the same reference where it does not.

    None where the bank refused it, which is handled here, or where the withdrawal is blocked instead.
    """
    last_outcome = row.last_outcome
    # One that was blocked and released is pending, and may have been submitted before.
    if operation.status is not OperationStatus.PENDING or operation.attempts:
        known, operation = await _find(operation, last_outcome, desk)
        if known is not None:
            return known
        last_outcome = _NOT_FOUND
    account = _open_account(operation, desk.settings)
    begin = NoteAttempt(
        **about(operation),
        last_outcome=last_outcome,
        expected_by=expected_by_of(operation, desk.settings, utc_now()),
        in_flight=timedelta(seconds=desk.settings.bank_in_flight_s),
    )
    try:
        begun = await desk.ledger.change(begin, Operation)
    except MayBeUnderWay as waiting:
        raise BankOutcomeUnknown("not found, while an order may still be on its way") from waiting
    if begun.status is OperationStatus.BLOCKED:
        log.warning("operation.blocked", operation_id=operation.id, reason=begun.failure_code)
        return None
    reach(CrashPoint.SUBMIT_BEGUN)
    log.info("bank.order_submitted", operation_id=operation.id, attempt=row.attempts)
    order = BankOrder(
        reference=operation.id,
        kind=ORDER_KINDS[operation.type],
        amount=operation.amount,
        currency=operation.currency,
        account=account,
    )
    try:
        answer = await _from_bank(desk.bank.submit(order), desk)
    except BankRejected as rejected:
        await _take_refusal(begun, rejected, desk)
        return None
    reach(CrashPoint.SUBMIT_ANSWERED)
    await require_answer_about(operation, answer, desk.ledger, account)
    return answer


async def _find(
    operation: Operation, last_outcome: str | None, desk: Desk, answered_at: datetime | None = None
) -> tuple[BankReport | None, Operation]:
    """By reference. The attempt is noted first, like any; `last_outcome` is how the one before it ended."""
    asking = NoteAttempt(
        **about(operation),
        call=BankCall.FIND,
        last_outcome=last_outcome,
        answered_at=answered_at,
        expected_by=expected_by_of(operation, desk.settings, utc_now()),
    )
    asked = await desk.ledger.change(asking, Operation)
    report = await _from_bank(desk.bank.find(operation.id), desk)
    if report is not None:
        await require_answer_about(operation, report, desk.ledger)
    return report, asked


def _open_account(operation: Operation, settings: Settings) -> str:
    """The only place where it is read. Without its key nobody can be paid, and nothing is known to have failed."""
    try:
        return open_sealed(settings, operation.account_sealed, SealedField.ACCOUNT, operation.id)
    except Unreadable as error:
        log.critical("operation.account_unreadable", operation_id=operation.id, key_id=operation.account_sealed.key_id)
        raise BankOutcomeUnknown("the account cannot be read, so the bank was not asked") from error


async def _from_bank(call: Awaitable[Answer], desk: Desk) -> Answer:
    """No longer than the bank has time for: one that hangs counts as a visit without an outcome.

    What the gateway raises besides its own errors is a defect of it, and leaves the outcome just as unknown.
    """
    try:
        async with asyncio.timeout(desk.settings.bank_timeout_s):
            return await call
    except asyncio.CancelledError:
        _was_at_bank.set(True)
        raise
    except TimeoutError as silence:
        raise BankOutcomeUnknown("no answer from the bank in time") from silence
    except (BankRejected, BankOutcomeUnknown, BankUnavailable):
        raise
    except Exception as error:
        log.exception("bank.gateway_failed")
        raise BankOutcomeUnknown(type(error).__name__) from error


async def _come_back_or_give_up(operation: Operation, row: OutboxRow, delay_s: float, desk: Desk, outcome: str) -> None:
    """Counts visits, not claims: those that our own troubles cut short say nothing about the bank."""
    visits = row.visits + 1
    now = utc_now()
    expected = _waits_until(operation, row, now)
    if expected is not None:
        # The bank has accepted the order. Though it is silent now, a person could do no more than wait.
        pause_s = pause_until_asked_s(operation.created_at, now, expected, desk.settings.bank_recheck_s)
        await _put_back(row, max(delay_s, pause_s), desk, outcome[:_OUTCOME_LIMIT])
    elif visits >= desk.settings.bank_attempt_limit:
        reason = f"The bank gave no outcome in {visits} attempts"
        await _leave_to_a_person(operation, "bank_outcome_unknown", reason, desk.ledger, outcome[:_OUTCOME_LIMIT])
    else:
        await outbox_repository.postpone(row, utc_now() + timedelta(seconds=delay_s), outcome[:_OUTCOME_LIMIT])


async def _put_back(row: OutboxRow, delay_s: float, desk: Desk, outcome: str | None = None) -> None:
    """Not all at one moment; how many may go there then is the breaker's matter."""
    spread_s = random.uniform(0, desk.settings.bank_breaker_open_s)  # noqa: S311 no secret
    await outbox_repository.put_back(row, utc_now() + timedelta(seconds=delay_s + spread_s), outcome)


async def _leave_to_a_person(
    operation: Operation, code: str, message: str, ledger: Ledger, outcome: str | None = None
) -> None:
    flag = FlagForReview(**about(operation), failure_code=code, failure_message=message, last_outcome=outcome)
    try:
        await ledger.change(flag, Operation)
    except IllegalTransition:
        log.info("bank.order_overtaken", operation_id=operation.id)
    else:
        log.error("operation.requires_review", operation_id=operation.id, failure_code=code)
