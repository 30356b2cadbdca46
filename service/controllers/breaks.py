"""Breaks over HTTP: where the books disagree, and what admins say of it."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Reason
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import TIME, PageView, View, problem_responses
from service.domain.breaks import Break, BreakKind, BreakState, break_view
from service.domain.permissions import Permission
from service.errors import IllegalTransition, SecondAdminRequired
from service.services import breaks
from service.services.breaks import BreakFilter
from service.services.callers import Caller

router = api_router("Admin", prefix="/admin")

_BreakId = Annotated[str, Path(max_length=64, examples=["brk_0198c0ffee0070008000000000000001"])]
_Id = Annotated[str | None, Field(max_length=64)]

_EXAMPLE: dict[str, Any] = {
    "id": "brk_0198c0ffee0070008000000000000001",
    "kind": "wallet_balance",
    "subject": "wal_0198c0ffee0070008000000000000001",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "operation_id": None,
    "day": None,
    "expected": {"available": 9000, "held": 1000},
    "found": {"available": 9001, "held": 1000},
    "state": "explained",
    "first_seen": "2026-02-24T12:34:56.789Z",
    "last_seen": "2026-02-24T12:42:57.012Z",
    "times_seen": 3,
    "explained": {
        "by": "usr_0198c0ffee0070008000000000000001",
        "reason": "A repair by hand that is not finished yet",
        "at": "2026-02-24T12:40:00.000Z",
    },
    "resolved": None,
}


class WordView(View):
    """What an admin, or `system`, said of it."""

    by: str
    reason: str
    at: str = TIME


class BreakView(View):
    """Where the books disagree with themselves or with the bank's. A wallet with a break of its own books is frozen."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    kind: BreakKind
    subject: str = Field(description="A wallet, an operation, or what the bank called it")
    wallet_id: str | None
    operation_id: str | None
    day: str | None = Field(description="Of the bank's statement (UTC)")
    expected: dict[str, str | int | None] = Field(description="By our log or our books")
    found: dict[str, str | int | None] = Field(description="In its place")
    state: BreakState
    first_seen: str = TIME
    last_seen: str = TIME
    times_seen: int = Field(ge=1)
    explained: WordView | None
    resolved: WordView | None


class BreaksQuery(PageQuery):
    """All filters together narrow."""

    state: Annotated[BreakState | None, Field(description="What has become of it")] = None
    kind: Annotated[BreakKind | None, Field(description="How the books disagree")] = None
    wallet_id: _Id = None
    operation_id: _Id = None
    day: Annotated[
        str | None, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="Of the statement", examples=["2026-02-23"])
    ] = None

    @property
    def wanted(self) -> BreakFilter:
        return BreakFilter(self.state, self.kind, self.wallet_id, self.operation_id, self.day)


class BreakReasonRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["A repair by hand that is not finished yet"])]


@router.get(
    "/breaks",
    response_model=PageView[BreakView],
    summary="Where the books disagree, newest first",
    description="By state, kind, wallet, operation and day.",
)
async def list_breaks(
    query: Annotated[BreaksQuery, Query()],
    user: Annotated[Caller, require(Permission.LEDGER_ADMIN)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "breaks", user.user_id, str)
    found = await breaks.list_breaks(query.wanted, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda one: one.id, break_view)


@router.get(
    "/breaks/{break_id}",
    response_model=BreakView,
    summary="One break",
    description="What was expected, what was found in its place, since when, and what was said of it.",
)
async def get_break(break_id: _BreakId, _user: Annotated[Caller, require(Permission.LEDGER_ADMIN)]) -> Response:
    return _shape(await breaks.get_break(break_id))


@router.post(
    "/breaks/{break_id}/explain",
    response_model=BreakView,
    responses=problem_responses(SecondAdminRequired, IllegalTransition),
    summary="Say why the books disagree",
    description="Of an open break. From here on its wallet may be thawed, though it goes on until it is resolved.",
)
async def explain_break(
    body: BreakReasonRequest,
    break_id: _BreakId,
    user: Annotated[Caller, require(Permission.LEDGER_ADMIN)],
    resources: OpenResources,
) -> Response:
    client = resources.databases.client
    return _shape(await breaks.explain_break(client, user.user_id, break_id, body.reason, correlation_id.get()))


@router.post(
    "/breaks/{break_id}/resolve",
    response_model=BreakView,
    responses=problem_responses(SecondAdminRequired, IllegalTransition),
    summary="Close a break for good",
    description="Of an open or an explained one. Where our own books disagree still, the next look opens a new one; of "
    "what the bank has moved, only where the facts have changed since.",
)
async def resolve_break(
    body: BreakReasonRequest,
    break_id: _BreakId,
    user: Annotated[Caller, require(Permission.LEDGER_ADMIN)],
    resources: OpenResources,
) -> Response:
    client = resources.databases.client
    return _shape(await breaks.resolve_break(client, user.user_id, break_id, body.reason, correlation_id.get()))


def _shape(one: Break) -> Response:
    return json_response(break_view(one))
