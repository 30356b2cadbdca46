"""Limits over HTTP."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import AnyCurrency, Reason, ZoneName
from service.controllers.pagination import Query as StrictQuery
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PositiveSum, View, problem_responses
from service.domain.clock import to_rfc3339
from service.domain.limits import Limits, LimitState
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.permissions import Permission
from service.domain.time_zones import ZoneSource
from service.errors import AccountDeactivated, LedgerBusy, RateUnavailable, SecondAdminRequired, WalletClosed
from service.services import limits, user_limits, users
from service.services.callers import Caller
from service.services.limits import WalletLimits
from service.services.user_limits import OverallLimits

router = api_router("Limits")

_WalletId = Annotated[str, Path(max_length=64, examples=["wal_0198c0ffee0070008000000000000001"])]
_UserId = Annotated[str, Path(max_length=64, examples=["usr_0198c0ffee0070008000000000000001"])]
_Currency = Annotated[AnyCurrency, Path()]
_Ceiling = Annotated[
    int | None,
    Field(ge=0, le=MAX_AMOUNT_MINOR, description="null: the usual one; 0: none", examples=[500000]),
]


_EXAMPLE: dict[str, Any] = {
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "currency": "INR",
    "time_zone": "Asia/Kolkata",
    "time_zone_from": "currency",
    "is_overridden": True,
    "override": {"per_transaction": None, "per_day": 500000, "per_month": None, "count_per_hour": 0},
    "limits": {
        "per_transaction": {"ceiling": 200000, "used": 0, "left": 200000, "resets_at": None},
        "count_per_hour": {"ceiling": None, "used": 3, "left": None, "resets_at": "2026-02-24T13:00:00.000Z"},
        "per_day": {"ceiling": 500000, "used": 120000, "left": 380000, "resets_at": "2026-02-24T18:30:00.000Z"},
        "per_month": {"ceiling": 5000000, "used": 990000, "left": 4010000, "resets_at": "2026-02-28T18:30:00.000Z"},
    },
}


_OVERALL_EXAMPLE: dict[str, Any] = {
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "currency": "USD",
    "time_zone": "Asia/Kolkata",
    "time_zone_from": "user",
    "is_overridden": True,
    "override": {"per_transaction": None, "per_day": 10000, "per_month": None, "count_per_hour": None},
    "override_currency": "USD",
    "limits": {
        "per_transaction": {"ceiling": None, "used": 0, "left": None, "resets_at": None},
        "count_per_hour": {"ceiling": None, "used": 1, "left": None, "resets_at": "2026-02-24T13:00:00.000Z"},
        "per_day": {"ceiling": 10000, "used": 6000, "left": 4000, "resets_at": "2026-02-24T18:30:00.000Z"},
        "per_month": {"ceiling": None, "used": 6000, "left": None, "resets_at": "2026-02-28T18:30:00.000Z"},
    },
}


class CeilingsRequest(StrictModel):
    """In place of the override before. Minor units, and for the hour a number of payments."""

    per_transaction: _Ceiling = None
    per_day: _Ceiling = None
    per_month: _Ceiling = None
    count_per_hour: _Ceiling = None
    reason: Annotated[Reason, Field(examples=["Buys a car this week"])]

    @property
    def limits(self) -> Limits:
        return Limits(**self.model_dump(include={*Limits._fields}))


class LimitsRequest(CeilingsRequest):
    """The override of one wallet."""

    time_zone: Annotated[
        ZoneName | None,
        Field(
            description="In which its days and months begin, by its name at IANA; null: that of its owner, or else of "
            "the currency. Each date has its limit once: a change gives nobody a day twice",
        ),
    ] = None


class ResetQuery(StrictQuery):
    reason: Annotated[
        Reason | None, Field(description="Why: it stays in the audit events", examples=["The car is bought"])
    ] = None


class LimitView(View):
    """Days and months are those of the calendar in `time_zone`, hours those in UTC."""

    ceiling: int | None = Field(description="null where there is no limit")
    used: PositiveSum
    left: int | None = Field(ge=0)
    resets_at: str | None = Field(description="When it starts anew; null for a single payment")


class OverrideView(View):
    per_transaction: int | None
    per_day: int | None
    per_month: int | None
    count_per_hour: int | None


class AllLimitsView(View):
    per_transaction: LimitView
    count_per_hour: LimitView
    per_day: LimitView
    per_month: LimitView


class OverallLimitsView(View):
    """Shows what may leave all wallets of a user together, and how much of it was used."""

    model_config = ConfigDict(json_schema_extra={"examples": [_OVERALL_EXAMPLE]})

    user_id: str
    currency: str = Field(
        description="In which they are counted: what leaves a wallet in another one counts at the rate of the moment"
    )
    time_zone: str = Field(description="In which their days and months begin")
    time_zone_from: ZoneSource = Field(
        description="Who decided on it: `user` (`PATCH /me`), `currency` where most who hold it live, `default` nobody"
    )
    is_overridden: bool
    override: OverrideView | None = Field(description="What an admin has set: null is the usual limit, 0 is none")
    override_currency: str | None = Field(
        description="In which the override was set; it is converted where that is another one by now"
    )
    limits: AllLimitsView


class LimitsView(View):
    """What may leave the wallet, and what of it was used."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    wallet_id: str
    user_id: str
    currency: str
    time_zone: str = Field(description="In which its days and months begin")
    time_zone_from: ZoneSource = Field(
        description="Who decided on it: `wallet` an admin for this wallet, `user` the owner (`PATCH /me`), `currency` "
        "where most who hold it live, `default` nobody, so that it is UTC"
    )
    is_overridden: bool
    override: OverrideView | None = Field(description="What an admin has set: null is the usual limit, 0 is none")
    limits: AllLimitsView


