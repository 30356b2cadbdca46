"""People over HTTP: oneself, one's balances, one's history."""

from datetime import datetime
from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import AnyCurrency, ZoneName
from service.controllers.pagination import open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import (
    BalancesAtView,
    BalancesView,
    EntryView,
    PageView,
    UserView,
    problem_responses,
)
from service.controllers.wallets import AtQuery, EntriesQuery, balance_at
from service.documents import User
from service.domain.clock import to_rfc3339
from service.domain.entries import entry_view
from service.domain.permissions import Permission
from service.domain.wallets import Wallet
from service.errors import AccountDeactivated, LedgerBusy, NotFound, SearchTooLong
from service.services import user_limits, users, wallets
from service.services.callers import Caller

router = api_router("Users")

UserId = Annotated[str, Path(max_length=64)]
_AT_PARAMETER = {
    "name": "at",
    "in": "query",
    "required": False,
    "schema": AtQuery.model_json_schema()["properties"]["at"],
    "description": AtQuery.model_fields["at"].description,
}


class UserEntriesQuery(EntriesQuery):
    currency: AnyCurrency | None = None


class MeView(UserView):
    """The signed-in user and their settings."""

    time_zone: str | None = Field(
        description="In which the days and months of all of one's limits begin, but for wallets in which an admin has "
        "set another one; null: in that of each wallet's currency",
        examples=["Asia/Kolkata"],
    )


class ProfileChanges(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"time_zone": "Asia/Kolkata"}]})

    time_zone: ZoneName | None = Field(
        description="IANA name; null uses each currency's zone. A change can make the running day "
        "and month of the limits longer, never shorter"
    )


# First, because it is called most: routes are tried in order.
@router.get(
    "/users/{user_id}/balance",
    response_model=BalancesView | BalancesAtView,
    summary="What one has or had, wallet by wallet",
    openapi_extra={"parameters": [_AT_PARAMETER]},
)
async def get_balance(
    user_id: UserId, user: Annotated[Caller, require(Permission.WALLETS_READ)], request: Request
) -> Response:
    """With `at`, what one had then, in every wallet that one has by now."""
    _refuse_others(user_id, user)
    # By hand: FastAPI's own reading of a query would be an eighth of what this route costs, and hardly any has one.
    if request.scope["query_string"] and (at := _read_at(request)) is not None:
        return await _balance_at(user_id, at)
    balances = [_balance_view(wallet) for wallet in await wallets.get_balances(user_id)]
    return json_response({"user_id": user_id, "balances": balances})


def _read_at(request: Request) -> datetime | None:
    try:
        return AtQuery.model_validate(dict(request.query_params)).at
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in found]) from error


async def _balance_at(user_id: str, at: datetime) -> Response:
    balances = [
        {"wallet_id": wallet.id, "currency": wallet.currency, **balance_at(point, at)}
        for wallet, point in await wallets.get_balances_at(user_id, at)
    ]
    body = {"user_id": user_id, "at": to_rfc3339(at), "balances": balances}
    return json_response(body)


@router.get(
    "/users/{user_id}/transactions",
    operation_id="list_user_transactions",
    response_model=PageView[EntryView],
    responses=problem_responses(SearchTooLong),
    summary="The entries of all of one's wallets, newest first",
    description="As of one wallet, and by `currency` too. `user_id` has to be one's own.",
)
async def list_transactions(
    user_id: UserId,
    query: Annotated[UserEntriesQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
    resources: OpenResources,
) -> Response:
    _refuse_others(user_id, user)
    page = open_page(query, resources.settings, "user_entries", user_id, str)
    rows = await wallets.list_user_entries(
        user_id, query.wanted, query.currency, before_id=page.position, limit=page.limit_and_one
    )
    return page_of(rows, page, lambda entry: entry.id, entry_view)


@router.get(
    "/me",
    response_model=MeView,
    responses=problem_responses(AccountDeactivated),
    summary="Oneself",
    description="As the account is now: roles in a token may be older.",
)
async def get_me(user: Annotated[Caller, require(Permission.PROFILE_READ)]) -> Response:
    return json_response(await _me_view(user))


@router.patch(
    "/me",
    response_model=MeView,
    responses=problem_responses(AccountDeactivated, LedgerBusy),
    summary="Set one's time zone",
    description="It holds for the limits of all of one's wallets from the next payment on, but for wallets in which an "
    "admin has set a zone. Setting the same again changes nothing.",
)
async def change_me(
    body: ProfileChanges, user: Annotated[Caller, require(Permission.PROFILE_WRITE)], resources: OpenResources
) -> Response:
    await user_limits.set_time_zone(resources.ledger, user.requester, body.time_zone, correlation_id.get())
    return json_response(await _me_view(user))


async def _me_view(user: Caller) -> dict[str, Any]:
    found = await users.get_user(user)
    return user_view(found) | {"time_zone": await user_limits.get_time_zone(user.user_id)}


def user_view(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "roles": user.roles,
        "is_active": user.is_active,
        "is_email_verified": user.email_verified_at is not None,
        "created_at": to_rfc3339(user.created_at),
    }


def _refuse_others(user_id: str, user: Caller) -> None:
    """Whether there is somebody else with that id is not for them to know."""
    if user_id != user.user_id:
        raise NotFound(f"There is no user {user_id}")


def _balance_view(wallet: Wallet) -> dict[str, Any]:
    return {
        "wallet_id": wallet.id,
        "currency": wallet.currency,
        "available": wallet.available,
        "held": wallet.held,
        "balance": wallet.available + wallet.held,
        "owed": wallet.owed,
    }
