"""What the bank says of an order, done in the ledger; once an operation has ended, nothing said changes it again."""

from typing import Any, assert_never

import structlog

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation
from service.errors import IllegalTransition
from service.gateways.bank import BankReport, BankState
from service.ledger.committer import Ledger
from service.ledger.orders import Fail, Settle

log = structlog.get_logger()


async def apply_report(operation: Operation, report: BankReport, ledger: Ledger) -> str:
    """Ends the operation as the bank says; once it has ended, nothing the bank says changes it again.

    Returns what became of the report: the operation's status, or `contradiction`.
    """
    try:
        match report.state:
            case BankState.SUCCESS:
                reach(CrashPoint.SETTLE_REPORTED)
                ended = await ledger.change(
                    Settle(
                        **about(operation),
                        entry_id=new_id(Prefix.ENTRY),
                        amount=report.amount,
                        currency=report.currency,
                        bank_reference=report.bank_reference,
                    ),
                    Operation,
                )
                reach(CrashPoint.SETTLE_COMMITTED)
                log.info("operation.settled", operation_id=operation.id, status=ended.status)
                return ended.status
            case BankState.FAILED:
                code = report.failure_code or "declined"
                message = report.failure_message or "The bank declined the order"
                return await fail(operation, code, message, report, ledger)
            case BankState.ACCEPTED:
                return operation.status
            case _:
                assert_never(report.state)
    except IllegalTransition:
        log.error("bank.contradiction", operation_id=operation.id, report=report.state)  # noqa: TRY400 no defect to trace
        return "contradiction"


async def fail(operation: Operation, code: str, message: str, report: BankReport | None, ledger: Ledger) -> str:
    reach(CrashPoint.REFUND_REPORTED)
    ended = await ledger.change(
        Fail(
            **about(operation),
            entry_id=new_id(Prefix.ENTRY),
            amount=None if report is None else report.amount,
            currency=None if report is None else report.currency,
            bank_reference=None if report is None else report.bank_reference,
            failure_code=code,
            failure_message=message,
        ),
        Operation,
    )
    reach(CrashPoint.REFUND_COMMITTED)
    log.info("operation.failed", operation_id=operation.id, status=ended.status, failure_code=ended.failure_code)
    return ended.status


def about(operation: Operation) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "request_id": operation.request_id,
        "operation_id": operation.id,
        "wallet_id": operation.wallet_id,
    }
