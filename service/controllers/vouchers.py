"""Vouchers over HTTP: the catalogue, redeeming, and what the catalogue's keepers do."""

from datetime import datetime
from typing import Annotated, Any, Final, Self

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, OptionalIdempotencyKey, claim_key, require
from service.controllers.fields import Amount, Printable
from service.controllers.pagination import PageQuery, QueryTime, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import BalanceView, PageView, View, problem_responses
from service.domain.permissions import Permission
from service.domain.vouchers import Voucher, kept_voucher_view, redemption_view, voucher_view
from service.errors import (
    AccountDeactivated,
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    InvalidFields,
    LedgerBusy,
    Malformed,
    NoWalletInCurrency,
    VoucherLimitReached,
    VoucherNotValid,
    VoucherSoldOut,
    VoucherStockTooLow,
    WalletClosed,
    WalletFrozen,
    WalletOwes,
)
from service.services import vouchers
from service.services.callers import Caller
from service.services.records import get_record
from service.services.vouchers import VoucherOrder

router = api_router("Points and vouchers")
admin_router = api_router("Admin", prefix="/admin")

# Far beyond any catalogue, and a thousand million of these still fit 64 bits.
_STOCK_LIMIT: Final = 1_000_000_000

_VoucherId = Annotated[str, Path(max_length=64, examples=["vch_0198c0ffee0070008000000000000001"])]
_Title = Annotated[str, Field(min_length=1, max_length=100, examples=["A cup of coffee"]), *Printable]
_Description = Annotated[str, Field(max_length=1000), *Printable]
_PerUserLimit = Annotated[int, Field(ge=1, le=_STOCK_LIMIT, description="How often one person may redeem it")]


def _in_milliseconds(moment: datetime) -> datetime:
    # As the database keeps it: what is answered must not differ from what is read later.
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


_Moment = Annotated[QueryTime, AfterValidator(_in_milliseconds), Field(strict=False)]
_ValidFrom = Annotated[_Moment | None, Field(description="From this time on", examples=["2026-03-01T00:00:00Z"])]
_ValidUntil = Annotated[_Moment | None, Field(description="Before this time", examples=["2026-04-01T00:00:00Z"])]


class VoucherRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"title": "A cup of coffee", "cost": 100, "stock": 500, "per_user_limit": 1}],
        }
    )

    title: _Title
    description: Annotated[_Description | None, Field(examples=["Any size, in any of our shops"])] = None
    cost: Annotated[Amount, Field(description="Points", examples=[100])]
    stock: Annotated[int, Field(ge=0, le=_STOCK_LIMIT, examples=[500])]
    per_user_limit: _PerUserLimit | None = None
    valid_from: _ValidFrom = None
    valid_until: _ValidUntil = None
    is_active: bool = True

    @property
    def order(self) -> VoucherOrder:
        return VoucherOrder(
            self.title,
            self.description,
            self.cost,
            self.stock,
            self.per_user_limit,
            self.valid_from,
            self.valid_until,
            self.is_active,
        )


