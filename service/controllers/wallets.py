"""Wallets over HTTP."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Query, Response
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import AnyCurrency
from service.controllers.pagination import (
    CategoryFilter,
    CreatedFrom,
    CreatedTo,
    PageQuery,
    QueryTime,
    open_page,
    page_of,
)
from service.controllers.pagination import Query as StrictQuery
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import EntryView, PageView, WalletAtView, WalletView, problem_responses
from service.domain.clock import to_rfc3339
from service.domain.entries import Direction, EntryType, entry_view
from service.domain.history import BalancePoint, EntryFilter
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.permissions import Permission
from service.domain.wallets import Wallet, wallet_view
from service.errors import AccountDeactivated, CurrencyNotOffered, SearchTooLong, WalletExists, WalletOwes
from service.services import wallets
from service.services.callers import Caller

router = api_router("Wallets")

WalletId = Annotated[str, Path(max_length=64)]


class WalletRequest(StrictModel):
    currency: AnyCurrency


def _refuse_other_than_digits(text: Any) -> Any:  # noqa: ANN401 anything may come
    # Otherwise pydantic takes 1_000 and 10.0 as well.
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal()):
        raise PydanticCustomError("invalid_amount", "Send a whole number of minor units, e.g. 10050 for 100.50")
    return text


_Text = Annotated[str, Field(min_length=1, max_length=64)]
_QueryAmount = Annotated[int, Field(ge=1, le=MAX_AMOUNT_MINOR), BeforeValidator(_refuse_other_than_digits)]


class EntriesQuery(PageQuery):
    """All filters together narrow; `type` may be given several times."""

    type: Annotated[
        tuple[EntryType, ...], Field(max_length=len(EntryType), description="One of these", examples=[["WITHDRAWAL"]])
    ] = ()
    category: CategoryFilter = None
    direction: Annotated[Direction | None, Field(description="`credit` came in, `debit` went out")] = None
    status: Annotated[
        _Text | None, Field(description="What the operation had come to by this entry", examples=["success"])
    ] = None
    created_from: CreatedFrom = None
    created_to: CreatedTo = None
    reference: Annotated[
        _Text | None, Field(description="The operation", examples=["wdr_0198c0ffee0070008000000000000001"])
    ] = None
    counterparty: Annotated[_Text | None, Field(description="The other side", examples=["bank"])] = None
    amount_min: Annotated[_QueryAmount | None, Field(description="Minor units: this much or more", examples=[100])] = (
        None
    )
    amount_max: Annotated[
        _QueryAmount | None, Field(description="Minor units: this much or less", examples=[10050])
    ] = None

    @property
    def wanted(self) -> EntryFilter:
        return EntryFilter(
            types=self.type,
            category=self.category,
            direction=self.direction,
            status=self.status,
            reference=self.reference,
            counterparty=self.counterparty,
            amount_min=self.amount_min,
            amount_max=self.amount_max,
            created_from=self.created_from,
            created_to=self.created_to,
        )


class AtQuery(StrictQuery):
    """What a balance may be asked for with."""

    at: Annotated[
        QueryTime | None,
        Field(
            description="A time in the past: the answer tells what was there after the last entry up to this moment, "
            "that moment included. Before the first entry, and before the wallet was opened, that is nothing, with "
            "`seq` 0; at a time to come it is what is there so far.",
            examples=["2026-01-31T23:59:59.999Z"],
        ),
    ] = None


@router.get(
    "/wallets/{wallet_id}",
    response_model=WalletView | WalletAtView,
    summary="One wallet, as it is or as it was",
)
async def get_wallet(
    wallet_id: WalletId,
    query: Annotated[AtQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
) -> Response:
    """With `at`, what was in it then: a shorter answer, since the log tells amounts but not the wallet's status."""
    if query.at is None:
        return _shape(await wallets.get_wallet(wallet_id, user.user_id))
    wallet, point = await wallets.get_wallet_at(wallet_id, user.user_id, query.at)
    body = {"id": wallet.id, "user_id": wallet.user_id, "currency": wallet.currency, **balance_at(point, query.at)}
    return json_response(body)


@router.get(
    "/wallets/{wallet_id}/transactions",
    operation_id="list_wallet_transactions",
    response_model=PageView[EntryView],
    responses=problem_responses(SearchTooLong),
    summary="A wallet's entries, newest first",
    description="Each movement with the balance before and after it. Rare matches over a long time may be refused "
    "with `search_too_long`: take a shorter range.",
)
async def list_transactions(
    wallet_id: WalletId,
    query: Annotated[EntriesQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "wallet_entries", wallet_id, int)
    rows = await wallets.list_wallet_entries(
        wallet_id, user.user_id, query.wanted, before_seq=page.position, limit=page.limit_and_one
    )
    return page_of(rows, page, lambda entry: entry.seq, entry_view)


@router.get(
    "/wallets",
    response_model=PageView[WalletView],
    summary="One's wallets, newest first",
    description="One for each currency that one has opened, closed ones too.",
)
async def list_wallets(
    query: Annotated[PageQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "wallets", user.user_id, str)
    rows = await wallets.list_wallets(user.user_id, before_id=page.position, limit=page.limit_and_one)
    return page_of(rows, page, lambda wallet: wallet.id, wallet_view)


@router.post(
    "/wallets",
    status_code=201,
    response_model=WalletView,
    responses=problem_responses(AccountDeactivated, CurrencyNotOffered, WalletExists, WalletOwes),
    summary="Open a wallet in another currency",
    description="Empty, and one for each currency that the service deals in; the refusal of another one lists them. "
    "The first one came with the account.",
)
async def open_wallet(
    body: WalletRequest, user: Annotated[Caller, require(Permission.WALLETS_WRITE)], resources: OpenResources
) -> Response:
    wallet = await wallets.open_wallet(
        resources.databases.client, user.requester, body.currency, resources.ledger.policy
    )
    return _shape(wallet, status_code=201)


def _shape(wallet: Wallet, status_code: int = 200) -> Response:
    return json_response(wallet_view(wallet), status_code)


def balance_at(point: BalancePoint, at: datetime) -> dict[str, Any]:
    return {
        "at": to_rfc3339(at),
        "seq": point.seq,
        "available": point.available,
        "held": point.held,
        "balance": point.balance,
    }
