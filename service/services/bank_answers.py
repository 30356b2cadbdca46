"""The bank's answers held against what was asked: one about another order says nothing about this one."""

import structlog

from service.domain.incidents import IncidentKind, Said, SaidEvent
from service.domain.operations import Operation, OperationType, mask_account
from service.gateways.bank import BankOutcomeUnknown, BankReport, OrderKind
from service.ledger.committer import Ledger
from service.services.incidents import open_incident

log = structlog.get_logger()

ORDER_KINDS = {OperationType.WITHDRAWAL: OrderKind.PAYOUT, OperationType.DEPOSIT: OrderKind.COLLECTION}
# What an incident quotes of a reference that may be anything.
_QUOTED = 64


def differing_fields(report: BankReport, operation: Operation, account: str | None = None) -> list[str]:
    """Where the report is about another order than the operation's. Kind and account count where the bank tells them;
    without `account`, which few may see, an account is compared as far as it is shown.
    """
    expected_account = operation.account_masked if account is None else account
    told_account = report.account if account is not None or report.account is None else mask_account(report.account)
    held = {
        "reference": report.reference == operation.id,
        "kind": report.kind in (None, ORDER_KINDS[operation.type]),
        "amount": report.amount == operation.amount,
        "currency": report.currency == operation.currency,
        "account": told_account in (None, expected_account),
    }
    return [name for name, is_same in held.items() if not is_same]


async def require_answer_about(
    operation: Operation, report: BankReport, ledger: Ledger, account: str | None = None
) -> None:
    """Opens an incident and raises BankOutcomeUnknown where the bank has answered about another order."""
    differing = differing_fields(report, operation, account)
    if not differing:
        return
    said = Said(
        event=SaidEvent.SETTLED,
        status=report.state,
        amount=report.amount,
        currency=report.currency,
        bank_reference=report.bank_reference,
        code="+".join(differing),
        message=f"Asked for {operation.id}, the bank answered about {report.reference[:_QUOTED]}",
    )
    log.error("bank.answer_about_another_order", operation_id=operation.id, differing=said.code)
    await open_incident(operation.id, said, operation.request_id, ledger, IncidentKind.ANSWER_ABOUT_ANOTHER_ORDER)
    raise BankOutcomeUnknown(f"an answer about another order: {said.code}")