class VoucherChanges(StrictModel):
    """What is not sent stays; null takes a description, a limit or an end of the validity away."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"add_stock": 100, "valid_until": "2026-04-01T00:00:00Z"}]}
    )

    title: _Title | None = None
    description: _Description | None = None
    add_stock: Annotated[
        int,
        Field(
            ge=-_STOCK_LIMIT,
            le=_STOCK_LIMIT,
            description="Counted up or, where negative, down: what is being redeemed meanwhile is not overwritten",
        ),
    ] = 0
    per_user_limit: _PerUserLimit | None = None
    valid_from: _ValidFrom = None
    valid_until: _ValidUntil = None
    is_active: bool | None = None

    @model_validator(mode="after")
    def _keeps_what_every_voucher_has(self) -> Self:
        for name in ("title", "is_active"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set - {"add_stock"}}


class VoucherView(View):
    id: str = Field(examples=["vch_0198c0ffee0070008000000000000001"])
    title: str = Field(examples=["A cup of coffee"])
    description: str | None
    cost: int = Field(ge=1, description="Points", examples=[100])
    stock: int = Field(ge=0, description="How many are left", examples=[499])
    per_user_limit: int | None = Field(description="How often one person may redeem it; null: any number")
    valid_from: str | None = Field(json_schema_extra={"format": "date-time"}, examples=["2026-03-01T00:00:00.000Z"])
    valid_until: str | None = Field(json_schema_extra={"format": "date-time"}, examples=["2026-04-01T00:00:00.000Z"])
    is_active: bool


class KeptVoucherView(VoucherView):
    """For those who keep the catalogue."""

    stocked_total: int = Field(ge=0, description="What was ever stocked: `stock` and all redemptions together")
    created_by: str | None = Field(
        description="null for vouchers of earlier releases", examples=["usr_0198c0ffee0070008000000000000001"]
    )
    updated_by: str | None = Field(examples=["usr_0198c0ffee0070008000000000000001"])
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    updated_at: str = Field(json_schema_extra={"format": "date-time"})


class RedemptionView(View):
    id: str = Field(examples=["rdm_0198c0ffee0070008000000000000001"])
    voucher_id: str
    title: str = Field(description="The voucher's at that time", examples=["A cup of coffee"])
    cost: int = Field(ge=1, description="Points", examples=[100])
    code: str = Field(
        description="What the voucher is worth: shown to nobody else", examples=["0997N-DG0DT-F8NBF-Z9B1H-TMKR5G"]
    )
    wallet_id: str = Field(description="The wallet for points")
    transaction_id: str
    redeemed_at: str = Field(json_schema_extra={"format": "date-time"}, examples=["2026-02-24T12:34:56.789Z"])


class RedemptionReceipt(RedemptionView):
    balance: BalanceView = Field(description="What is left in the wallet for points")


@router.post(
    "/vouchers/{voucher_id}/redeem",
    status_code=201,
    response_model=RedemptionReceipt,
    responses=problem_responses(
        IdempotencyKeyInvalid,
        IdempotencyKeyMissing,
        Malformed,
        AccountDeactivated,
        VoucherNotValid,
        VoucherSoldOut,
        VoucherLimitReached,
        NoWalletInCurrency,
        WalletFrozen,
        WalletOwes,
        WalletClosed,
        InsufficientFunds,
        LedgerBusy,
    ),
    summary="Redeem points for a voucher's code",
    description="At once, and once for each key. The code is in the answer and among one's redemptions.",
)
async def redeem_voucher(
    voucher_id: _VoucherId,
    user: Annotated[Caller, require(Permission.REWARDS_WRITE)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await vouchers.redeem_voucher(
        resources.ledger, user.requester, voucher_id, claim, correlation_id.get(), resources.settings
    )
    return respond(answer)


@router.get(
    "/vouchers",
    response_model=PageView[VoucherView],
    summary="What can be redeemed now, newest first",
    description="Active, within their time and in stock.",
)
async def list_redeemable_vouchers(
    query: Annotated[PageQuery, Query()],
    user: Annotated[Caller, require(Permission.REWARDS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "vouchers", user.user_id, str)
    found = await vouchers.list_redeemable_vouchers(before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda voucher: voucher.id, voucher_view)


@router.get(
    "/vouchers/{voucher_id}",
    response_model=VoucherView,
    summary="One voucher, redeemable or not",
    description="With how many are left.",
)
async def get_voucher(voucher_id: _VoucherId, _user: Annotated[Caller, require(Permission.REWARDS_READ)]) -> Response:
    return _json(voucher_view(await get_record(voucher_id, Voucher)))


@router.get(
    "/redemptions",
    response_model=PageView[RedemptionView],
    summary="The vouchers that one has redeemed, newest first",
    description="With their codes.",
)
async def list_redemptions(
    query: Annotated[PageQuery, Query()],
    user: Annotated[Caller, require(Permission.REWARDS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "redemptions", user.user_id, str)
    found = await vouchers.list_redemptions(
        user.user_id, resources.settings, before_id=page.position, limit=page.limit_and_one
    )
    return page_of(found, page, lambda shown: shown.redemption.id, lambda shown: redemption_view(*shown))


@router.get(
    "/redemptions/{redemption_id}",
    response_model=RedemptionView,
    summary="One redemption with its code, for its owner",
    description="Somebody else's is 404.",
)
async def get_redemption(
    redemption_id: Annotated[str, Path(max_length=64)],
    user: Annotated[Caller, require(Permission.REWARDS_READ)],
    resources: OpenResources,
) -> Response:
    shown = await vouchers.get_redemption(redemption_id, user.user_id, resources.settings)
    return _json(redemption_view(*shown))


@admin_router.post(
    "/vouchers",
    status_code=201,
    response_model=KeptVoucherView,
    responses=problem_responses(LedgerBusy),
    summary="Put a voucher into the catalogue",
    description="A key is not needed; with one, a repetition does not make a second voucher.",
)
async def create_voucher(
    body: VoucherRequest,
    user: Annotated[Caller, require(Permission.CATALOGUE_ADMIN)],
    key: OptionalIdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await vouchers.create_voucher(resources.ledger, user.requester, body.order, claim, correlation_id.get())
    return respond(answer)


@admin_router.patch(
    "/vouchers/{voucher_id}",
    response_model=KeptVoucherView,
    responses=problem_responses(VoucherStockTooLow, InvalidFields, IdempotencyKeyReused, LedgerBusy),
    summary="Change a voucher; its stock by so many more or fewer",
    description="Only what is sent changes. Stock is counted up or down by `add_stock`, so that what is being "
    "redeemed meanwhile counts.",
)
async def update_voucher(
    voucher_id: _VoucherId,
    body: VoucherChanges,
    user: Annotated[Caller, require(Permission.CATALOGUE_ADMIN)],
    key: OptionalIdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await vouchers.update_voucher(
        resources.ledger, user.requester, voucher_id, body.changes, body.add_stock, claim, correlation_id.get()
    )
    return respond(answer)


@admin_router.get(
    "/vouchers",
    response_model=PageView[KeptVoucherView],
    summary="All vouchers, newest first",
    description="Inactive, sold out and past ones too.",
)
async def list_vouchers(
    query: Annotated[PageQuery, Query()],
    user: Annotated[Caller, require(Permission.CATALOGUE_ADMIN)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "all_vouchers", user.user_id, str)
    found = await vouchers.list_vouchers(before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda voucher: voucher.id, kept_voucher_view)


def _json(body: dict[str, Any]) -> Response:
    return json_response(body)
