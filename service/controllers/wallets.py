"""Wallets over HTTP."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from service.controllers.dependencies import CurrentUser, OpenResources
from service.controllers.operations import WalletCurrency
from service.controllers.pagination import PageQuery, QueryTime, open_page, page_of
from service.controllers.requests import StrictModel, StrictRoute
from service.controllers.schemas import EntryView, PageView, WalletView, problem_responses
from service.domain.entries import EntryType, entry_view
from service.domain.wallets import Wallet, wallet_view
from service.errors import (
    AccountDeactivated,
    InvalidCursor,
    InvalidFields,
    Malformed,
    NotFound,
    Unauthenticated,
    Unavailable,
    WalletExists,
)
from service.services import wallets
from service.services.wallets import EntryFilter

router = APIRouter(route_class=StrictRoute, tags=["Wallets"])

WalletId = Annotated[str, Path(max_length=64)]


class WalletRequest(StrictModel):
    currency: WalletCurrency


class EntriesQuery(PageQuery):
    """`type` may be given several times."""

    type: Annotated[tuple[EntryType, ...], Field(max_length=len(EntryType))] = ()
    created_from: Annotated[QueryTime | None, Field(description="At this time or later")] = None
    created_to: Annotated[QueryTime | None, Field(description="Before this time")] = None

    @property
    def wanted(self) -> EntryFilter:
        return EntryFilter(self.type, self.created_from, self.created_to)


@router.get(
    "/wallets/{wallet_id}",
    response_model=WalletView,
    responses=problem_responses(Unauthenticated, NotFound, InvalidFields),
    summary="One wallet",
)
async def get_wallet(wallet_id: WalletId, user: CurrentUser) -> Response:
    return _shape(await wallets.get_wallet(wallet_id, user.user_id))


@router.get(
    "/wallets/{wallet_id}/transactions",
    response_model=PageView[EntryView],
    responses=problem_responses(InvalidCursor, Unauthenticated, NotFound, InvalidFields),
    summary="A wallet's entries, newest first",
)
async def list_transactions(
    wallet_id: WalletId, query: Annotated[EntriesQuery, Query()], user: CurrentUser, resources: OpenResources
) -> Response:
    page = open_page(query, resources.settings, "wallet_entries", wallet_id, int)
    rows = await wallets.list_wallet_entries(
        wallet_id, user.user_id, query.wanted, before_seq=page.position, limit=page.limit_and_one
    )
    return page_of(rows, page, lambda entry: entry.seq, entry_view)


@router.get(
    "/wallets",
    response_model=PageView[WalletView],
    responses=problem_responses(InvalidCursor, Unauthenticated, InvalidFields),
    summary="One's wallets, newest first",
)
async def list_wallets(query: Annotated[PageQuery, Query()], user: CurrentUser, resources: OpenResources) -> Response:
    page = open_page(query, resources.settings, "wallets", user.user_id, str)
    rows = await wallets.list_wallets(user.user_id, before_id=page.position, limit=page.limit_and_one)
    return page_of(rows, page, lambda wallet: wallet.id, wallet_view)


@router.post(
    "/wallets",
    status_code=201,
    response_model=WalletView,
    responses=problem_responses(
        Malformed, Unauthenticated, AccountDeactivated, WalletExists, InvalidFields, Unavailable
    ),
    summary="Open a wallet in another currency",
)
async def open_wallet(body: WalletRequest, user: CurrentUser, resources: OpenResources) -> Response:
    wallet = await wallets.open_wallet(resources.databases.client, user.requester, body.currency)
    return _shape(wallet, status_code=201)


def _shape(wallet: Wallet, status_code: int = 200) -> Response:
    return Response(orjson.dumps(wallet_view(wallet)), status_code, media_type="application/json")
