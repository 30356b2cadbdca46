"""Withdrawals over HTTP."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response

from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import Account
from service.controllers.operations import (
    ACCEPTED_HEADERS,
    WITHDRAWAL_PROBLEMS,
    OperationsQuery,
    OrderRequest,
    WithdrawalView,
    list_page,
    respond_order,
    shape,
)
from service.controllers.routing import api_router
from service.controllers.schemas import PageView
from service.domain.operations import OperationType
from service.domain.permissions import Permission
from service.services import operations, withdrawals
from service.services.callers import Caller
from service.services.orders import Order

router = api_router("Withdrawals")


class WithdrawalRequest(OrderRequest):
    destination: Account


@router.post(
    "/withdrawals",
    status_code=202,
    response_model=WithdrawalView,
    responses=WITHDRAWAL_PROBLEMS | ACCEPTED_HEADERS,
    summary="Withdraw money to an account at the bank",
    description="The amount is held at once and answered with 202; the bank is asked afterwards. On success it "
    "leaves, on failure it is available again. Above the step-up amount the withdrawal `requires_approval`: confirm "
    "it with the code that was sent.",
)
async def request_withdrawal(
    body: WithdrawalRequest,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    order = Order(body.amount, body.currency, body.destination, body.category, body.description, body.metadata)
    answer = await withdrawals.request_withdrawal(
        resources.ledger, user.requester, order, claim, correlation_id.get(), resources.settings
    )
    return respond_order(answer, resources)


@router.get(
    "/withdrawals/{withdrawal_id}",
    response_model=WithdrawalView,
    summary="One withdrawal",
    description="Ask again until `status` is neither `pending` nor `processing`.",
)
async def get_withdrawal(
    withdrawal_id: Annotated[str, Path(max_length=64)], user: Annotated[Caller, require(Permission.PAYMENTS_READ)]
) -> Response:
    return shape(await operations.get_operation(OperationType.WITHDRAWAL, withdrawal_id, user.user_id))


@router.get(
    "/withdrawals",
    response_model=PageView[WithdrawalView],
    summary="One's withdrawals, newest first",
    description="By status, currency, category and time of the request.",
)
async def list_withdrawals(
    query: Annotated[OperationsQuery, Query()],
    user: Annotated[Caller, require(Permission.PAYMENTS_READ)],
    resources: OpenResources,
) -> Response:
    return await list_page(OperationType.WITHDRAWAL, query, user, resources)
