"""Blocked withdrawals over HTTP, for admins: what is known of them, and their release or cancellation."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import Reason
from service.controllers.operations import OperationView
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.reviews import AdministeredOperationView, ReleaseView, administered_view
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, problem_responses
from service.domain.permissions import Permission
from service.errors import (
    AccountDeactivated,
    IdempotencyKeyInFlight,
    IllegalTransition,
    LedgerBusy,
    SecondAdminRequired,
    StillBlocked,
    UserLockedDown,
    WalletOwes,
)
from service.services import blocked_withdrawals
from service.services.callers import Caller
from service.services.reviews import position_of

router = api_router("Outcomes", prefix="/admin/blocked-withdrawals")

_OperationId = Annotated[str, Path(max_length=64, examples=["wdr_0198c0ffee0070008000000000000001"])]
_Reader = Annotated[Caller, require(Permission.LEDGER_ADMIN)]
_Decider = Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)]

_EXAMPLE: dict[str, Any] = {
    "id": "wdr_0198c0ffee0070008000000000000001",
    "type": "withdrawal",
    "status": "pending",
    "amount": 10000,
    "currency": "INR",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "destination": "•••• 0001",
    "category": None,
    "description": None,
    "metadata": {},
    "failure_code": None,
    "failure_message": None,
    "bank_reference": None,
    "return_id": None,
    "returned_at": None,
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T15:00:00.000Z",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "release": {
        "by": "usr_0198c0ffee0070008000000000000002",
        "reason": "The customer has shown whose account it is",
        "at": "2026-02-24T15:00:00.000Z",
        "despite_freeze": True,
        "despite_deactivation": False,
    },
}


class DecidedWithdrawalView(OperationView):
    """A withdrawal that was blocked, with whose it is and who released it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    destination: str
    user_id: str
    release: ReleaseView | None = Field(description="null for one that was canceled")


class BlockedQuery(PageQuery):
    """Only pages: what waits for an admin should be a short list."""


class ReleaseRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The customer has shown whose account it is"])]
    force: bool = Field(False, description="Also while the wallet is still frozen or the user deactivated")


class CancellationRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The account was taken over by somebody else"])]


_REFUSALS = (AccountDeactivated, SecondAdminRequired, IllegalTransition, IdempotencyKeyInFlight, LedgerBusy)
_ONE_WINNER = (
    "Nobody decides about their own money. Of two who decide, or an admin and the bank's late word, the first one "
    "counts; the other finds it ended (`illegal_transition`)."
)


@router.get(
    "",
    response_model=PageView[AdministeredOperationView],
    summary="Withdrawals that were blocked before the bank got them, oldest first",
    description="Of wallets that were frozen, or users who were deactivated, before the bank got the order; "
    "`failure_code` says which: `wallet_frozen`, `user_deactivated` or `wallet_owes`. The amount stays held until an "
    "admin releases or cancels the withdrawal.",
)
async def list_blocked_withdrawals(
    query: Annotated[BlockedQuery, Query()], user: _Reader, resources: OpenResources
) -> Response:
    page = open_page(query, resources.settings, "blocked_withdrawals", user.user_id, str)
    found = await blocked_withdrawals.list_blocked(after=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda one: position_of(one.operation), administered_view)


@router.post(
    "/{operation_id}/release",
    status_code=202,
    response_model=DecidedWithdrawalView,
    responses=problem_responses(*_REFUSALS, StillBlocked, UserLockedDown, WalletOwes),
    summary="Let a blocked withdrawal go to the bank",
    description="Back to `pending`. While the wallet is still frozen or the user still deactivated, this is refused "
    "(`still_blocked`) unless `force` is true; then this withdrawal goes out all the same, and no other one. "
    "If the wallet is frozen anew before the bank has the order, the withdrawal is blocked again. "
    "While the wallet owes for a returned deposit, nothing lets it out (`wallet_owes`). "
    f"{_ONE_WINNER}",
)
async def release_blocked_withdrawal(
    body: ReleaseRequest, operation_id: _OperationId, user: _Decider, key: IdempotencyKey, resources: OpenResources
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await blocked_withdrawals.release_withdrawal(
        resources.ledger,
        user.requester,
        operation_id,
        body.reason,
        claim,
        correlation_id.get(),
        is_forced=body.force,
    )
    return respond(answer)


@router.post(
    "/{operation_id}/cancel",
    response_model=DecidedWithdrawalView,
    responses=problem_responses(*_REFUSALS),
    summary="Cancel a blocked withdrawal",
    description=f"Its amount is available again, and its share of the limits too. {_ONE_WINNER}",
)
async def cancel_blocked_withdrawal(
    body: CancellationRequest, operation_id: _OperationId, user: _Decider, key: IdempotencyKey, resources: OpenResources
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await blocked_withdrawals.cancel_withdrawal(
        resources.ledger, user.requester, operation_id, body.reason, claim, correlation_id.get()
    )
    return respond(answer)
