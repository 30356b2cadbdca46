"""Freezing, unfreezing, closing and reopening wallets over HTTP."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Response
from pydantic import Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Reason
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import WalletView, problem_responses
from service.domain.permissions import Permission
from service.domain.wallets import Freeze, Wallet, wallet_view
from service.errors import (
    AccountDeactivated,
    CurrencyNotOffered,
    Forbidden,
    LedgerBusy,
    SecondAdminRequired,
    UserLockedDown,
    WalletBooksDisagree,
    WalletClosed,
    WalletFrozen,
    WalletHasOpenOperations,
    WalletNotEmpty,
    WalletOwes,
)
from service.services import wallet_life
from service.services.callers import Caller

router = api_router("Wallets")

_WalletId = Annotated[str, Path(max_length=64, examples=["wal_0198c0ffee0070008000000000000001"])]
_REPEATABLE = "Needs no key: what is so already stays so, and answers 200 with the wallet."


class FreezeRequest(StrictModel):
    direction: Annotated[
        Freeze, Field(strict=False, description="Which way to shut it; another one than before replaces it")
    ] = Freeze.BOTH
    reason: Annotated[Reason, Field(examples=["Reported as stolen"])]


class UnfreezeRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The card was found again"])]


class ReopenRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["Closed by mistake"])]


class CloseRequest(StrictModel):
    reason: Annotated[
        Reason | None, Field(description="Required where it is not one's own", examples=["No longer used"])
    ] = None


_ERRORS = (AccountDeactivated, LedgerBusy)


def _route(*errors: Any, summary: str, more: str = "") -> dict[str, Any]:  # noqa: ANN401 error classes
    return {
        "response_model": WalletView,
        "responses": problem_responses(*_ERRORS, *errors),
        "summary": summary,
        "description": f"{more}{_REPEATABLE}",
    }


@router.post(
    "/wallets/{wallet_id}/freeze",
    **_route(
        Forbidden,
        SecondAdminRequired,
        UserLockedDown,
        WalletClosed,
        WalletOwes,
        WalletBooksDisagree,
        summary="Freeze a wallet (admin)",
        more="Nothing new goes in, out, or either way; what is under way with the bank still ends. "
        "What a break has shut both ways is not opened one way, nor one's own by oneself, nor a wallet that owes. ",
    ),
)
async def freeze_wallet(
    body: FreezeRequest,
    wallet_id: _WalletId,
    user: Annotated[Caller, require(Permission.WALLETS_ADMIN)],
    resources: OpenResources,
) -> Response:
    wallet = await wallet_life.freeze_wallet(
        resources.ledger, user.requester, wallet_id, body.direction, body.reason, correlation_id.get()
    )
    return _shape(wallet)


@router.post(
    "/wallets/{wallet_id}/unfreeze",
    **_route(
        Forbidden,
        SecondAdminRequired,
        UserLockedDown,
        WalletClosed,
        WalletOwes,
        WalletBooksDisagree,
        summary="Thaw a wallet (admin)",
        more="Not while a break of its books is open: that is explained or resolved first; nor while something is owed "
        "in it. One's own is thawed by another admin. ",
    ),
)
async def unfreeze_wallet(
    body: UnfreezeRequest,
    wallet_id: _WalletId,
    user: Annotated[Caller, require(Permission.WALLETS_ADMIN)],
    resources: OpenResources,
) -> Response:
    wallet = await wallet_life.unfreeze_wallet(
        resources.ledger, user.requester, wallet_id, body.reason, correlation_id.get()
    )
    return _shape(wallet)


@router.post(
    "/wallets/{wallet_id}/close",
    **_route(
        WalletNotEmpty,
        WalletHasOpenOperations,
        WalletFrozen,
        WalletOwes,
        WalletBooksDisagree,
        summary="Close a wallet",
        more="Only an admin can reopen it. One's own, or as an admin anybody's. It has to be empty, with nothing under "
        "way; a frozen one is closed by admins only, and none while a break of its books is open. ",
    ),
)
async def close_wallet(
    body: CloseRequest,
    wallet_id: _WalletId,
    user: Annotated[Caller, require(Permission.WALLETS_WRITE)],
    resources: OpenResources,
) -> Response:
    wallet = await wallet_life.close_wallet(
        resources.ledger,
        user.requester,
        wallet_id,
        body.reason,
        correlation_id.get(),
        is_admin=user.may(Permission.WALLETS_ADMIN),
    )
    return _shape(wallet)


@router.post(
    "/wallets/{wallet_id}/reopen",
    **_route(
        Forbidden,
        SecondAdminRequired,
        UserLockedDown,
        CurrencyNotOffered,
        WalletFrozen,
        WalletNotEmpty,
        WalletBooksDisagree,
        summary="Reopen a closed wallet (admin)",
        more="Its owner has it again, empty, with its history: nobody gets a second one in the same currency. "
        "One's own is reopened by another admin. Where the bank has sent something back meanwhile, it is reopened "
        "frozen out, until that is collected and an admin unfreezes it. ",
    ),
)
async def reopen_wallet(
    body: ReopenRequest,
    wallet_id: _WalletId,
    user: Annotated[Caller, require(Permission.WALLETS_ADMIN)],
    resources: OpenResources,
) -> Response:
    wallet = await wallet_life.reopen_wallet(
        resources.ledger, user.requester, wallet_id, body.reason, correlation_id.get()
    )
    return _shape(wallet)


def _shape(wallet: Wallet) -> Response:
    return json_response(wallet_view(wallet))
