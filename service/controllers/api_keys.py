"""API keys of services over HTTP, for admins."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import PrintableAndVisible, Reason
from service.controllers.pagination import PageQuery, QueryTime, open_page, page_of
from service.controllers.pagination import Query as StrictQuery
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View, problem_responses
from service.domain.api_keys import LONGEST_OVERLAP, ApiKey, KeyStatus, api_key_view
from service.domain.clock import utc_now
from service.domain.permissions import KEY_PERMISSIONS, Permission
from service.errors import ApiKeyEnded, NotFound, UserIsNoService
from service.services import api_keys
from service.services.api_keys import IssuedKey, KeyOrder
from service.services.callers import Caller

router = api_router("API keys", prefix="/admin")

_KeyId = Annotated[str, Path(max_length=64, examples=["key_0198c0ffee0070008000000000000001"])]
_WalletId = Annotated[str, Field(min_length=1, max_length=64, examples=["wal_0198c0ffee0070008000000000000001"])]
# A shop has a wallet or two in each currency.
_CAPTURE_TO_LIMIT = 20
_Admin = Annotated[Caller, require(Permission.API_KEYS_ADMIN)]

_EXAMPLE: dict[str, Any] = {
    "id": "key_0198c0ffee0070008000000000000001",
    "user_id": "usr_0198c0ffee0070008000000000000001",
    "name": "Shop, till 4",
    "prefix": "wsk_k4nq7x2p",
    "permissions": ["holds:read", "holds:write"],
    "capture_to": [],
    "status": "active",
    "created_by": "usr_0198c0ffee0070008000000000000002",
    "makers": ["usr_0198c0ffee0070008000000000000002", "usr_0198c0ffee0070008000000000000003"],
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T12:34:56.789Z",
    "expires_at": "2027-02-24T00:00:00.000Z",
    "previous_secret_until": None,
    "last_used_at": None,
    "revoked_at": None,
}
_TEXT = "wsk_k4nq7x2p_3f1d0c2b5a49687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f001"
_TIME: Any = {"json_schema_extra": {"format": "date-time"}}


def _in_milliseconds(moment: datetime) -> datetime:
    # As the database keeps it: what is answered must not differ from what is read later.
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _of_a_service(permission: Permission) -> Permission:
    if permission not in KEY_PERMISSIONS:
        raise PydanticCustomError("not_for_keys", "Send a permission that services have")
    return permission


def _each_once(permissions: list[Permission]) -> list[Permission]:
    if len(set(permissions)) != len(permissions):
        raise PydanticCustomError("repeated", "Send each permission once")
    return permissions


_KeyPermission = Annotated[
    Permission,
    Field(strict=False, json_schema_extra={"enum": sorted(KEY_PERMISSIONS)}),
    AfterValidator(_of_a_service),
]


class ApiKeyRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {name: _EXAMPLE[name] for name in ("user_id", "name", "permissions", "expires_at")},
            ]
        }
    )

    user_id: Annotated[
        str, Field(max_length=64, description="Who has the role service", examples=[_EXAMPLE["user_id"]])
    ]
    name: Annotated[str, Field(min_length=1, max_length=100, examples=["Shop, till 4"]), *PrintableAndVisible]
    permissions: Annotated[
        list[_KeyPermission],
        Field(min_length=1, max_length=len(KEY_PERMISSIONS), json_schema_extra={"uniqueItems": True}),
        AfterValidator(_each_once),
    ]
    capture_to: Annotated[
        list[_WalletId],
        Field(
            max_length=_CAPTURE_TO_LIMIT,
            description="With `holds:any`: wallets to which it captures holds of others. Without them, only to the "
            "house or to whom the hold names",
        ),
    ] = Field(default_factory=list)
    expires_at: Annotated[
        Annotated[QueryTime, AfterValidator(_in_milliseconds), Field(strict=False)] | None,
        Field(
            description="Good before this time. Left out: for `WALLET_API_KEY_LIFETIME_S`, 90 days. null, until it is "
            "revoked, and what is later than that take another admin"
        ),
    ] = None

    def order(self, lifetime: timedelta) -> KeyOrder:
        is_named = "expires_at" in self.model_fields_set
        expires_at = self.expires_at if is_named else _in_milliseconds(utc_now() + lifetime)
        return KeyOrder(self.user_id, self.name, tuple(self.permissions), expires_at, tuple(self.capture_to))


class RotationRequest(StrictModel):
    overlap_s: Annotated[
        int,
        Field(
            ge=0,
            le=int(LONGEST_OVERLAP.total_seconds()),
            description="How long the secret before goes on working",
            examples=[3600],
        ),
    ] = 0


class ApiKeysQuery(PageQuery):
    user_id: Annotated[str | None, Field(max_length=64, description="Of this user only")] = None


class RevocationQuery(StrictQuery):
    reason: Annotated[
        Reason | None, Field(description="Why: it stays in the audit events", examples=["The till was stolen"])
    ] = None


class ApiKeyView(View):
    """A key without its secret, which is not known."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    user_id: str = Field(description="As whom it acts")
    name: str
    prefix: str = Field(description="What the secret begins with")
    permissions: list[Permission]
    capture_to: list[str] = Field(description="Wallets to which it captures holds of others")
    status: KeyStatus
    created_by: str
    makers: list[str] = Field(description="Admins who may know a secret of it: it ends with each of them")
    created_at: str = Field(**_TIME)
    updated_at: str = Field(**_TIME)
    expires_at: str | None = Field(**_TIME)
    previous_secret_until: str | None = Field(description="Until then the secret before works too", **_TIME)
    last_used_at: str | None = Field(description="Exact to a minute", **_TIME)
    revoked_at: str | None = Field(**_TIME)


