"""Holds over HTTP."""

from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import Field

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import Amount, Currency
from service.controllers.operations import ORDER_ERRORS, OrderRequest
from service.controllers.pagination import CategoryFilter, CreatedFrom, CreatedTo, PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import BalanceView, PageView, View, problem_responses
from service.domain.holds import Hold, HoldStatus, hold_view
from service.domain.permissions import Permission
from service.errors import (
    CaptureExceedsHold,
    CurrencyMismatch,
    HoldAboveStepUp,
    HoldExpired,
    HoldGuaranteed,
    IllegalTransition,
    InsufficientFunds,
    LimitExceeded,
    NotFound,
    PayerCannotPay,
    RateUnavailable,
    RecipientAlreadyNamed,
    RecipientBalanceOverflow,
    RecipientNotFound,
    RecipientWalletFrozen,
    SameWallet,
    WalletClosed,
    WalletFrozen,
    WalletOwes,
)
from service.services import holds
from service.services.callers import Caller
from service.services.holds import CaptureOrder, HoldOrder, HoldRole
from service.services.operations import RecordFilter
from service.services.records import get_shared
from service.settings import LONGEST_HOLD_S

router = api_router("Holds")

_WalletId = Annotated[str, Field(min_length=1, max_length=64, examples=["wal_0198c0ffee0070008000000000000001"])]
_RecipientId = Annotated[_WalletId | None, Field(examples=["wal_0198c0ffee0070008000000000000002"])]
_HoldId = Annotated[str, Path(max_length=64, examples=["hld_0198c0ffee0070008000000000000001"])]
_Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-02-24T12:34:56.789Z"])]


class HoldRequest(OrderRequest):
    """Without `to_wallet_id` the hold is for the house, or for whom its capture names."""

    wallet_id: _WalletId
    to_wallet_id: _RecipientId = None
    expires_in_s: Annotated[
        int | None,
        Field(ge=1, le=LONGEST_HOLD_S, description="Seconds; a week unless it says otherwise", examples=[86400]),
    ] = None

    @property
    def order(self) -> HoldOrder:
        return HoldOrder(
            self.wallet_id,
            self.to_wallet_id,
            self.amount,
            self.currency,
            self.expires_in_s,
            self.category,
            self.description,
            self.metadata,
        )


class CaptureRequest(StrictModel):
    """`{}` captures all of it."""

    amount: Annotated[Amount | None, Field(description="What is less than all releases the rest")] = None
    to_wallet_id: Annotated[_RecipientId, Field(description="Only where the hold names nobody")] = None


class HoldView(View):
    """A hold as it stands, for both sides."""

    id: str = Field(examples=["hld_0198c0ffee0070008000000000000001"])
    type: str = Field(examples=["hold"])
    status: HoldStatus
    amount: int = Field(ge=1, examples=[10000])
    captured_amount: int = Field(ge=0, examples=[0])
    taken_amount: int = Field(
        ge=0, examples=[0], description="What went back to the bank with a deposit; the rest is what is still held"
    )
    currency: str = Field(examples=["INR"])
    wallet_id: str = Field(description="The payer's")
    to_wallet_id: str | None = Field(description="The recipient's; null for the house")
    category: str | None
    description: str | None
    metadata: dict[str, str]
    expires_at: _Time
    created_at: _Time
    updated_at: _Time
    transaction_id: str | None = Field(description="That of the entries which ended it")


class HoldReceipt(HoldView):
    """For who asked, with what is in the wallet of theirs."""

    wallet: BalanceView | None = Field(None, description="For the payer")
    to_wallet: BalanceView | None = Field(None, description="For the recipient of a capture")


class HoldsQuery(PageQuery):
    role: Annotated[HoldRole, Field(description="Holds that one pays, or is to be paid by")] = HoldRole.PAYER
    status: HoldStatus | None = None
    currency: Currency | None = None
    category: CategoryFilter = None
    created_from: CreatedFrom = None
    created_to: CreatedTo = None

    @property
    def wanted(self) -> RecordFilter:
        return RecordFilter(self.status, self.currency, self.category, self.created_from, self.created_to)


