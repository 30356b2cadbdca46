"""Incidents over HTTP, for admins."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Reason
from service.controllers.pagination import CreatedFrom, CreatedTo, PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View, problem_responses
from service.domain.incidents import Incident, IncidentKind, IncidentStatus, SaidEvent, incident_view
from service.domain.permissions import Permission
from service.errors import AccountDeactivated, IllegalTransition, LedgerBusy, SecondAdminRequired
from service.services import incidents
from service.services.callers import Caller
from service.services.incidents import IncidentFilter
from service.services.records import get_record
from service.startup import Resources

router = api_router("Outcomes", prefix="/admin/incidents")

_IncidentId = Annotated[str, Path(max_length=64, examples=["inc_9f86d081884c7d659a2feaa0c55ad015"])]
_Admin = Annotated[Caller, require(Permission.LEDGER_ADMIN)]

_EXAMPLE: dict[str, Any] = {
    "id": "inc_9f86d081884c7d659a2feaa0c55ad015",
    "kind": "failure_after_success",
    "status": "open",
    "reference": "wdr_0198c0ffee0070008000000000000001",
    "operation_id": "wdr_0198c0ffee0070008000000000000001",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "said": {
        "event": "payment.settled",
        "status": "failed",
        "amount": 10000,
        "currency": "INR",
        "bank_reference": "bank_5f0c3e1b9a7d4c2e",
        "code": "declined",
        "message": "The bank declined the order",
        "callback_id": "msg_5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
    },
    "stands": {
        "status": "success",
        "amount": 10000,
        "currency": "INR",
        "bank_reference": "bank_5f0c3e1b9a7d4c2e",
        "return_id": None,
    },
    "note": None,
    "decided_by": None,
    "decided_at": None,
    "request_id": "5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T12:34:56.789Z",
}


class SaidView(View):
    """The bank's words. Amount and currency are null where it refused an order as such."""

    event: SaidEvent
    status: str | None
    amount: int | None = Field(ge=1)
    currency: str | None
    bank_reference: str | None
    code: str | None
    message: str | None
    callback_id: str | None = Field(description="The webhook-id; null where it was an answer")


class StandsView(View):
    """What stood here when it was said, and stands still where it is final."""

    status: str
    amount: int = Field(ge=1)
    currency: str
    bank_reference: str | None
    return_id: str | None


class IncidentView(View):
    """What the bank said that cannot be, given how things stand. It has moved no money."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    kind: IncidentKind
    status: IncidentStatus
    reference: str = Field(description="The bank's word for what it speaks of")
    operation_id: str | None = Field(description="null where the reference is nobody's, and so are the next two")
    user_id: str | None
    wallet_id: str | None
    said: SaidView
    stands: StandsView | None
    note: str | None = Field(description="The reason of who explained or resolved it last")
    decided_by: str | None
    decided_at: str | None
    request_id: str | None
    created_at: str
    updated_at: str


class ExplanationRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["The bank confirms: a report of another customer's order"])]


class IncidentsQuery(PageQuery):
    status: IncidentStatus | None = None
    kind: Annotated[IncidentKind | None, Field(description="Only those of this kind")] = None
    reference: Annotated[
        str | None,
        Field(
            max_length=64,
            description="Only what was said of this one",
            examples=["wdr_0198c0ffee0070008000000000000001"],
        ),
    ] = None
    created_from: CreatedFrom = None
    created_to: CreatedTo = None

    @property
    def wanted(self) -> IncidentFilter:
        return IncidentFilter(self.status, self.kind, self.reference, self.created_from, self.created_to)


_DECISION: dict[str, Any] = {
    "response_model": IncidentView,
    "responses": problem_responses(AccountDeactivated, SecondAdminRequired, IllegalTransition, LedgerBusy),
}


@router.get(
    "",
    response_model=PageView[IncidentView],
    summary="Where the bank contradicts the books, newest first",
    description="By status, kind, reference and time. The same words about the same reference are one incident.",
)
async def list_incidents(query: Annotated[IncidentsQuery, Query()], user: _Admin, resources: OpenResources) -> Response:
    page = open_page(query, resources.settings, "incidents", user.user_id, str)
    found = await incidents.list_incidents(query.wanted, before=page.position, limit=page.limit_and_one)
    return page_of(found, page, incidents.position_of, incident_view)


@router.get(
    "/{incident_id}",
    response_model=IncidentView,
    summary="One incident",
    description="What was said, and what stood here.",
)
async def get_incident(incident_id: _IncidentId, _user: _Admin) -> Response:
    return _shape(await get_record(incident_id, Incident))


@router.post(
    "/{incident_id}/explain",
    **_DECISION,
    summary="Say how an incident came to be",
    description="From `open` only. What has to be put right still has to be; the reason stays in the audit events.",
)
async def explain_incident(
    body: ExplanationRequest, incident_id: _IncidentId, user: _Admin, resources: OpenResources
) -> Response:
    return await _decide(incident_id, IncidentStatus.EXPLAINED, body, user, resources)


@router.post(
    "/{incident_id}/resolve",
    **_DECISION,
    summary="Say that an incident is put right",
    description="For good. The reason stays in the audit events.",
)
async def resolve_incident(
    body: ExplanationRequest, incident_id: _IncidentId, user: _Admin, resources: OpenResources
) -> Response:
    return await _decide(incident_id, IncidentStatus.RESOLVED, body, user, resources)


async def _decide(
    incident_id: str, status: IncidentStatus, body: ExplanationRequest, user: Caller, resources: Resources
) -> Response:
    incident = await incidents.decide_incident(
        resources.ledger, user.requester, incident_id, status, body.reason, correlation_id.get()
    )
    return _shape(incident)


def _shape(incident: Incident) -> Response:
    return json_response(incident_view(incident))
