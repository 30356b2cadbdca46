"""Access proposals over HTTP: what one admin asked for and another confirms."""

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
from service.domain.permissions import Permission
from service.domain.proposals import AccessProposal, ProposalKind, ProposalStatus, proposal_view
from service.errors import ApiKeyEnded, Forbidden, IllegalTransition, OwnAccount, SecondAdminRequired, TotpNotEnrolled
from service.services import proposals
from service.services.callers import Caller

router = api_router("Access proposals", prefix="/admin")

_ProposalId = Annotated[str, Path(max_length=64, examples=["prp_0198c0ffee0070008000000000000001"])]
_UserId = Annotated[str, Path(max_length=64, examples=["usr_0198c0ffee0070008000000000000001"])]
_Admin = Annotated[Caller, require(Permission.USERS_ADMIN)]

_EXAMPLE: dict[str, Any] = {
    "id": "prp_0198c0ffee0070008000000000000001",
    "kind": "roles",
    "status": "requires_approval",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "roles": ["user", "service"],
    "was_roles": ["user"],
    "api_key_id": None,
    "permissions": [],
    "capture_to": [],
    "reason": "Integrates the shop",
    "requested_by": "usr_0198c0ffee0070008000000000000002",
    "decided_by": None,
    "decided_at": None,
    "rejection_reason": None,
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T12:34:56.789Z",
}


class AccessProposalView(View):
    """What one admin asked for; nothing changes until another one approves it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    kind: ProposalKind
    status: ProposalStatus
    user_id: str = Field(description="Whose access changes; of a key, as whom it acts")
    roles: list[str] = Field(description="Of kind `roles`: the roles afterwards")
    was_roles: list[str]
    api_key_id: str | None
    permissions: list[str] = Field(description="Of a key: what it may do")
    capture_to: list[str] = Field(description="Of a key: the wallets to which it captures holds of others")
    reason: str | None
    requested_by: str
    decided_by: str | None
    decided_at: str | None = TIME
    rejection_reason: str | None
    created_at: str = TIME
    updated_at: str = TIME


class ProposalsQuery(PageQuery):
    status: ProposalStatus | None = None


class ProposalRejection(StrictModel):
    reason: Annotated[Reason, Field(examples=["Nobody of that name works here"])]


class TotpRemovalRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["Lost the telephone, and showed an identity card"])]


@router.get(
    "/proposals",
    response_model=PageView[AccessProposalView],
    summary="All access proposals, newest first",
    description="With `status=requires_approval`, what waits for a second admin.",
)
async def list_proposals(query: Annotated[ProposalsQuery, Query()], user: _Admin, resources: OpenResources) -> Response:
    page = open_page(query, resources.settings, "proposals", user.user_id, str)
    found = await proposals.list_proposals(query.status, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda proposal: proposal.id, proposal_view)


@router.get(
    "/proposals/{proposal_id}",
    response_model=AccessProposalView,
    summary="One access proposal",
    description="What was asked for, by whom and why, and what became of it.",
)
async def get_proposal(proposal_id: _ProposalId, _user: _Admin) -> Response:
    return _shape(await proposals.get_proposal(proposal_id))


@router.post(
    "/proposals/{proposal_id}/approve",
    response_model=AccessProposalView,
    responses=problem_responses(Forbidden, SecondAdminRequired, IllegalTransition, ApiKeyEnded, TotpNotEnrolled),
    summary="Approve what another admin asked for",
    description="It is done at once. Nobody approves what they asked for themselves, what is about their own account, "
    "or what comes from a relative: somebody whom they gave a role, who gave them one, or to whom the same admin gave "
    "one, at first or second hand. What no longer fits is refused and goes on waiting: reject it, and ask anew.",
)
async def approve_proposal(proposal_id: _ProposalId, user: _Admin, resources: OpenResources) -> Response:
    client = resources.databases.client
    return _shape(await proposals.approve_proposal(client, user, proposal_id, correlation_id.get()))


@router.post(
    "/proposals/{proposal_id}/reject",
    response_model=AccessProposalView,
    responses=problem_responses(IllegalTransition),
    summary="Reject an access proposal, one's own too",
    description="Nothing changes; a key that waits for it is revoked. The reason stays with it.",
)
async def reject_proposal(
    body: ProposalRejection, proposal_id: _ProposalId, user: _Admin, resources: OpenResources
) -> Response:
    client = resources.databases.client
    return _shape(await proposals.reject_proposal(client, user, proposal_id, body.reason, correlation_id.get()))


@router.post(
    "/users/{user_id}/totp/remove",
    status_code=202,
    response_model=AccessProposalView,
    responses=problem_responses(Forbidden, OwnAccount, TotpNotEnrolled),
    summary="Ask to remove somebody's authenticator app",
    description="For a user who has lost it. Another admin has to approve it; the user is then told by mail.",
)
async def propose_totp_removal(
    body: TotpRemovalRequest, user_id: _UserId, user: _Admin, resources: OpenResources
) -> Response:
    client = resources.databases.client
    proposed = await proposals.propose_totp_removal(client, user, user_id, body.reason, correlation_id.get())
    return _shape(proposed, 202)


def _shape(proposal: AccessProposal, status_code: int = 200) -> Response:
    return json_response(proposal_view(proposal), status_code)
