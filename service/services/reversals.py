"""Reversals: admins take back what a transfer or an adjustment has moved."""

import structlog

from service.domain.adjustments import Adjustment
from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.reversals import Reversal
from service.domain.transfers import Transfer
from service.errors import NotFound
from service.ledger.committer import Ledger
from service.ledger.reversals import Original, ReverseOriginal, way_back
from service.repositories import records as record_repository
from service.services.orders import Requester

log = structlog.get_logger()


async def reverse(
    ledger: Ledger,
    user: Requester,
    original: Original,
    reason: str,
    claim: IdempotencyClaim,
    request_id: str | None,
    *,
    is_forced: bool,
) -> Answer:
    """Once only; a refusal (already_reversed, reversal_not_covered, …) is an answer too.

    With `is_forced` the house bears what whoever got the money no longer has. Raises what Ledger.execute raises.
    """
    command = ReverseOriginal(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        claim=claim,
        user_id=user.user_id,
        token_version=user.token_version,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=reason,
        reversal_id=new_id(Prefix.REVERSAL),
        original_id=original.id,
        **way_back(original)._asdict(),
        is_forced=is_forced,
        out_entry_id=new_id(Prefix.ENTRY),
        in_entry_id=new_id(Prefix.ENTRY),
        house_entry_id=new_id(Prefix.ENTRY),
    )
    answer = await ledger.answer(command)
    log.info("reversal.answered", original_id=original.id, by=user.user_id, status=answer.status_code)
    return answer


async def find_transfer(transfer_id: str) -> Transfer:
    """Whoever's it is. Raises NotFound."""
    transfer = await record_repository.find(transfer_id, Transfer)
    if transfer is None:
        raise NotFound(f"There is no transfer {transfer_id}")
    return transfer


async def find_adjustment(adjustment_id: str) -> Adjustment:
    """Raises NotFound."""
    adjustment = await record_repository.find(adjustment_id, Adjustment)
    if adjustment is None:
        raise NotFound(f"There is no adjustment {adjustment_id}")
    return adjustment


async def get_reversal(reversal_id: str) -> Reversal:
    """Raises NotFound."""
    reversal = await record_repository.find(reversal_id, Reversal)
    if reversal is None:
        raise NotFound(f"There is no reversal {reversal_id}")
    return reversal
