"""What the bank says of an order, done in the ledger; once an operation has ended, nothing said changes it again."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple, assert_never

import structlog

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.operations import Operation, OperationStatus
from service.errors import IllegalTransition
from service.gateways.bank import BankReport, BankState
from service.ledger.committer import Ledger
from service.ledger.orders import Fail, Settle
from service.repositories import bank_callbacks as inbox
from service.services.incidents import open_incident

log = structlog.get_logger()


class Applied(NamedTuple):
    """What became of something said: the operation's status or `contradiction`, and the incident, if it led to one."""

    result: str
    incident_id: str | None = None


async def apply_report(
    operation: Operation,
    report: BankReport,
    ledger: Ledger,
    *,
    callback_id: str | None = None,
    received_at: datetime | None = None,
) -> Applied:
    """Ends the operation as the bank says. What contradicts its end opens an incident instead, and moves no money.

    `received_at` is when a callback came in: a settlement that the bank tells after the return is no repetition.
    """
    assert report.reference == operation.id, "a report settles the operation that it is about, and no other"  # noqa: S101 money
    match report.state:
        case BankState.SUCCESS:
            reach(CrashPoint.SETTLE_REPORTED)
            settle = Settle(
                **about(operation),
                entry_id=new_id(Prefix.ENTRY),
                amount=report.amount,
                currency=report.currency,
                bank_reference=report.bank_reference,
                received_at=received_at,
            )
            try:
                ended = await ledger.change(settle, Operation)
            except IllegalTransition:
                return await contradicts(operation, said_of(report, callback_id), ledger)
            reach(CrashPoint.SETTLE_COMMITTED)
            log.info("operation.settled", operation_id=operation.id, status=ended.status)
            if ended.status is OperationStatus.SUCCESS:
                await inbox.hasten_returns(operation.id, utc_now())
            return Applied(ended.status)
        case BankState.FAILED:
            code = report.failure_code or "declined"
            message = report.failure_message or "The bank declined the order"
            return await fail(operation, code, message, report, ledger, callback_id=callback_id)
        case BankState.ACCEPTED:
            return Applied(operation.status)
        case _:
            assert_never(report.state)


async def fail(
    operation: Operation,
    code: str,
    message: str,
    report: BankReport | None,
    ledger: Ledger,
    *,
    callback_id: str | None = None,
    in_flight: timedelta | None = None,
) -> Applied:
    """Without a report the bank refused the order as such, and speaks of no amount.

    With `in_flight` the operation stays as it is while another order may still be on its way.
    """
    reach(CrashPoint.REFUND_REPORTED)
    command = Fail(
        **about(operation),
        entry_id=new_id(Prefix.ENTRY),
        amount=None if report is None else report.amount,
        currency=None if report is None else report.currency,
        bank_reference=None if report is None else report.bank_reference,
        failure_code=code,
        failure_message=message,
        in_flight=in_flight,
    )
    try:
        ended = await ledger.change(command, Operation)
    except IllegalTransition:
        words = Said(SaidEvent.SETTLED, BankState.FAILED, None, None, None, code, message)
        said = words if report is None else said_of(report, callback_id)
        return await contradicts(operation, said, ledger)
    if ended.status is OperationStatus.PROCESSING:
        return Applied(ended.status)
    reach(CrashPoint.REFUND_COMMITTED)
    log.info("operation.failed", operation_id=operation.id, status=ended.status, failure_code=ended.failure_code)
    return Applied(ended.status)


async def contradicts(operation: Operation, said: Said, ledger: Ledger) -> Applied:
    log.error("bank.contradiction", operation_id=operation.id, said=said.event, status=said.status)
    return Applied("contradiction", await open_incident(operation.id, said, operation.request_id, ledger))


def said_of(report: BankReport, callback_id: str | None) -> Said:
    """Returns a report's words, as an incident quotes them."""
    return Said(
        event=SaidEvent.SETTLED,
        status=report.state,
        amount=report.amount,
        currency=report.currency,
        bank_reference=report.bank_reference,
        code=report.failure_code,
        message=report.failure_message,
        callback_id=callback_id,
    )


def about(operation: Operation) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "request_id": operation.request_id,
        "operation_id": operation.id,
        "wallet_id": operation.wallet_id,
    }
