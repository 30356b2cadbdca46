"""Operations in review over HTTP, for admins: what is known of them, and what people decide."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response, respond
from service.controllers.dependencies import IdempotencyKey, OpenResources, claim_key, require
from service.controllers.fields import Reason
from service.controllers.operations import OperationView
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View, problem_responses
from service.domain.clock import to_rfc3339
from service.domain.operations import BankCall, Verdict, attempt_view, operation_view, proposal_view, release_view
from service.domain.permissions import Permission
from service.errors import (
    AccountDeactivated,
    BalanceOverflow,
    IdempotencyKeyInFlight,
    IllegalTransition,
    LedgerBusy,
    SecondAdminRequired,
    WalletClosed,
)
from service.services import reviews
from service.services.callers import Caller
from service.services.reviews import Reviewed
from service.startup import Resources

router = api_router("Outcomes", prefix="/admin")

_OperationId = Annotated[str, Path(max_length=64, examples=["wdr_0198c0ffee0070008000000000000001"])]
_Reader = Annotated[Caller, require(Permission.LEDGER_ADMIN)]
_Decider = Annotated[Caller, require(Permission.ADJUSTMENTS_ADMIN)]

_OPERATION: dict[str, Any] = {
    "id": "wdr_0198c0ffee0070008000000000000001",
    "type": "withdrawal",
    "status": "requires_review",
    "amount": 10000,
    "currency": "INR",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "destination": "•••• 0001",
    "category": None,
    "description": None,
    "metadata": {},
    "failure_code": "bank_outcome_unknown",
    "failure_message": "The bank gave no outcome in 15 attempts",
    "bank_reference": None,
    "return_id": None,
    "returned_at": None,
    "expected_by": "2026-02-24T12:35:56.789Z",
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T14:04:56.789Z",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "proposal": {
        "verdict": "fail",
        "by": "usr_0198c0ffee0070008000000000000002",
        "reason": "The bank says on the telephone that it never got it",
        "at": "2026-02-24T15:00:00.000Z",
    },
}
_EXAMPLE: dict[str, Any] = _OPERATION | {
    "attempts": 1,
    "release": None,
    "attempt_log": [
        {
            "at": "2026-02-24T12:34:56.900Z",
            "call": "submit",
            "outcome": "no answer from the bank in time",
            "ended_at": "2026-02-24T12:35:10.000Z",
        },
        {
            "at": "2026-02-24T12:35:10.000Z",
            "call": "find",
            "outcome": "bank_outcome_unknown",
            "ended_at": "2026-02-24T14:04:56.789Z",
        },
    ],
    "last_word": {
        "callback_id": "msg_5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
        "said": {"type": "payment.settled", "status": "success", "amount": 9999, "currency": "INR"},
        "received_at": "2026-02-24T12:40:00.000Z",
        "result": "requires_review",
    },
}


class ProposalView(View):
    """What one admin wants to become of it, while it takes another one to say the same."""

    verdict: Verdict
    by: str
    reason: str
    at: str = Field(json_schema_extra={"format": "date-time"})


class DecidedView(OperationView):
    """An operation with whose it is. A deposit has `source` in place of `destination`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_OPERATION]})

    source: str | None = None
    destination: str | None = None
    user_id: str
    proposal: ProposalView | None


class AttemptView(View):
    """A call to the bank, noted before it was made."""

    at: str = Field(json_schema_extra={"format": "date-time"})
    call: BankCall
    outcome: str | None = Field(description="How it ended, as far as something was written since; null until then")
    ended_at: str | None


class LastWordView(View):
    """The callback that was received last, as it came."""

    callback_id: str
    said: dict[str, Any]
    received_at: str = Field(json_schema_extra={"format": "date-time"})
    result: str | None = Field(description="What became of it; null while it waits to be applied")


class ReleaseView(View):
    """Who let it go to the bank after it had been blocked, and what still stood against it then."""

    by: str
    reason: str
    at: str = Field(json_schema_extra={"format": "date-time"})
    despite_freeze: bool
    despite_deactivation: bool


