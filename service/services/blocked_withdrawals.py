"""Blocked withdrawals: what waits for an admin, and what admins decide."""

from typing import Any

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation
from service.ledger.blocked_withdrawals import CancelWithdrawal, ReleaseWithdrawal
from service.ledger.committer import Ledger
from service.repositories import reviews as review_repository
from service.services.orders import Requester
from service.services.records import get_record
from service.services.reviews import Reviewed, with_last_words

log = structlog.get_logger()


async def list_blocked(*, after: str | None, limit: int) -> list[Reviewed]:
    """Lists what waits for an admin, oldest first."""
    return await with_last_words(await review_repository.find_blocked(after=after, limit=limit))


async def release_withdrawal(
    ledger: Ledger,
    user: Requester,
    operation_id: str,
    reason: str,
    claim: IdempotencyClaim,
    request_id: str | None,
    *,
    is_forced: bool,
) -> Answer:
    """Queues the withdrawal for the bank again. If somebody was faster, or the block still stands, the answer says so.

    Raises NotFound, SecondAdminRequired.
    """
    operation = await get_record(operation_id, Operation)
    command = ReleaseWithdrawal(**_by(user, operation, reason, claim, request_id), is_forced=is_forced)
    answer = await ledger.answer(command)
    log.info("withdrawal.release_answered", operation_id=operation_id, by=user.user_id, status=answer.status_code)
    return answer


async def cancel_withdrawal(
    ledger: Ledger, user: Requester, operation_id: str, reason: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Makes the money available again. If somebody was faster, the answer says so.

    Raises NotFound, SecondAdminRequired.
    """
    operation = await get_record(operation_id, Operation)
    command = CancelWithdrawal(**_by(user, operation, reason, claim, request_id), entry_id=new_id(Prefix.ENTRY))
    answer = await ledger.answer(command)
    log.info("withdrawal.cancel_answered", operation_id=operation_id, by=user.user_id, status=answer.status_code)
    return answer


def _by(
    user: Requester, operation: Operation, reason: str, claim: IdempotencyClaim, request_id: str | None
) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "request_id": request_id,
        "claim": claim,
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "reason": reason,
        "operation_id": operation.id,
        "wallet_id": operation.wallet_id,
        **user._asdict(),
    }
