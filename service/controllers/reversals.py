"""Reversals over HTTP."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import Reason
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import View, problem_responses
from service.domain.adjustments import Adjustment
from service.domain.permissions import Permission
from service.domain.reversals import Reversal, reversal_view
from service.domain.transfers import Transfer
from service.errors import (
    AccountDeactivated,
    AlreadyReversed,
    BalanceOverflow,
    HouseFundsExhausted,
    IdempotencyKeyInFlight,
    IllegalTransition,
    LedgerBusy,
    ReversalNotCovered,
    SecondAdminRequired,
    WalletClosed,
)
from service.services import reversals
from service.services.callers import Caller
from service.services.records import get_record

router = api_router("Reversals")

_TransferId = Annotated[str, Path(max_length=64, examples=["trf_0198c0ffee0070008000000000000001"])]
_AdjustmentId = Annotated[str, Path(max_length=64, examples=["adj_0198c0ffee0070008000000000000001"])]
_ReversalId = Annotated[str, Path(max_length=64, examples=["rev_0198c0ffee0070008000000000000001"])]

_EXAMPLE: dict[str, Any] = {
    "id": "rev_0198c0ffee0070008000000000000001",
    "original_id": "trf_0198c0ffee0070008000000000000001",
    "from_wallet_id": "wal_0198c0ffee0070008000000000000002",
    "to_wallet_id": "wal_0198c0ffee0070008000000000000001",
    "amount": 10000,
    "taken": 7500,
    "shortfall": 2500,
    "currency": "INR",
    "status": "success",
    "reason": "Sent by somebody who had stolen the telephone",
    "force": True,
    "category": None,
    "requested_by": "usr_0198c0ffee0070008000000000000002",
    "transaction_id": "txn_0198c0ffee0070008000000000000001",
    "created_at": "2026-02-24T12:34:56.789Z",
}


class ReversalRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["Sent by somebody who had stolen the telephone"])]
    force: Annotated[
        bool, Field(description="Take what is there, and let the house bear the rest, instead of being refused")
    ] = False


class ReversalView(View):
    """What was moved back. `taken` is what whoever got it still had, `shortfall` what the house bears."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    original_id: str
    from_wallet_id: str | None = Field(description="Who got the money; null for the house")
    to_wallet_id: str | None = Field(description="Who gave it, and has it again; null for the house")
    amount: int = Field(ge=1)
    taken: int = Field(ge=0)
    shortfall: int = Field(ge=0)
    currency: str
    status: str
    reason: str
    force: bool
    category: str | None
    requested_by: str
    transaction_id: str = Field(description="That of all its entries")
    created_at: str


_ROUTE: dict[str, Any] = {
    "status_code": 201,
    "response_model": ReversalView,
    "responses": problem_responses(
        AccountDeactivated,
        SecondAdminRequired,
        AlreadyReversed,
        IllegalTransition,
        IdempotencyKeyInFlight,
        ReversalNotCovered,
        BalanceOverflow,
        HouseFundsExhausted,
        WalletClosed,
        LedgerBusy,
    ),
    "description": "Once only, of what has succeeded, on frozen wallets too. No balance becomes negative. What would "
    "come back into one's own wallet is taken back by another admin.",
}


@router.post("/transfers/{transfer_id}/reversal", summary="Take a transfer back (admin)", **_ROUTE)
async def reverse_transfer(
    body: ReversalRequest,
    transfer_id: _TransferId,
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await reversals.reverse(
        resources.ledger,
        user.requester,
        await get_record(transfer_id, Transfer),
        body.reason,
        claim,
        correlation_id.get(),
        is_forced=body.force,
    )
    return respond(answer)


@router.post("/adjustments/{adjustment_id}/reversal", summary="Take an adjustment back (admin)", **_ROUTE)
async def reverse_adjustment(
    body: ReversalRequest,
    adjustment_id: _AdjustmentId,
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await reversals.reverse(
        resources.ledger,
        user.requester,
        await get_record(adjustment_id, Adjustment),
        body.reason,
        claim,
        correlation_id.get(),
        is_forced=body.force,
    )
    return respond(answer)


@router.get(
    "/reversals/{reversal_id}",
    response_model=ReversalView,
    summary="One reversal (admin)",
    description="What was taken back, and what the house had to bear.",
)
async def get_reversal(
    reversal_id: _ReversalId, _user: Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)]
) -> Response:
    reversal = await get_record(reversal_id, Reversal)
    return json_response(reversal_view(reversal))
