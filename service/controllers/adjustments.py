"""Adjustments over HTTP: credits and debits by admins and services."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import AnyCurrency, Reason
from service.controllers.operations import ORDER_ERRORS, OrderRequest
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View, problem_responses
from service.domain.adjustments import Adjustment, AdjustmentStatus, AdjustmentType, adjustment_view
from service.domain.permissions import Permission
from service.errors import (
    AccountDeactivated,
    BalanceOverflow,
    CurrencyMismatch,
    Forbidden,
    HouseFundsExhausted,
    IdempotencyKeyInFlight,
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    IllegalTransition,
    InsufficientFunds,
    LedgerBusy,
    LimitExceeded,
    Malformed,
    RateUnavailable,
    SecondAdminRequired,
    WalletClosed,
)
from service.services import adjustments
from service.services.adjustments import AdjustmentOrder
from service.services.callers import Caller
from service.startup import Resources

router = api_router("Adjustments")

_WalletId = Annotated[str, Path(max_length=64, examples=["wal_0198c0ffee0070008000000000000001"])]
_AdjustmentId = Annotated[str, Path(max_length=64, examples=["adj_0198c0ffee0070008000000000000001"])]

_EXAMPLE: dict[str, Any] = {
    "id": "adj_0198c0ffee0070008000000000000001",
    "type": "credit",
    "status": "success",
    "amount": 10000,
    "currency": "INR",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "reason": "Charged twice on 3 October",
    "category": "goodwill",
    "description": None,
    "metadata": {},
    "requested_by": "usr_0198c0ffee0070008000000000000002",
    "decided_by": "usr_0198c0ffee0070008000000000000002",
    "decided_at": "2026-02-24T12:34:56.789Z",
    "rejection_reason": None,
    "available_after": 110000,
    "held_after": 0,
    "transaction_id": "txn_0198c0ffee0070008000000000000001",
    "reversal_id": None,
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T12:34:56.789Z",
}


class AdjustmentRequest(OrderRequest):
    currency: AnyCurrency
    reason: Annotated[Reason, Field(examples=["Charged twice on 3 October"])]


class RejectionRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The customer was paid back already"])]


class AdjustmentView(View):
    """A credit or a debit as it stands; while it waits for a second admin, nothing has moved."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    type: AdjustmentType
    status: AdjustmentStatus
    amount: int = Field(ge=1)
    currency: str
    user_id: str = Field(description="The wallet's owner")
    wallet_id: str
    reason: str
    category: str | None
    description: str | None
    metadata: dict[str, str]
    requested_by: str
    decided_by: str | None = Field(description="The second admin; who asked, where none was needed")
    decided_at: str | None
    rejection_reason: str | None
    available_after: int | None = Field(ge=0, description="Of the wallet, once it was moved; null until then")
    held_after: int | None = Field(ge=0)
    transaction_id: str | None
    reversal_id: str | None
    created_at: str
    updated_at: str


class AdjustmentsQuery(PageQuery):
    status: AdjustmentStatus | None = None


_ORDER_ERRORS = tuple(error for error in ORDER_ERRORS if error not in (LimitExceeded, RateUnavailable))
_REQUEST: dict[str, Any] = {
    "status_code": 201,
    "response_model": AdjustmentView,
    "responses": {
        **problem_responses(*_ORDER_ERRORS, BalanceOverflow, CurrencyMismatch, HouseFundsExhausted),
        202: {
            "model": AdjustmentView,
            "description": "Above the set amount, beyond the day's sum or for oneself: another admin has to approve it",
        },
    },
}
_MORE = (
    "For services and admins. An admin may adjust a frozen wallet, a service only as far as it is open; a closed one "
    "is adjusted by nobody. The wallet's limits do not count it. Nobody credits their own wallet alone, nor that of "
    "whoever gave them a role or made the key that they use, nor moves more in a day than the set sum: another admin "
    "has to approve it (202)."
)


@router.post("/wallets/{wallet_id}/credits", summary="Put money into a wallet", description=_MORE, **_REQUEST)
async def credit_wallet(
    body: AdjustmentRequest,
    wallet_id: _WalletId,
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    return await _adjust(AdjustmentType.CREDIT, body, wallet_id, user, key, resources)


@router.post("/wallets/{wallet_id}/debits", summary="Take money out of a wallet", description=_MORE, **_REQUEST)
async def debit_wallet(
    body: AdjustmentRequest,
    wallet_id: _WalletId,
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    return await _adjust(AdjustmentType.DEBIT, body, wallet_id, user, key, resources)


async def _adjust(
    adjustment_type: AdjustmentType,
    body: AdjustmentRequest,
    wallet_id: str,
    user: Caller,
    key: IdempotencyKey,
    resources: Resources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    order = AdjustmentOrder(adjustment_type, wallet_id, **body.model_dump())
    answer = await adjustments.request_adjustment(
        resources.ledger,
        user.requester,
        order,
        claim,
        correlation_id.get(),
        is_admin=user.is_admin,
        api_key_id=user.api_key_id,
    )
    return respond(answer)


@router.post(
    "/adjustments/{adjustment_id}/approve",
    response_model=AdjustmentView,
    responses=problem_responses(
        IdempotencyKeyMissing,
        IdempotencyKeyInvalid,
        Malformed,
        AccountDeactivated,
        Forbidden,
        SecondAdminRequired,
        IllegalTransition,
        IdempotencyKeyInFlight,
        InsufficientFunds,
        BalanceOverflow,
        HouseFundsExhausted,
        WalletClosed,
        LedgerBusy,
    ),
    summary="Approve another admin's adjustment (admin)",
    description="Moves the wallet. What its balance no longer allows is refused and goes on waiting: approve it later, "
    "under a new key, or reject it.",
)
async def approve_adjustment(
    adjustment_id: _AdjustmentId,
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await adjustments.approve_adjustment(
        resources.ledger, user.requester, adjustment_id, claim, correlation_id.get()
    )
    return respond(answer)


@router.post(
    "/adjustments/{adjustment_id}/reject",
    response_model=AdjustmentView,
    responses=problem_responses(AccountDeactivated, IllegalTransition, LedgerBusy),
    summary="Reject an adjustment, one's own too (admin)",
    description="Nothing moves; the reason stays with it.",
)
async def reject_adjustment(
    body: RejectionRequest,
    adjustment_id: _AdjustmentId,
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)],
    resources: OpenResources,
) -> Response:
    adjustment = await adjustments.reject_adjustment(
        resources.ledger, user.requester, adjustment_id, body.reason, correlation_id.get()
    )
    return _shape(adjustment)


@router.get(
    "/adjustments/{adjustment_id}",
    response_model=AdjustmentView,
    summary="One adjustment; services see those that they asked for",
    description="Admins see all of them.",
)
async def get_adjustment(
    adjustment_id: _AdjustmentId, user: Annotated[Caller, require(Permission.ADJUSTMENTS_READ)]
) -> Response:
    asked_by = None if user.may(Permission.ADJUSTMENTS_ADMIN) else user.user_id
    return _shape(await adjustments.get_adjustment(adjustment_id, asked_by))


@router.get(
    "/admin/adjustments",
    response_model=PageView[AdjustmentView],
    summary="All adjustments, newest first (admin)",
    description="With `status=requires_approval`, what waits for a second admin.",
)
async def list_adjustments(
    query: Annotated[AdjustmentsQuery, Query()],
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "adjustments", user.user_id, str)
    found = await adjustments.list_adjustments(query.status, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda adjustment: adjustment.id, adjustment_view)


def _shape(adjustment: Adjustment) -> Response:
    return json_response(adjustment_view(adjustment))
