"""Reviews: operations that wait for a person, what is known of them, and what people decide."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import Operation, Verdict
from service.ledger.committer import Ledger
from service.ledger.reviews import AskAgain, DecideReview
from service.repositories import bank_callbacks as inbox
from service.repositories import reviews as review_repository
from service.repositories import users as user_repository
from service.repositories.reviews import position_of as position_of  # noqa: PLC0414 controllers name it, and may not reach below
from service.services.orders import Requester
from service.services.records import get_record

log = structlog.get_logger()

_OK = 200


class Reviewed(NamedTuple):
    """An operation, and the last callback about it, if there was one."""

    operation: Operation
    last_word: dict[str, Any] | None


async def list_reviews(*, after: str | None, limit: int) -> list[Reviewed]:
    """Lists what waits for a person, oldest first."""
    return await with_last_words(await review_repository.find_in_review(after=after, limit=limit))


async def get_operation(operation_id: str) -> Reviewed:
    """Whoever's it is, in whatever state. Raises NotFound."""
    operation = await get_record(operation_id, Operation)
    return (await with_last_words([operation]))[0]


async def decide_review(
    ledger: Ledger,
    user: Requester,
    operation_id: str,
    verdict: Verdict,
    reason: str,
    claim: IdempotencyClaim,
    request_id: str | None,
) -> Answer:
    """Ends it, or waits for a second admin. That somebody was faster is an answer. Raises NotFound,
    SecondAdminRequired.
    """
    operation = await get_record(operation_id, Operation)
    answer = await ledger.answer(
        DecideReview(
            **_by(user, operation, reason, claim, request_id),
            verdict=verdict,
            entry_id=new_id(Prefix.ENTRY),
            relatives=await user_repository.find_relatives(user.user_id),
        )
    )
    log.info("review.answered", operation_id=operation_id, by=user.user_id, verdict=verdict)
    if verdict is Verdict.SETTLE and answer.status_code == _OK:
        await inbox.hasten_returns(operation_id, utc_now())
    return answer


async def ask_again(
    ledger: Ledger, user: Requester, operation_id: str, reason: str, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Back to the bank. That somebody was faster is an answer. Raises NotFound, SecondAdminRequired."""
    operation = await get_record(operation_id, Operation)
    answer = await ledger.answer(AskAgain(**_by(user, operation, reason, claim, request_id)))
    log.info("review.asked_again", operation_id=operation_id, by=user.user_id)
    return answer


async def with_last_words(operations: Sequence[Operation]) -> list[Reviewed]:
    """Each with the callback that was received last about it."""
    words = await inbox.find_last_words([operation.id for operation in operations]) if operations else {}
    return [Reviewed(operation, words.get(operation.id)) for operation in operations]


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
