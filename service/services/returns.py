"""Returns: the bank sends money of a settled operation back, and what admins do where a wallet could not follow."""

from typing import Any

import structlog

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import IncidentKind, Said, incident_id, was_never_submitted
from service.domain.operations import FINAL_STATUSES, Operation
from service.domain.returns import Return, ReturnStatus
from service.errors import IllegalTransition
from service.ledger.committer import Ledger
from service.ledger.returns import CollectReturn, TakeReturn
from service.repositories import records as record_repository
from service.services.bank_reports import Applied, about, contradicts
from service.services.orders import Requester
from service.services.records import get_record

log = structlog.get_logger()


def comes_early(operation: Operation) -> bool:
    """The operation has not ended here: that it was settled may be said in a callback that is still on its way."""
    return operation.status not in FINAL_STATUSES and not was_never_submitted(operation)


async def apply_return(operation: Operation, said: Said, ledger: Ledger) -> Applied:
    """Books the return, or leaves it to a person. For one that does not come early."""
    command = TakeReturn(
        **about(operation),
        said=said,
        entry_id=new_id(Prefix.ENTRY),
        incident_id=incident_id(operation.id, said, IncidentKind.RETURN_NOT_BOOKED),
        incident_event_id=new_id(Prefix.AUDIT_EVENT),
        freeze_event_id=new_id(Prefix.AUDIT_EVENT),
    )
    reach(CrashPoint.RETURN_REPORTED)
    try:
        returned = await ledger.change(command, Return)
    except IllegalTransition:
        return await contradicts(operation, said, ledger)
    reach(CrashPoint.RETURN_COMMITTED)
    if returned.status is ReturnStatus.SUCCESS:
        log.info("operation.returned", operation_id=operation.id, return_id=returned.id)
        return Applied("returned")
    log.error("operation.return_not_booked", operation_id=operation.id, trouble=returned.trouble)
    return Applied("return_requires_review", command.incident_id)


async def collect_return(
    ledger: Ledger, user: Requester, return_id: str, reason: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Raises NotFound, SecondAdminRequired. That the wallet still cannot follow is an answer."""
    returned = await get_record(return_id, Return)
    fields: dict[str, Any] = user._asdict()
    answer = await ledger.answer(
        CollectReturn(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reason=reason,
            return_id=returned.id,
            wallet_id=returned.wallet_id,
            entry_id=new_id(Prefix.ENTRY),
            **fields,
        )
    )
    log.info("return.answered", return_id=returned.id, by=user.user_id, status=answer.status_code)
    return answer


async def list_returns(status: ReturnStatus | None, *, before_id: str | None, limit: int) -> list[Return]:
    """Those of the newest operations first."""
    return await record_repository.find_newest(Prefix.RETURN, Return, status, before_id=before_id, limit=limit)
