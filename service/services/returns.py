"""Returns: the bank sends money of a settled operation back, and what admins do where a wallet could not follow."""

from typing import Any

import structlog

from service.crash_points import CrashPoint, reach
from service.documents import User
from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import IncidentKind, Said, incident_id, was_never_submitted
from service.domain.money import format_minor
from service.domain.operations import FINAL_STATUSES, Operation
from service.domain.outbox import OutboxRow
from service.domain.returns import Return, ReturnStatus, ReturnType
from service.errors import IllegalTransition
from service.gateways.mailbox import Mail, Mailbox
from service.ledger.committer import Ledger
from service.ledger.returns import CollectReturn, NamedHold, TakeReturn
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.services.bank_reports import Applied, about, contradicts
from service.services.orders import Requester
from service.services.records import get_record

log = structlog.get_logger()

# Each is up to four documents in one transaction, with what its recipient is told. What is in further ones is owed, and
# pays when it is released.
_HOLDS_NAMED = 100


def comes_early(operation: Operation) -> bool:
    """The operation has not ended here: that it was settled may be said in a callback that is still on its way."""
    return operation.status not in FINAL_STATUSES and not was_never_submitted(operation)


async def apply_return(operation: Operation, said: Said, ledger: Ledger) -> Applied:
    """Books the return, or leaves it to a person. For one that does not come early.

    A deposit's takes from the holds that are open at this moment, as far as it needs them.
    """
    command = TakeReturn(
        **about(operation),
        user_id=operation.user_id,
        said=said,
        entry_id=new_id(Prefix.ENTRY),
        incident_id=incident_id(operation.id, said, IncidentKind.RETURN_NOT_BOOKED),
        incident_event_id=new_id(Prefix.AUDIT_EVENT),
        freeze_event_id=new_id(Prefix.AUDIT_EVENT),
        holds=await _open_holds(ReturnType(operation.type.value), operation.user_id, operation.wallet_id),
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
    log.error("operation.return_not_booked", operation_id=operation.id, trouble=returned.trouble, owed=returned.owed)
    return Applied(f"return_{returned.status}", command.incident_id)


async def send_notice(row: OutboxRow, mailbox: Mailbox) -> None:
    """Tells the owner that something is owed. At least once, under the same id."""
    returned = await record_repository.find(row.subject_id, Return)
    owner = None if returned is None else await user_repository.find(returned.user_id)
    if returned is not None and owner is not None and owner.takes_notices:
        await mailbox.send(_notice_mail(row, returned, owner))
    await outbox_repository.delete(row)


def _notice_mail(row: OutboxRow, returned: Return, owner: User) -> Mail:
    amount, owed = (format_minor(minor, returned.currency) for minor in (returned.amount, returned.owed))
    text = (
        f"Your deposit {returned.operation_id} of {amount} was taken back by the bank that it came from, "
        f"at {row.created_at:%Y-%m-%d %H:%M} UTC.\n"
        "\n"
        f"Your wallet did not cover it: {owed} is still owed. Whatever comes into the wallet pays this "
        "first. Until then nothing can be paid out of it, transferred, converted or set aside.\n"
    )
    return Mail(id=row.id, to=owner.email, subject="A deposit was taken back, and something is owed", text=text)


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
            holds=await _open_holds(returned.type, returned.user_id, returned.wallet_id),
            **fields,
        )
    )
    log.info("return.answered", return_id=returned.id, by=user.user_id, status=answer.status_code)
    return answer


async def _open_holds(kind: ReturnType, user_id: str, wallet_id: str) -> tuple[NamedHold, ...]:
    """Newest first: a return takes from the newest hold first. Withdrawals and points take from none."""
    if kind is not ReturnType.DEPOSIT:
        return ()
    found = await record_repository.find_open_holds(user_id, wallet_id, limit=_HOLDS_NAMED)
    return tuple(NamedHold(hold_id, new_id(Prefix.ENTRY), to_wallet_id) for hold_id, to_wallet_id in found)


async def list_returns(status: ReturnStatus | None, *, before_id: str | None, limit: int) -> list[Return]:
    """Lists those of the newest operations first."""
    return await record_repository.find_newest(Prefix.RETURN, Return, status, before_id=before_id, limit=limit)
