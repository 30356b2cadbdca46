"""Returns over HTTP, for admins."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import Reason
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View, problem_responses
from service.domain.permissions import Permission
from service.domain.returns import Return, ReturnStatus, ReturnType, return_view
from service.errors import (
    AccountDeactivated,
    BalanceOverflow,
    IdempotencyKeyInFlight,
    IllegalTransition,
    LedgerBusy,
    SecondAdminRequired,
    WalletClosed,
    WalletOwes,
)
from service.services import returns
from service.services.callers import Caller
from service.services.records import get_record

router = api_router("Outcomes", prefix="/admin/returns")

_ReturnId = Annotated[str, Path(max_length=64, examples=["rtn_0198c0ffee0070008000000000000001"])]

_EXAMPLE: dict[str, Any] = {
    "id": "rtn_0198c0ffee0070008000000000000001",
    "type": "deposit",
    "operation_id": "dep_0198c0ffee0070008000000000000001",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "amount": 10000,
    "collected": 9999,
    "owed": 1,
    "currency": "INR",
    "status": "owed",
    "bank_reference": "bank_5f0c3e1b9a7d4c2f",
    "return_code": "chargeback",
    "return_message": "Taken back by who paid",
    "trouble": "insufficient_funds",
    "category": None,
    "decided_by": None,
    "decided_at": None,
    "transaction_id": "txn_0198c0ffee0070008000000000000001",
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T12:34:56.789Z",
}


class ReturnView(View):
    """Money of a settled operation that the bank sent back (a withdrawal) or took back (a deposit)."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    type: ReturnType = Field(description="Of the operation; `points`: what a returned deposit had earned")
    operation_id: str = Field(description="Of points, the reward that gave them")
    user_id: str
    wallet_id: str
    amount: int = Field(ge=1)
    currency: str
    collected: int = Field(ge=0, description="What has moved so far")
    owed: int = Field(ge=0, description="What the wallet still lacks; whatever comes into it pays this first")
    status: ReturnStatus = Field(
        description="`owed`: a deposit was taken back, and the wallet has given what it had; `requires_review`: the "
        "bank has done it, and the wallet could not follow"
    )
    bank_reference: str | None
    return_code: str | None
    return_message: str | None
    trouble: str | None = Field(description="Why it has not moved, or not all of it, as the code of an error")
    category: str | None
    decided_by: str | None = Field(description="Who had it booked later")
    decided_at: str | None
    transaction_id: str | None = Field(description="The latest one that has moved some of it")
    created_at: str
    updated_at: str


class CollectionRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The customer has paid in what was missing"])]


class ReturnsQuery(PageQuery):
    status: ReturnStatus | None = None


@router.get(
    "",
    response_model=PageView[ReturnView],
    summary="What the bank sent back, newest operations first",
    description="With `status=owed`, what wallets still lack; with `status=requires_review`, what no wallet could "
    "follow at all.",
)
async def list_returns(
    query: Annotated[ReturnsQuery, Query()],
    user: Annotated[Caller, require(Permission.LEDGER_ADMIN)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "returns", user.user_id, str)
    found = await returns.list_returns(query.status, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda one: one.id, return_view)


@router.get(
    "/{return_id}",
    response_model=ReturnView,
    summary="One return",
    description="The operation names it, too.",
)
async def get_return(return_id: _ReturnId, _user: Annotated[Caller, require(Permission.LEDGER_ADMIN)]) -> Response:
    return json_response(return_view(await get_record(return_id, Return)))


@router.post(
    "/{return_id}/collect",
    response_model=ReturnView,
    responses=problem_responses(
        AccountDeactivated,
        SecondAdminRequired,
        IllegalTransition,
        IdempotencyKeyInFlight,
        BalanceOverflow,
        WalletClosed,
        WalletOwes,
        LedgerBusy,
    ),
    summary="Book a return that waits",
    description="Now that the wallet can follow, frozen or not. Of a deposit's return what is there is taken, never "
    "below zero, and the rest is `owed`. What still cannot be booked is refused and goes on waiting: try later, under "
    "a new key. The wallet stays frozen until it is unfrozen.",
)
async def collect_return(
    body: CollectionRequest,
    return_id: _ReturnId,
    user: Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)],
    key: IdempotencyKey,
    resources: OpenResources,
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    return respond(
        await returns.collect_return(
            resources.ledger, user.requester, return_id, body.reason, claim, correlation_id.get()
        )
    )