@router.get(
    "/wallets/{wallet_id}/limits",
    operation_id="get_wallet_limits",
    response_model=LimitsView,
    summary="What may still leave a wallet; one's own, or as an admin anybody's",
    description="Each limit with what of it is used, left, and when it starts anew. Days and months "
    "are those of the calendar in `time_zone`, hours those in UTC.",
)
async def get_limits(
    wallet_id: _WalletId, user: Annotated[Caller, require(Permission.WALLETS_READ)], resources: OpenResources
) -> Response:
    owner_id = None if await users.may_now(user, Permission.WALLETS_ADMIN) else user.user_id
    return _shape(await limits.get_limits(wallet_id, owner_id, resources.ledger.policy))


_ERRORS = (AccountDeactivated, SecondAdminRequired, WalletClosed, LedgerBusy)


@router.put(
    "/admin/users/{user_id}/limits/{currency}",
    response_model=LimitsView,
    responses=problem_responses(*_ERRORS),
    summary="Set limits for one user and currency (admin)",
    description="What was used stays used. Setting the same again changes nothing.",
)
async def override_limits(
    body: LimitsRequest,
    user_id: _UserId,
    currency: _Currency,
    user: Annotated[Caller, require(Permission.WALLETS_ADMIN)],
    resources: OpenResources,
) -> Response:
    changed = await limits.override_limits(
        resources.ledger,
        user.requester,
        user_id,
        currency,
        body.limits,
        body.time_zone,
        body.reason,
        correlation_id.get(),
    )
    return _shape(changed)


@router.delete(
    "/admin/users/{user_id}/limits/{currency}",
    response_model=LimitsView,
    responses=problem_responses(*_ERRORS),
    summary="Go back to the usual limits (admin)",
    description="What was used stays used.",
)
async def reset_limits(
    user_id: _UserId,
    currency: _Currency,
    query: Annotated[ResetQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_ADMIN)],
    resources: OpenResources,
) -> Response:
    changed = await limits.override_limits(
        resources.ledger, user.requester, user_id, currency, Limits(), None, query.reason, correlation_id.get()
    )
    return _shape(changed)


