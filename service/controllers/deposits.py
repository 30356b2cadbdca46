"""Deposits over HTTP."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response

from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import Account
from service.controllers.operations import (
    ACCEPTED_HEADERS,
    ORDER_PROBLEMS,
    DepositView,
    OperationsQuery,
    OrderRequest,
    list_page,
    respond_order,
    shape,
)
from service.controllers.routing import api_router
from service.controllers.schemas import PageView
from service.domain.operations import OperationType
from service.domain.permissions import Permission
from service.services import deposits, operations
from service.services.callers import Caller
from service.services.orders import Order

router = api_router("Deposits")


class DepositRequest(OrderRequest):
    source: Account


@router.post(
    "/deposits",
    status_code=202,
    response_model=DepositView,
    responses=ORDER_PROBLEMS | ACCEPTED_HEADERS,
    summary="Deposit money from an account at the bank",
    description="Answered with 202; credited when the bank has paid. Until then nothing of it can be spent.",
)
async def request_deposit(
    body: DepositRequest,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    order = Order(body.amount, body.currency, body.source, body.category, body.description, body.metadata)
    answer = await deposits.request_deposit(
        resources.ledger, user.requester, order, claim, correlation_id.get(), resources.settings
    )
    return respond_order(answer, resources)


@router.get(
    "/deposits/{deposit_id}",
    response_model=DepositView,
    summary="One deposit",
    description="Ask again until `status` is neither `pending` nor `processing`.",
)
async def get_deposit(
    deposit_id: Annotated[str, Path(max_length=64)], user: Annotated[Caller, require(Permission.PAYMENTS_READ)]
) -> Response:
    return shape(await operations.get_operation(OperationType.DEPOSIT, deposit_id, user.user_id))


@router.get(
    "/deposits",
    response_model=PageView[DepositView],
    summary="One's deposits, newest first",
    description="By status, currency, category and time of the request.",
)
async def list_deposits(
    query: Annotated[OperationsQuery, Query()],
    user: Annotated[Caller, require(Permission.PAYMENTS_READ)],
    resources: OpenResources,
) -> Response:
    return await list_page(OperationType.DEPOSIT, query, user, resources)