class AdministeredOperationView(DecidedView):
    """An operation with its calls to the bank, and what the bank said of it last."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    attempts: int = Field(ge=0, description="How often it was submitted")
    attempt_log: list[AttemptView] = Field(description="The last 20 calls of either kind, oldest first")
    last_word: LastWordView | None
    release: ReleaseView | None = Field(description="Of a withdrawal that had been blocked")


class ReviewsQuery(PageQuery):
    """Only pages: what waits for a person should be a short list."""


class DecisionRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The bank says on the telephone that it never got it"])]


_DECISION: dict[str, Any] = {
    "response_model": DecidedView,
    "responses": {
        **problem_responses(
            AccountDeactivated,
            SecondAdminRequired,
            IllegalTransition,
            IdempotencyKeyInFlight,
            BalanceOverflow,
            WalletClosed,
            LedgerBusy,
        ),
        202: {"model": DecidedView, "description": "Above the set amount: another admin has to say the same"},
    },
}
_ONE_WINNER = (
    "Nobody decides about their own money. Of two who decide, or a person and the bank's late word, the first one "
    "counts; the other finds it ended (`illegal_transition`), and what the bank says then is an incident."
)


@router.get(
    "/reviews",
    response_model=PageView[AdministeredOperationView],
    summary="Operations that wait for a person, oldest first",
    description="With why, each call to the bank, and what it said last. The money stays where it is meanwhile.",
)
async def list_reviews(query: Annotated[ReviewsQuery, Query()], user: _Reader, resources: OpenResources) -> Response:
    page = open_page(query, resources.settings, "reviews", user.user_id, str)
    found = await reviews.list_reviews(after=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda one: reviews.position_of(one.operation), administered_view)


@router.get(
    "/operations/{operation_id}",
    response_model=AdministeredOperationView,
    summary="Anybody's deposit or withdrawal",
    description="In whatever state, with each call to the bank, and what it said last.",
)
async def get_administered_operation(operation_id: _OperationId, _user: _Reader) -> Response:
    return json_response(administered_view(await reviews.get_operation(operation_id)))


@router.post(
    "/reviews/{operation_id}/settle",
    **_DECISION,
    summary="Say that the bank has carried it out",
    description=f"A withdrawal's money leaves, a deposit's arrives. {_ONE_WINNER}",
)
async def settle_review(
    body: DecisionRequest, operation_id: _OperationId, user: _Decider, key: IdempotencyKey, resources: OpenResources
) -> Response:
    return await _decide(Verdict.SETTLE, body, operation_id, user, key, resources)


@router.post(
    "/reviews/{operation_id}/fail",
    **_DECISION,
    summary="Say that the bank has not carried it out",
    description=f"A withdrawal's money is available again. {_ONE_WINNER}",
)
async def fail_review(
    body: DecisionRequest, operation_id: _OperationId, user: _Decider, key: IdempotencyKey, resources: OpenResources
) -> Response:
    return await _decide(Verdict.FAIL, body, operation_id, user, key, resources)


@router.post(
    "/reviews/{operation_id}/ask-again",
    status_code=202,
    response_model=DecidedView,
    responses=problem_responses(
        AccountDeactivated, SecondAdminRequired, IllegalTransition, IdempotencyKeyInFlight, LedgerBusy
    ),
    summary="Have the bank asked again",
    description="Back to `processing`: asked by reference, submitted under the same one where the bank never got it, "
    "and with a person again when it goes on saying nothing.",
)
async def ask_again(
    body: DecisionRequest, operation_id: _OperationId, user: _Decider, key: IdempotencyKey, resources: OpenResources
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await reviews.ask_again(
        resources.ledger, user.requester, operation_id, body.reason, claim, correlation_id.get()
    )
    return respond(answer)


async def _decide(
    verdict: Verdict, body: DecisionRequest, operation_id: str, user: Caller, key: IdempotencyKey, resources: Resources
) -> Response:
    claim = claim_key(resources, user.user_id, key)
    answer = await reviews.decide_review(
        resources.ledger, user.requester, operation_id, verdict, body.reason, claim, correlation_id.get()
    )
    return respond(answer)


def administered_view(reviewed: Reviewed) -> dict[str, Any]:
    """The operation as AdministeredOperationView has it."""
    operation, word = reviewed
    return operation_view(operation) | {
        "user_id": operation.user_id,
        "proposal": proposal_view(operation.proposal),
        "attempts": operation.attempts,
        "release": release_view(operation.release),
        "attempt_log": [attempt_view(attempt) for attempt in operation.attempt_log],
        "last_word": None
        if word is None
        else {
            "callback_id": word["_id"],
            "said": word["payload"],
            "received_at": to_rfc3339(word["received_at"]),
            "result": word.get("result"),
        },
    }