class IssuedKeyView(ApiKeyView):
    """A key with its secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE | {"secret": _TEXT, "proposal_id": None}]})

    secret: str = Field(description="To be sent as `X-API-Key`")
    proposal_id: str | None = Field(description="What another admin has to approve before the secret opens anything")


_WAITING: dict[str, Any] = {
    "model": IssuedKeyView,
    "description": "It does more than read: the secret opens nothing before another admin approves it",
}


@router.post(
    "/api-keys",
    status_code=201,
    response_model=IssuedKeyView,
    responses={**problem_responses(NotFound, UserIsNoService), 202: _WAITING},
    summary="Make an API key for a service; its secret is shown once",
    description="It acts as the user that it names, who needs the role `service`, and may do what it lists. With "
    "any `:write` or `holds:any` it opens nothing before another admin approves the proposal. A key for the admin's "
    "own account waits for one only with `adjustments:write` or `holds:any`, or where it lasts for long. It ends "
    "where one of the admins who made it is deactivated or no admin any more.",
)
async def create_api_key(body: ApiKeyRequest, user: _Admin, resources: OpenResources) -> Response:
    lifetime = timedelta(seconds=resources.settings.api_key_lifetime_s)
    order, client = body.order(lifetime), resources.databases.client
    issued = await api_keys.create_key(client, user, order, correlation_id.get(), lifetime)
    return _show_secret(issued, 201 if issued.proposal_id is None else 202)


@router.get(
    "/api-keys",
    response_model=PageView[ApiKeyView],
    summary="All API keys, newest first",
    description="Revoked and expired ones too; with `user_id`, those of one service.",
)
async def list_api_keys(query: Annotated[ApiKeysQuery, Query()], user: _Admin, resources: OpenResources) -> Response:
    page = open_page(query, resources.settings, "api_keys", user.user_id, str)
    found = await api_keys.list_keys(query.user_id, before_id=page.position, limit=page.limit_and_one)
    now = utc_now()
    return page_of(found, page, lambda key: key.id, lambda key: api_key_view(key, now))


@router.get(
    "/api-keys/{key_id}",
    response_model=ApiKeyView,
    summary="One API key",
    description="What it may do, until when, and when it was last used; never its secret.",
)
async def get_api_key(key_id: _KeyId, _user: _Admin) -> Response:
    return _shape(await api_keys.get_key(key_id))


@router.post(
    "/api-keys/{key_id}/rotate",
    response_model=IssuedKeyView,
    responses={**problem_responses(ApiKeyEnded), 202: _WAITING},
    summary="Give an API key another secret, shown once",
    description="The one before ends at once, or after `overlap_s`; one before that ends at once. Without an overlap "
    "the key is handed over to whoever gives it the secret: it no longer ends with its makers before. Of a key that "
    "takes two admins to make, all that happens once another admin has approved the proposal.",
)
async def rotate_api_key(body: RotationRequest, key_id: _KeyId, user: _Admin, resources: OpenResources) -> Response:
    overlap = timedelta(seconds=body.overlap_s)
    issued = await api_keys.rotate_key(resources.databases.client, user, key_id, overlap, correlation_id.get())
    return _show_secret(issued, 200 if issued.proposal_id is None else 202)


@router.delete(
    "/api-keys/{key_id}",
    response_model=ApiKeyView,
    summary="Revoke an API key, at once and for good",
    description="What is revoked already stays so, and answers 200.",
)
async def revoke_api_key(
    key_id: _KeyId, query: Annotated[RevocationQuery, Query()], user: _Admin, resources: OpenResources
) -> Response:
    client = resources.databases.client
    return _shape(await api_keys.revoke_key(client, user, key_id, query.reason, correlation_id.get()))


def _shape(key: ApiKey) -> Response:
    return json_response(api_key_view(key, utc_now()))


def _show_secret(issued: IssuedKey, status_code: int) -> Response:
    body = api_key_view(issued.key, utc_now()) | {"secret": issued.text, "proposal_id": issued.proposal_id}
    return json_response(body, status_code)