@router.get(
    "/me/limits",
    operation_id="get_my_limits",
    response_model=OverallLimitsView,
    responses=problem_responses(AccountDeactivated, RateUnavailable),
    summary="What may still leave all of one's wallets together",
    description="In one currency. While no such limit is set, every `ceiling` is null and nothing is counted.",
)
async def get_my_limits(
    user: Annotated[Caller, require(Permission.WALLETS_READ)], resources: OpenResources
) -> Response:
    return _shape_overall(await user_limits.get_user_limits(user.user_id, resources.ledger.policy))


@router.get(
    "/admin/users/{user_id}/limits",
    operation_id="get_user_limits",
    response_model=OverallLimitsView,
    responses=problem_responses(RateUnavailable),
    summary="What may still leave all wallets of a user together (admin)",
    description="As the user sees it in `GET /me/limits`.",
)
async def get_user_limits(
    user_id: _UserId, _user: Annotated[Caller, require(Permission.WALLETS_ADMIN)], resources: OpenResources
) -> Response:
    return _shape_overall(await user_limits.get_limits_of_anybody(user_id, resources.ledger.policy))


_OVERALL_ERRORS = (AccountDeactivated, SecondAdminRequired, RateUnavailable, LedgerBusy)


@router.put(
    "/admin/users/{user_id}/limits",
    operation_id="override_user_limits",
    response_model=OverallLimitsView,
    responses=problem_responses(*_OVERALL_ERRORS),
    summary="Set limits over all wallets of a user (admin)",
    description="Minor units of the reference currency (`WALLET_USER_LIMITS`). What was used stays used. Setting the "
    "same again changes nothing.",
)
async def override_user_limits(
    body: CeilingsRequest,
    user_id: _UserId,
    user: Annotated[Caller, require(Permission.WALLETS_ADMIN)],
    resources: OpenResources,
) -> Response:
    changed = await user_limits.override_user_limits(
        resources.ledger, user.requester, user_id, body.limits, body.reason, correlation_id.get()
    )
    return _shape_overall(changed)


@router.delete(
    "/admin/users/{user_id}/limits",
    operation_id="reset_user_limits",
    response_model=OverallLimitsView,
    responses=problem_responses(*_OVERALL_ERRORS),
    summary="Go back to the usual limits over all wallets (admin)",
    description="What was used stays used.",
)
async def reset_user_limits(
    user_id: _UserId,
    query: Annotated[ResetQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_ADMIN)],
    resources: OpenResources,
) -> Response:
    changed = await user_limits.override_user_limits(
        resources.ledger, user.requester, user_id, Limits(), query.reason, correlation_id.get()
    )
    return _shape_overall(changed)


def _shape_overall(found: OverallLimits) -> Response:
    body = {
        "user_id": found.user_id,
        "currency": found.currency,
        "time_zone": found.time_zone,
        "time_zone_from": found.time_zone_from,
        "is_overridden": found.override is not None,
        "override": None if found.override is None else found.override._asdict(),
        "override_currency": found.override_currency,
        "limits": {state.limit.value: _limit_view(state) for state in found.states},
    }
    return json_response(body)


def _shape(found: WalletLimits) -> Response:
    body = {
        "wallet_id": found.wallet.id,
        "user_id": found.wallet.user_id,
        "currency": found.wallet.currency,
        "time_zone": found.wallet.zone_name,
        "time_zone_from": found.wallet.zone_source,
        "is_overridden": found.override is not None,
        "override": None if found.override is None else found.override._asdict(),
        "limits": {state.limit.value: _limit_view(state) for state in found.states},
    }
    return json_response(body)


def _limit_view(state: LimitState) -> dict[str, Any]:
    return {
        "ceiling": state.ceiling,
        "used": state.used,
        "left": None if state.ceiling is None else max(0, state.ceiling - state.used),
        "resets_at": None if state.resets_at is None else to_rfc3339(state.resets_at),
    }
