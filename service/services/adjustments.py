"""Adjustments: credits and debits by admins and services, and what a second admin says to them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog

from service.domain.adjustments import Adjustment, AdjustmentStatus, AdjustmentType
from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.errors import NotFound
from service.ledger.adjustments import ApproveAdjustment, RejectAdjustment, RequestAdjustment
from service.ledger.committer import Ledger
from service.repositories import api_keys as key_repository
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.services.orders import Requester
from service.services.records import get_record

log = structlog.get_logger()


class AdjustmentOrder(NamedTuple):
    """`amount` in minor units."""

    type: AdjustmentType
    wallet_id: str
    amount: int
    currency: str
    reason: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]


async def request_adjustment(
    ledger: Ledger,
    user: Requester,
    order: AdjustmentOrder,
    claim: IdempotencyClaim,
    request_id: str | None,
    *,
    is_admin: bool,
    api_key_id: str | None = None,
) -> Answer:
    """Moves the wallet at once, or waits for a second admin. A refusal is an answer too.

    Raises what Ledger.execute raises.
    """
    key = None if api_key_id is None else await key_repository.find(api_key_id, session=None)
    makers: frozenset[str] = frozenset() if key is None else key.all_makers
    decided = await ledger.execute(
        RequestAdjustment(
            **_by(user, request_id),
            claim=claim,
            adjustment_id=new_id(Prefix.ADJUSTMENT),
            entry_id=new_id(Prefix.ENTRY),
            is_admin=is_admin,
            api_key_id=api_key_id,
            makers=makers,
            # Whose wallets this user does not credit alone: they could have made the user, or the key, for that.
            related=await user_repository.find_origins((user.user_id, *makers), session=None),
            **order._asdict(),
        )
    )
    if decided.record is not None:
        log.info("adjustment.accepted", adjustment_id=decided.record.id, by=user.user_id, type=order.type)
    return decided.given


async def approve_adjustment(
    ledger: Ledger, user: Requester, adjustment_id: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Raises NotFound, SecondAdminRequired. That it is too late, or no longer fits, is an answer."""
    adjustment = await get_record(adjustment_id, Adjustment)
    answer = await ledger.answer(
        ApproveAdjustment(
            **_by(user, request_id),
            claim=claim,
            reason=None,
            relatives=await _find_relatives(user.user_id, adjustment),
            entry_id=new_id(Prefix.ENTRY),
            adjustment_id=adjustment.id,
            wallet_id=adjustment.wallet_id,
        )
    )
    log.info("adjustment.approval_answered", adjustment_id=adjustment.id, by=user.user_id)
    return answer


async def reject_adjustment(
    ledger: Ledger, user: Requester, adjustment_id: str, reason: str, request_id: str | None
) -> Adjustment:
    """Moves nothing. Raises NotFound, IllegalTransition where it was decided already."""
    adjustment = await get_record(adjustment_id, Adjustment)
    rejected = await ledger.change(
        RejectAdjustment(
            **_by(user, request_id), reason=reason, adjustment_id=adjustment.id, wallet_id=adjustment.wallet_id
        ),
        Adjustment,
    )
    log.info("adjustment.rejected", adjustment_id=adjustment.id, by=user.user_id)
    return rejected


async def get_adjustment(adjustment_id: str, requested_by: str | None) -> Adjustment:
    """Where `requested_by` is named, only what they asked for. Raises NotFound."""
    adjustment = await get_record(adjustment_id, Adjustment)
    if requested_by not in (None, adjustment.requested_by):
        raise NotFound(f"There is no adjustment {adjustment_id}")
    return adjustment


async def list_adjustments(status: AdjustmentStatus | None, *, before_id: str | None, limit: int) -> list[Adjustment]:
    """Everybody's, newest first."""
    return await record_repository.find_newest(Prefix.ADJUSTMENT, Adjustment, status, before_id=before_id, limit=limit)


async def _find_relatives(admin_id: str, adjustment: Adjustment) -> frozenset[str]:
    """Finds whose requests this admin may not approve. Whoever made the key that this one came with may know its
    secret: neither they nor their relatives are a second admin.
    """
    relatives = await user_repository.find_relatives(admin_id)
    if adjustment.api_key_id is not None:
        key = await key_repository.find(adjustment.api_key_id, session=None)
        if key is None or not relatives.isdisjoint(key.all_makers):
            return relatives | {adjustment.requested_by}
    return relatives


def _by(user: Requester, request_id: str | None) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "request_id": request_id,
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        **user._asdict(),
    }
