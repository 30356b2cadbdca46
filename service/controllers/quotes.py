"""Quotes over HTTP."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Path, Response
from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Amount, Currency
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import View, problem_responses
from service.domain.clock import utc_now
from service.domain.permissions import Permission
from service.domain.quotes import Quote, QuoteStatus, quote_view
from service.errors import AmountTooLarge, AmountTooSmall, CurrencyNotOffered, RateUnavailable
from service.services import quotes
from service.services.callers import Caller
from service.services.quotes import QuoteOrder
from service.services.records import get_owned

router = api_router("Multi-currency")

_QuoteId = Annotated[str, Path(max_length=64, examples=["quo_0198c0ffee0070008000000000000001"])]


def _another_currency(code: str, info: ValidationInfo) -> str:
    if code == info.data.get("from_currency"):
        raise PydanticCustomError("same_currency", "Send another currency than from_currency")
    return code


class QuoteRequest(StrictModel):
    """Nothing moves, so that no Idempotency-Key is needed."""

    from_currency: Annotated[Currency, Field(examples=["USD"])]
    to_currency: Annotated[Currency, AfterValidator(_another_currency), Field(examples=["JPY"])]
    amount: Annotated[Amount, Field(description="Minor units of from_currency", examples=[10000])]


class QuoteView(View):
    """What `amount` brings, if it is taken by a conversion before `expires_at`."""

    id: str = Field(examples=["quo_0198c0ffee0070008000000000000001"])
    status: QuoteStatus
    from_currency: str = Field(examples=["USD"])
    to_currency: str = Field(examples=["JPY"])
    amount: int = Field(ge=1, description="Minor units of from_currency", examples=[10000])
    to_amount: int = Field(
        ge=1, description="Minor units of to_currency, the margin taken off, rounded down", examples=[14875]
    )
    rate: str = Field(
        description="What one major unit of from_currency is worth in to_currency before the margin; a decimal number "
        "of up to 18 decimals, the rest cut off. What counts is the exact rate behind it",
        examples=["149.5"],
    )
    rate_source: str = Field(examples=["table"])
    rate_as_of: str = Field(json_schema_extra={"format": "date-time"})
    margin_bp: int = Field(ge=0, description="What the house keeps, in hundredths of a per cent", examples=[50])
    conversion_id: str | None = Field(description="That of the conversion that used it", examples=[None])
    expires_at: str
    created_at: str


@router.post(
    "/quotes",
    status_code=201,
    response_model=QuoteView,
    responses=problem_responses(
        CurrencyNotOffered,
        RateUnavailable,
        AmountTooSmall,
        AmountTooLarge,
    ),
    summary="Ask what an amount brings in another currency",
    description="Good for one conversion until `expires_at`. Nothing moves, so no key is needed.",
)
async def make_quote(
    body: QuoteRequest, user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)], resources: OpenResources
) -> Response:
    quote = await quotes.make_quote(
        resources.databases.client,
        resources.rates,
        resources.settings,
        resources.ledger.policy,
        user_id=user.user_id,
        order=QuoteOrder(body.from_currency, body.to_currency, body.amount),
        request_id=correlation_id.get(),
    )
    return _shape(quote, status_code=201)


@router.get(
    "/quotes/{quote_id}",
    response_model=QuoteView,
    summary="One quote; one that was not used is forgotten after a day",
    description="One's own: used, expired or still good.",
)
async def get_quote(quote_id: _QuoteId, user: Annotated[Caller, require(Permission.PAYMENTS_READ)]) -> Response:
    return _shape(await get_owned(quote_id, Quote, user.user_id))


def _shape(quote: Quote, status_code: int = 200) -> Response:
    return json_response(quote_view(quote, utc_now()), status_code)
