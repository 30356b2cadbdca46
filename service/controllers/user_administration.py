"""Other people's accounts over HTTP, for admins."""

from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.controllers.auth import EMAIL_LENGTH_LIMIT
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Reason
from service.controllers.pagination import CreatedFrom, CreatedTo, PageQuery, open_page, page_of
from service.controllers.proposals import AccessProposalView
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, UserView, problem_responses
from service.controllers.users import user_view
from service.documents import User
from service.domain.clock import to_rfc3339
from service.domain.permissions import Permission, Role
from service.domain.proposals import AccessProposal, proposal_view
from service.errors import Forbidden, OwnAccount, UserLockedDown
from service.services import user_administration
from service.services.callers import Caller
from service.services.user_administration import UserFilter

router = api_router("User administration", prefix="/admin")

_UserId = Annotated[str, Path(max_length=64, examples=["usr_0198c0ffee0070008000000000000001"])]
_Admin = Annotated[Caller, require(Permission.USERS_ADMIN)]
_REPEATABLE = "What is so already stays so, and answers 200 with the user. Nobody does it to their own account."

_EXAMPLE: dict[str, Any] = {
    "id": "usr_0198c0ffee0070008000000000000001",
    "email": "asha@example.com",
    "first_name": "Asha",
    "last_name": "Rao",
    "roles": ["user"],
    "is_active": False,
    "is_email_verified": True,
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-25T09:00:00.000Z",
}


def _each_once(roles: list[Role]) -> list[Role]:
    if len(set(roles)) != len(roles):
        raise PydanticCustomError("repeated", "Send each role once")
    return roles


class StandingChange(StrictModel):
    reason: Annotated[Reason, Field(examples=["Asked for it on the telephone"])]


class RolesRequest(StrictModel):
    """In place of the roles before."""

    roles: Annotated[
        list[Annotated[Role, Field(strict=False)]],
        Field(
            min_length=1, max_length=len(Role), json_schema_extra={"uniqueItems": True}, examples=[["user", "service"]]
        ),
        AfterValidator(_each_once),
    ]
    reason: Annotated[Reason, Field(examples=["Integrates the shop"])]


class UsersQuery(PageQuery):
    email: Annotated[
        str | None, Field(max_length=EMAIL_LENGTH_LIMIT, description="All of it", examples=["asha@example.com"])
    ] = None
    role: Annotated[Role | None, Field(description="Who has it, alone or with others")] = None
    is_active: Annotated[bool | None, Field(description="false: who is deactivated")] = None
    created_from: CreatedFrom = None
    created_to: CreatedTo = None

    @property
    def wanted(self) -> UserFilter:
        return UserFilter(self.email, self.role, self.is_active, self.created_from, self.created_to)


class AdministeredUserView(UserView):
    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    updated_at: str = Field(json_schema_extra={"format": "date-time"})


_CHANGE: dict[str, Any] = {
    "response_model": AdministeredUserView,
    "responses": problem_responses(Forbidden, OwnAccount),
}


@router.get(
    "/users",
    response_model=PageView[AdministeredUserView],
    summary="All users, newest first",
    description="By e-mail, role, whether they are active, and the time of their registration.",
)
async def list_users(query: Annotated[UsersQuery, Query()], user: _Admin, resources: OpenResources) -> Response:
    page = open_page(query, resources.settings, "users", user.user_id, str)
    found = await user_administration.list_users(query.wanted, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda one: one.id, _view)


@router.get(
    "/users/{user_id}",
    response_model=AdministeredUserView,
    summary="One user",
    description="As the account is now.",
)
async def get_user(user_id: _UserId, _user: _Admin) -> Response:
    return _shape(await user_administration.get_user(user_id))


@router.post(
    "/users/{user_id}/deactivate",
    **_CHANGE,
    summary="Shut somebody out",
    description="Their tokens and API keys end at once. They can neither log in nor begin anything; what is under way "
    f"ends as it would, and what comes back goes into their wallet. {_REPEATABLE}",
)
async def deactivate_user(body: StandingChange, user_id: _UserId, user: _Admin, resources: OpenResources) -> Response:
    client = resources.databases.client
    return _shape(await user_administration.deactivate_user(client, user, user_id, body.reason, correlation_id.get()))


@router.post(
    "/users/{user_id}/reactivate",
    response_model=AdministeredUserView,
    responses=problem_responses(Forbidden, OwnAccount, UserLockedDown),
    summary="Let somebody in again",
    description="They have to log in anew; API keys that were not revoked work again. Not while a lockdown stands. "
    f"{_REPEATABLE}",
)
async def reactivate_user(body: StandingChange, user_id: _UserId, user: _Admin, resources: OpenResources) -> Response:
    client = resources.databases.client
    return _shape(await user_administration.reactivate_user(client, user, user_id, body.reason, correlation_id.get()))


@router.put(
    "/users/{user_id}/roles",
    response_model=AdministeredUserView,
    responses={
        **_CHANGE["responses"],
        202: {
            "model": AccessProposalView,
            "description": "It gives `admin` or `service`: another admin has to approve it",
        },
    },
    summary="Say which roles somebody has",
    description="Where one is taken away, their tokens end at once; a new one is in the next token. What gives `admin` "
    f"or `service` changes nothing before another admin approves it. {_REPEATABLE}",
)
async def set_roles(body: RolesRequest, user_id: _UserId, user: _Admin, resources: OpenResources) -> Response:
    client = resources.databases.client
    after = await user_administration.set_roles(client, user, user_id, body.roles, body.reason, correlation_id.get())
    if isinstance(after, AccessProposal):
        return json_response(proposal_view(after), 202)
    return _shape(after)


def _view(user: User) -> dict[str, Any]:
    return user_view(user) | {"updated_at": to_rfc3339(user.updated_at)}


def _shape(user: User) -> Response:
    return json_response(_view(user))
