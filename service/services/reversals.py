"""Reversals: admins take back what a transfer or an adjustment has moved."""

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.transfers import Transfer
from service.ledger.committer import Ledger
from service.ledger.reversals import Original, ReverseOriginal, way_back
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
        sender_id=original.user_id if isinstance(original, Transfer) else None,
        is_forced=is_forced,
        out_entry_id=new_id(Prefix.ENTRY),
        in_entry_id=new_id(Prefix.ENTRY),
        house_entry_id=new_id(Prefix.ENTRY),
    )
    answer = await ledger.answer(command)
    log.info("reversal.answered", original_id=original.id, by=user.user_id, status=answer.status_code)
    return answer
