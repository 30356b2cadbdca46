"""Conversions over HTTP."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import Field

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import NotedRequest
from service.controllers.operations import OperationsQuery
from service.controllers.pagination import open_page, page_of
from service.controllers.routing import api_router
from service.controllers.schemas import BalanceView, PageView, View, problem_responses
from service.domain.conversions import Conversion, conversion_view
from service.domain.operations import OperationStatus
from service.domain.permissions import Permission
from service.errors import (
    AccountDeactivated,
    BalanceOverflow,
    HouseFundsExhausted,
    IdempotencyKeyInFlight,
    InsufficientFunds,
    LedgerBusy,
    LimitExceeded,
    NotFound,
    NoWalletInCurrency,
    QuoteExpired,
    QuoteUsed,
    WalletClosed,
    WalletFrozen,
    WalletOwes,
)
from service.services import conversions
from service.services.callers import Caller
from service.services.conversions import ConversionOrder
from service.services.records import get_owned

router = api_router("Multi-currency")

_QUOTE_ID = "quo_0198c0ffee0070008000000000000001"
_ConversionId = Annotated[str, Path(max_length=64, examples=["cnv_0198c0ffee0070008000000000000001"])]


class ConversionRequest(NotedRequest):
    """Amounts and currencies are the quote's."""

    quote_id: Annotated[str, Field(min_length=1, max_length=64, examples=[_QUOTE_ID])]

    @property
    def order(self) -> ConversionOrder:
        return ConversionOrder(self.quote_id, self.category, self.description, self.metadata)


class ConversionView(View):
    """A conversion between two wallets of one's own."""

    id: str = Field(examples=["cnv_0198c0ffee0070008000000000000001"])
    type: str = Field(examples=["conversion"])
    status: OperationStatus = Field(description="Always success: it is done at once or not at all")
    quote_id: str = Field(examples=[_QUOTE_ID])
    from_wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    to_wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000002"])
    amount: int = Field(ge=1, description="Minor units of currency", examples=[10000])
    currency: str = Field(examples=["USD"])
    to_amount: int = Field(ge=1, description="Minor units of to_currency", examples=[14875])
    to_currency: str = Field(examples=["JPY"])
    rate: str = Field(description="As in the quote: before the margin", examples=["149.5"])
    margin_bp: int = Field(ge=0, examples=[50])
    category: str | None = Field(examples=["rent"])
    description: str | None
    metadata: dict[str, str]
    transaction_id: str = Field(description="That of both entries")
    created_at: str
    updated_at: str


class ConversionReceipt(ConversionView):
    """With what is in both wallets afterwards."""

    from_wallet: BalanceView
    to_wallet: BalanceView


@router.post(
    "/conversions",
    status_code=201,
    response_model=ConversionReceipt,
    responses=problem_responses(
        AccountDeactivated,
        NotFound,
        QuoteExpired,
        QuoteUsed,
        IdempotencyKeyInFlight,
        NoWalletInCurrency,
        WalletClosed,
        WalletFrozen,
        WalletOwes,
        InsufficientFunds,
        LimitExceeded,
        BalanceOverflow,
        HouseFundsExhausted,
        LedgerBusy,
    ),
    summary="Take a quote: convert between two of one's own wallets",
    description="A quote is good for one conversion. It counts for the limits of the wallet that gives.",
)
async def convert(
    body: ConversionRequest,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await conversions.convert(resources.ledger, user.requester, body.order, claim, correlation_id.get())
    return respond(answer)


@router.get(
    "/conversions/{conversion_id}",
    response_model=ConversionView,
    summary="One conversion",
    description="One's own, as it was done.",
)
async def get_conversion(
    conversion_id: _ConversionId, user: Annotated[Caller, require(Permission.PAYMENTS_READ)]
) -> Response:
    return _shape(await get_owned(conversion_id, Conversion, user.user_id))


@router.get(
    "/conversions",
    response_model=PageView[ConversionView],
    summary="One's conversions, newest first",
    description="`currency` is the one that was given.",
)
async def list_conversions(
    query: Annotated[OperationsQuery, Query()],
    user: Annotated[Caller, require(Permission.PAYMENTS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "conversions", user.user_id, str)
    found = await conversions.list_conversions(
        user.user_id, query.wanted, before_id=page.position, limit=page.limit_and_one
    )
    return page_of(found, page, lambda conversion: conversion.id, conversion_view)


def _shape(conversion: Conversion) -> Response:
    return json_response(conversion_view(conversion))
