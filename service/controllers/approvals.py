"""Approval over HTTP: confirming payments that wait for a code, and canceling those that can still be called off."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Path, Response
from pydantic import Field

from service.controllers.answers import respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.operations import ORDER_ERRORS, WithdrawalView
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import problem_responses
from service.controllers.transfers import TransferReceipt
from service.domain.permissions import Permission
from service.errors import (
    ApprovalLapsed,
    IllegalTransition,
    InvalidCode,
    RecipientBalanceOverflow,
    RecipientNotFound,
    RecipientWalletFrozen,
    TooManyAttempts,
    TooManyTries,
)
from service.services import approvals
from service.services.callers import Caller
from service.startup import Resources

router = api_router("Approvals")

_WithdrawalId = Annotated[str, Path(max_length=64, pattern="^wdr_", examples=["wdr_0198c0ffee0070008000000000000001"])]
_TransferId = Annotated[str, Path(max_length=64, pattern="^trf_", examples=["trf_0198c0ffee0070008000000000000001"])]

_CANCEL_PROBLEMS = problem_responses(*ORDER_ERRORS, IllegalTransition)
_CONFIRM_PROBLEMS = problem_responses(
    *ORDER_ERRORS,
    IllegalTransition,
    ApprovalLapsed,
    TooManyTries,
    InvalidCode,
    TooManyAttempts,
    RecipientNotFound,
    RecipientWalletFrozen,
    RecipientBalanceOverflow,
)
_CONFIRM = (
    "With the code that was mailed or, where an authenticator app is active, one of the app's or a recovery code. "
    "Five minutes, five tries; after that the funds are given back. A wrong code leaves the key free."
)


class ConfirmRequest(StrictModel):
    code: Annotated[str, Field(min_length=6, max_length=64, examples=["123456"])]


@router.post(
    "/withdrawals/{withdrawal_id}/confirm",
    status_code=202,
    response_model=WithdrawalView,
    responses=_CONFIRM_PROBLEMS,
    summary="Confirm a withdrawal that requires approval",
    description=_CONFIRM,
)
async def confirm_withdrawal(
    withdrawal_id: _WithdrawalId,
    body: ConfirmRequest,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    return await _confirm(withdrawal_id, body, user, key, resources)


@router.post(
    "/transfers/{transfer_id}/confirm",
    response_model=TransferReceipt,
    responses=_CONFIRM_PROBLEMS,
    summary="Confirm a transfer that requires approval",
    description=_CONFIRM,
)
async def confirm_transfer(
    transfer_id: _TransferId,
    body: ConfirmRequest,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    return await _confirm(transfer_id, body, user, key, resources)


@router.post(
    "/withdrawals/{withdrawal_id}/cancel",
    response_model=WithdrawalView,
    responses=_CANCEL_PROBLEMS,
    summary="Cancel a withdrawal that the bank has not heard of",
    description="While `pending` or `requires_approval`. The race with the worker has one winner; 409 comes too late.",
)
async def cancel_withdrawal(
    withdrawal_id: _WithdrawalId,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    return await _cancel(withdrawal_id, user, key, resources)


@router.post(
    "/transfers/{transfer_id}/cancel",
    response_model=TransferReceipt,
    responses=_CANCEL_PROBLEMS,
    summary="Cancel a transfer that requires approval",
    description="Until it is confirmed. What was held is available again.",
)
async def cancel_transfer(
    transfer_id: _TransferId,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    return await _cancel(transfer_id, user, key, resources)


async def _confirm(
    payment_id: str, body: ConfirmRequest, user: Caller, key: IdempotencyKey, resources: Resources
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await approvals.confirm_payment(
        resources.ledger,
        resources.databases.client,
        user.requester,
        payment_id,
        body.code,
        claim,
        correlation_id.get(),
        resources.settings,
    )
    return respond(answer)


async def _cancel(payment_id: str, user: Caller, key: IdempotencyKey, resources: Resources) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await approvals.cancel_payment(resources.ledger, user.requester, payment_id, claim, correlation_id.get())
    return respond(answer)
