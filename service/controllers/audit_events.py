"""Audit events over HTTP."""

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import ConfigDict, Field

from service.controllers.dependencies import OpenResources, require
from service.controllers.pagination import CreatedFrom, CreatedTo, PageQuery, open_page, page_of
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View
from service.domain.audit_events import AuditAction, audit_event_view
from service.domain.permissions import Permission
from service.services import audit_events
from service.services.audit_events import AuditFilter
from service.services.callers import Caller

router = api_router("Admin", prefix="/admin")

_EXAMPLE: dict[str, Any] = {
    "id": "aud_0198c0ffee0070008000000000000001",
    "at": "2026-02-24T12:34:56.789Z",
    "actor_id": "usr_0198c0ffee0070008000000000000001",
    "action": "wallet.frozen",
    "subject_id": "wal_0198c0ffee0070008000000000000001",
    "reason": "Reported as stolen",
    "details": {"direction": "out", "was": "active"},
    "request_id": "5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
}


class AuditEventView(View):
    """What somebody did, to what and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    at: str = Field(json_schema_extra={"format": "date-time"})
    actor_id: str
    action: AuditAction
    subject_id: str = Field(description="A wallet, an adjustment, a transfer")
    reason: str | None
    details: dict[str, str | int | bool | None] = Field(description="Facts about it, by action")
    request_id: str | None


_Id = Annotated[str | None, Field(max_length=64)]


class AuditEventsQuery(PageQuery):
    action: Annotated[AuditAction | None, Field(description="What was done")] = None
    subject_id: _Id = None
    actor_id: _Id = None
    created_from: CreatedFrom = None
    created_to: CreatedTo = None

    @property
    def wanted(self) -> AuditFilter:
        return AuditFilter(self.action, self.subject_id, self.actor_id, self.created_from, self.created_to)


@router.get(
    "/audit-events",
    response_model=PageView[AuditEventView],
    summary="What admins and services did, newest first",
    description="By action, subject, actor and time. They can be added to, never changed.",
)
async def list_audit_events(
    query: Annotated[AuditEventsQuery, Query()],
    user: Annotated[Caller, require(Permission.AUDIT_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "audit_events", user.user_id, str)
    found = await audit_events.list_audit_events(query.wanted, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda event: event.id, audit_event_view)
