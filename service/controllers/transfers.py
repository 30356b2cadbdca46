"""Transfers over HTTP."""

from enum import StrEnum
from typing import Annotated, Self

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Request, Response
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.operations import ORDER_ERRORS, OperationsQuery, OrderRequest
from service.controllers.pagination import open_page, page_of
from service.controllers.rate_limits import charge_further
from service.controllers.requests import LargeBodyRoute, StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import BalanceView, PageView, Problem, View, problem_responses
from service.domain.operations import OperationStatus
from service.domain.permissions import Permission
from service.domain.transfers import Transfer, transfer_view
from service.errors import (
    CurrencyMismatch,
    NotFound,
    RecipientBalanceOverflow,
    RecipientNotFound,
    RecipientWalletFrozen,
    SameWallet,
    TooManyAttempts,
    TransferBatchRefused,
)
from service.services import transfers
from service.services.callers import Caller
from service.services.records import get_shared
from service.services.transfers import TransferOrder

router = api_router("Transfers")
batch_router = api_router("Transfers", route_class=LargeBodyRoute)

_BATCH_LIMIT = 500
# Each exotic one costs a millisecond to read; and who asks for many wants to know who is here.
_ADDRESSES_LIMIT = 100

_WalletId = Annotated[str, Field(min_length=1, max_length=64, examples=["wal_0198c0ffee0070008000000000000001"])]
_TransferId = Annotated[str, Path(max_length=64, examples=["trf_0198c0ffee0070008000000000000001"])]


class TransferRequest(OrderRequest):
    """To a wallet or to a person, exactly one of the two."""

    from_wallet_id: _WalletId
    to_wallet_id: Annotated[_WalletId | None, Field(examples=["wal_0198c0ffee0070008000000000000002"])] = None
    to_email: Annotated[str | None, Field(max_length=254, description="Whose address it is", examples=[None])] = None

    @model_validator(mode="after")
    def _names_one_recipient(self) -> Self:
        if (self.to_wallet_id is None) == (self.to_email is None):
            raise ValueError("Send either to_wallet_id or to_email")
        return self

    @property
    def order(self) -> TransferOrder:
        return TransferOrder(
            self.from_wallet_id,
            self.to_wallet_id,
            self.to_email,
            self.amount,
            self.currency,
            self.category,
            self.description,
            self.metadata,
        )


class BatchMode(StrEnum):
    ALL_OR_NOTHING = "all_or_nothing"
    BEST_EFFORT = "best_effort"


class TransferBatchRequest(StrictModel):
    """By e-mail to a hundred different people at most."""

    mode: Annotated[BatchMode, Field(strict=False)]
    transfers: Annotated[list[TransferRequest], Field(min_length=1, max_length=_BATCH_LIMIT)]

    @model_validator(mode="after")
    def _names_few_addresses(self) -> Self:
        if len({one.to_email for one in self.transfers if one.to_email is not None}) > _ADDRESSES_LIMIT:
            raise PydanticCustomError(
                "too_many_addresses", "Send at most 100 different to_email, or to_wallet_id in place of them"
            )
        return self


class TransferView(View):
    """A transfer as it stands, for both sides."""

    id: str = Field(examples=["trf_0198c0ffee0070008000000000000001"])
    type: str = Field(examples=["transfer"])
    status: OperationStatus
    amount: int = Field(ge=1, examples=[10000])
    currency: str = Field(examples=["INR"])
    from_wallet_id: str
    to_wallet_id: str
    category: str | None
    description: str | None
    metadata: dict[str, str]
    failure_code: str | None
    failure_message: str | None
    transaction_id: str = Field(description="That of both entries")
    batch_id: str | None
    reversal_id: str | None
    created_at: str
    updated_at: str


class TransferReceipt(TransferView):
    """For the sender, with what they have left."""

    from_wallet: BalanceView
    to_wallet: BalanceView | None = Field(None, description="Only where the sender owns this one too")


class TransferResult(View):
    """`transfer` where it was made or waits for approval, `error` where it was refused; `refused_earlier` once its
    reason is no longer kept.
    """

    status: str = Field(description="That of the transfer, or `refused`", examples=["success"])
    transfer: TransferReceipt | None = None
    error: Problem | None = None


class TransferBatchView(View):
    id: str = Field(examples=["tbt_0198c0ffee0070008000000000000001"])
    mode: BatchMode
    accepted: int
    refused: int
    results: list[TransferResult] = Field(description="In the order of the request")


_PROBLEMS = problem_responses(
    *ORDER_ERRORS,
    NotFound,
    RecipientNotFound,
    SameWallet,
    CurrencyMismatch,
    RecipientWalletFrozen,
    RecipientBalanceOverflow,
    TransferBatchRefused,
    TooManyAttempts,
)


@router.post(
    "/transfers",
    status_code=201,
    response_model=TransferReceipt,
    responses={
        **_PROBLEMS,
        202: {"model": TransferReceipt, "description": "Above the step-up amount: held until it is confirmed"},
    },
    summary="Transfer money to another wallet or to a person",
    description="From a wallet of one's own, to `to_wallet_id` or to whom `to_email` belongs, in one currency and "
    "at once. Above the step-up amount it answers 202 and waits for a code.",
)
async def request_transfer(
    body: TransferRequest,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await transfers.request_transfer(
        resources.ledger,
        user.requester,
        body.order,
        claim,
        correlation_id.get(),
        resources.settings,
        resources.login_guard,
    )
    return respond(answer)


@batch_router.post(
    "/transfers/batch",
    status_code=201,
    response_model=TransferBatchView,
    responses=_PROBLEMS,
    summary="Make up to 500 transfers under one key",
    description="In one transaction, in the order given. `all_or_nothing`: the first refusal refuses all. "
    "`best_effort`: each by itself, with a result for each. It counts in the rate limits by its size.",
)
async def request_transfers(
    body: TransferBatchRequest,
    request: Request,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    await charge_further(request, len(body.transfers) - 1)
    claim = claim_key(resources, user.user_id, key)
    answer = await transfers.request_transfers(
        resources.ledger,
        user.requester,
        [one.order for one in body.transfers],
        claim,
        correlation_id.get(),
        resources.settings,
        resources.login_guard,
        is_all_or_nothing=body.mode is BatchMode.ALL_OR_NOTHING,
    )
    return respond(answer)


@router.get(
    "/transfers/{transfer_id}",
    response_model=TransferView,
    summary="One transfer that one sent or got",
    description="For both sides; what a third person asks for is 404.",
)
async def get_transfer(
    transfer_id: _TransferId, user: Annotated[Caller, require(Permission.PAYMENTS_READ)]
) -> Response:
    return _shape(await get_shared(transfer_id, Transfer, user.user_id))


@router.get(
    "/transfers",
    response_model=PageView[TransferView],
    summary="The transfers that one sent, newest first",
    description="By status, currency, category and time. What one received is among the wallet's transactions.",
)
async def list_transfers(
    query: Annotated[OperationsQuery, Query()],
    user: Annotated[Caller, require(Permission.PAYMENTS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "transfers", user.user_id, str)
    found = await transfers.list_transfers(
        user.user_id, query.wanted, before_id=page.position, limit=page.limit_and_one
    )
    return page_of(found, page, lambda transfer: transfer.id, transfer_view)


def _shape(transfer: Transfer) -> Response:
    return json_response(transfer_view(transfer))