_RECIPIENT_ERRORS = (SameWallet, CurrencyMismatch, RecipientNotFound, RecipientWalletFrozen, RecipientBalanceOverflow)
# What is set aside already needs no funds and counts for no limit, and comes back to any wallet.
_CAPTURE_ERRORS = (
    *(error for error in ORDER_ERRORS if error not in (InsufficientFunds, LimitExceeded, RateUnavailable)),
    PayerCannotPay,
)
_REFUSES_CAPTURES_ALONE = (WalletFrozen, WalletClosed, WalletOwes, PayerCannotPay)
_RELEASE_ERRORS = tuple(error for error in _CAPTURE_ERRORS if error not in _REFUSES_CAPTURES_ALONE)


@router.post(
    "/holds",
    status_code=201,
    response_model=HoldReceipt,
    responses=problem_responses(*ORDER_ERRORS, NotFound, *_RECIPIENT_ERRORS, HoldAboveStepUp),
    summary="Set money aside for somebody, for a time",
    description="The money stays in the wallet but cannot be spent, until the hold is captured, released or expires.",
)
async def request_hold(
    body: HoldRequest,
    user: Annotated[Caller, require(Permission.HOLDS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await holds.request_hold(
        resources.ledger, user.requester, body.order, claim, correlation_id.get(), resources.settings
    )
    return respond(answer)


@router.post(
    "/holds/{hold_id}/capture",
    response_model=HoldReceipt,
    responses=problem_responses(
        *_CAPTURE_ERRORS,
        IllegalTransition,
        HoldExpired,
        RecipientAlreadyNamed,
        CaptureExceedsHold,
        *_RECIPIENT_ERRORS,
    ),
    summary="Take a hold, or a part of it, once",
    description="For its payer, its recipient, and tokens with the role `service` or `admin`. The rest is released. "
    "Who does not pay it names no recipient but one that their API key lists: else it goes to the house.",
)
async def capture_hold(
    hold_id: _HoldId,
    body: CaptureRequest,
    user: Annotated[Caller, require(Permission.HOLDS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    order = CaptureOrder(body.amount, body.to_wallet_id)
    return respond(await holds.capture_hold(resources.ledger, user, hold_id, order, claim, correlation_id.get()))


@router.post(
    "/holds/{hold_id}/release",
    response_model=HoldReceipt,
    responses=problem_responses(*_RELEASE_ERRORS, IllegalTransition, HoldExpired, HoldGuaranteed),
    summary="Give a hold back to its payer",
    description="For its recipient and tokens with the role `service` or `admin`; for its payer where it names nobody.",
)
async def release_hold(
    hold_id: _HoldId,
    user: Annotated[Caller, require(Permission.HOLDS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    return respond(await holds.release_hold(resources.ledger, user, hold_id, claim, correlation_id.get()))


@router.get(
    "/holds/{hold_id}",
    response_model=HoldView,
    summary="One hold that one pays or is to be paid by",
    description="For its payer and its recipient; what a third person asks for is 404.",
)
async def get_hold(hold_id: _HoldId, user: Annotated[Caller, require(Permission.HOLDS_READ)]) -> Response:
    found = await get_shared(hold_id, Hold, user.user_id)
    return json_response(hold_view(found))


@router.get(
    "/holds",
    response_model=PageView[HoldView],
    summary="One's holds, newest first",
    description="Those that one pays or, with `role`, is to be paid by; by status, currency, category and time.",
)
async def list_holds(
    query: Annotated[HoldsQuery, Query()],
    user: Annotated[Caller, require(Permission.HOLDS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "holds", user.user_id, str)
    found = await holds.list_holds(
        user.user_id, query.role, query.wanted, before_id=page.position, limit=page.limit_and_one
    )
    return page_of(found, page, lambda hold: hold.id, hold_view)
