"""Webhook endpoints over HTTP: where users want to be told of their events, and what was sent there."""

from datetime import timedelta
from typing import Annotated, Any, Self

from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Printable
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View, problem_responses
from service.domain.events import EventType
from service.domain.permissions import Permission
from service.domain.webhook_deliveries import (
    DeliveryStatus,
    WebhookDelivery,
    listed_delivery_view,
    webhook_delivery_view,
)
from service.domain.webhook_endpoints import (
    LONGEST_OVERLAP,
    USUAL_OVERLAP,
    DisabledReason,
    EndpointStatus,
    WebhookEndpoint,
    webhook_endpoint_view,
)
from service.domain.webhook_urls import LENGTH_LIMIT
from service.errors import (
    InvalidFields,
    NotFound,
    TooManyWebhookEndpoints,
    WebhookEndpointDisabled,
    WebhookTestPending,
)
from service.services import webhook_deliveries, webhook_endpoints
from service.services.callers import Caller
from service.services.webhook_deliveries import DeliveryFilter, Sender
from service.services.webhook_endpoints import EndpointOrder, IssuedEndpoint, Registrar
from service.startup import Resources

router = api_router("Webhook endpoints", prefix="/webhook-endpoints")

_EndpointId = Annotated[str, Path(max_length=64, examples=["whe_0198c0ffee0070008000000000000001"])]
_DeliveryId = Annotated[str, Path(max_length=64, examples=["whd_0198c0ffee0070008000000000000001"])]
_Reader = Annotated[Caller, require(Permission.WEBHOOKS_READ)]
_Writer = Annotated[Caller, require(Permission.WEBHOOKS_WRITE)]
# Whoever says where events are told, and which, could read them there.
_Teller = Annotated[Caller, require(Permission.WEBHOOKS_WRITE, Permission.EVENTS_READ)]

_ENDPOINT: dict[str, Any] = {
    "id": "whe_0198c0ffee0070008000000000000001",
    "url": "https://shop.example/wallet-events",
    "event_types": ["withdrawal.succeeded", "withdrawal.failed"],
    "description": "The shop's books",
    "status": "active",
    "disabled_reason": None,
    "disabled_at": None,
    "previous_secret_until": None,
    "last_delivered_at": "2026-02-24T12:34:56.789Z",
    "created_at": "2026-02-24T12:34:56.789Z",
    "updated_at": "2026-02-24T12:34:56.789Z",
}
# Of 32 zeros: nobody's.
_SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="  # noqa: S105 an example
_DELIVERY: dict[str, Any] = {
    "id": "whd_0198c0ffee0070008000000000000001",
    "endpoint_id": _ENDPOINT["id"],
    "event_id": "evt_0198c0ffee0070008000000000000001",
    "event_type": "withdrawal.succeeded",
    "status": "pending",
    "attempts": 1,
    "tries": [
        {
            "at": "2026-02-24T12:34:57.012Z",
            "duration_ms": 231,
            "code": 503,
            "error": "status_not_2xx",
            "response": "maintenance",
        }
    ],
    "next_try_at": "2026-02-24T12:35:02.345Z",
    "delivered_at": None,
    "created_at": "2026-02-24T12:34:56.789Z",
}
_TIME: Any = {"json_schema_extra": {"format": "date-time"}}


def _each_once(types: list[EventType]) -> list[EventType]:
    if len(set(types)) != len(types):
        raise PydanticCustomError("repeated", "Send each type once")
    return types


_Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LENGTH_LIMIT,
        description="https, at a host that has public addresses only; without user, password or fragment",
        examples=[_ENDPOINT["url"]],
    ),
]
_EventTypes = Annotated[
    list[Annotated[EventType, Field(strict=False)]],
    Field(min_length=1, max_length=len(EventType), json_schema_extra={"uniqueItems": True}),
    AfterValidator(_each_once),
]
_Wanted = Annotated[
    _EventTypes | None, Field(description="Null: all, new ones too", examples=[_ENDPOINT["event_types"]])
]
_Description = Annotated[
    Annotated[str, Field(max_length=256), *Printable] | None, Field(examples=[_ENDPOINT["description"]])
]


class EndpointRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{name: _ENDPOINT[name] for name in ("url", "event_types", "description")}]}
    )

    url: _Url
    event_types: _Wanted = None
    description: _Description = None

    @property
    def order(self) -> EndpointOrder:
        return EndpointOrder(self.url, self.event_types, self.description)


class EndpointChanges(StrictModel):
    """What is not sent stays; null takes the description away, and the selection of types."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "disabled"}]})

    url: _Url | None = None
    event_types: _Wanted = None
    description: _Description = None
    status: Annotated[
        Annotated[EndpointStatus, Field(strict=False)] | None,
        Field(description="What waits for an endpoint is canceled when it is disabled"),
    ] = None

    @model_validator(mode="after")
    def _keeps_what_every_endpoint_has(self) -> Self:
        for name in ("url", "status"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class SecretRotationRequest(StrictModel):
    overlap_s: Annotated[
        int,
        Field(
            ge=0,
            le=int(LONGEST_OVERLAP.total_seconds()),
            description="How long the secret before signs beside the new one",
            examples=[86400],
        ),
    ] = int(USUAL_OVERLAP.total_seconds())


class DeliveriesQuery(PageQuery):
    status: Annotated[DeliveryStatus | None, Field(description="Only those with this status")] = None
    event_type: Annotated[
        str | None, Field(max_length=64, description="Only those of this type", examples=["withdrawal.succeeded"])
    ] = None


class WebhookEndpointView(View):
    """An endpoint without its secret, which is shown when it is made."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ENDPOINT]})

    id: str
    url: str
    event_types: list[str] | None = Field(description="Null: all")
    description: str | None
    status: EndpointStatus
    disabled_reason: DisabledReason | None = Field(
        description="`gone`: it answered 410. `failing`: it has taken nothing for as long as one delivery is tried. "
        "`locked_down`: its owner was locked down"
    )
    disabled_at: str | None = Field(**_TIME)
    previous_secret_until: str | None = Field(description="Until then the secret before signs too", **_TIME)
    last_delivered_at: str | None = Field(**_TIME)
    created_at: str = Field(**_TIME)
    updated_at: str = Field(**_TIME)


class IssuedEndpointView(WebhookEndpointView):
    """An endpoint with its secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ENDPOINT | {"secret": _SECRET}]})

    secret: str = Field(description="As Standard Webhooks has it: `whsec_` and base64 of 32 random bytes")


class TryView(View):
    at: str = Field(**_TIME)
    duration_ms: int = Field(ge=0)
    code: int | None = Field(description="What was answered; null where nothing was")
    error: str | None = Field(
        description="Why it does not count as delivered: `held_back` (its user has had too many in this "
        "hour, so it waits), `status_not_2xx`, `redirect_refused`, `timeout`, "
        "`connection_failed`, `tls_failed`, `protocol_error`, `address_refused`"
    )
    response: str | None = Field(
        description="The beginning of the answer's body; invisible characters written out. In lists only of the "
        "last try"
    )


class WebhookDeliveryView(View):
    """One event on its way to one endpoint; its id is sent as `webhook-id`, each time the same."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DELIVERY]})

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    status: DeliveryStatus
    attempts: int = Field(ge=0, description="Since it was queued, or sent again")
    tries: list[TryView] = Field(description="The latest 30, oldest first")
    next_try_at: str | None = Field(description="While it is pending", **_TIME)
    delivered_at: str | None = Field(**_TIME)
    created_at: str = Field(**_TIME)


class EventDataView(View):
    """`event_id` is the same in each delivery of the event; `sequence` counts the wallet's events without gaps."""

    event_id: str = Field(examples=["evt_0198c0ffee0070008000000000000001"])
    wallet_id: str | None = Field(description="Null in a test event", examples=["wal_0198c0ffee0070008000000000000001"])
    sequence: int | None = Field(ge=1, description="Null in a test event", examples=[12])
    subject_id: str = Field(description="Whose status it is", examples=["wdr_0198c0ffee0070008000000000000001"])
    status: str = Field(examples=["success"])
    previous_status: str | None = Field(examples=["processing"])
    subject: dict[str, Any] = Field(
        description="The subject as the API showed it at that moment",
        examples=[{"id": "wdr_0198c0ffee0070008000000000000001", "type": "withdrawal", "status": "success"}],
    )


class WebhookEventView(View):
    """What is sent to an endpoint. More members may come with time."""

    type: str = Field(description="`webhook.test` for a test event", examples=["withdrawal.succeeded"])
    timestamp: str = Field(description="When it happened", examples=["2026-02-24T12:34:56.789Z"], **_TIME)
    data: EventDataView


@router.post(
    "",
    status_code=201,
    response_model=IssuedEndpointView,
    responses=problem_responses(InvalidFields, TooManyWebhookEndpoints),
    summary="Be told of events at a URL; the secret is shown once",
    description="Deliveries are signed as in Standard Webhooks 1.0.0. The host is looked up now and each time. An API "
    "key needs `events:read` as well: what an endpoint is told is what events say.",
)
async def create_webhook_endpoint(body: EndpointRequest, user: _Teller, resources: OpenResources) -> Response:
    issued = await webhook_endpoints.register(_registrar(resources), user.user_id, body.order, correlation_id.get())
    return _show_secret(issued, 201)


@router.get(
    "",
    response_model=PageView[WebhookEndpointView],
    summary="One's webhook endpoints, newest first",
    description="Disabled ones too, with the reason.",
)
async def list_webhook_endpoints(
    query: Annotated[PageQuery, Query()], user: _Reader, resources: OpenResources
) -> Response:
    page = open_page(query, resources.settings, "webhook_endpoints", user.user_id, str)
    found = await webhook_endpoints.list_endpoints(user.user_id, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda endpoint: endpoint.id, webhook_endpoint_view)


@router.get(
    "/{endpoint_id}",
    response_model=WebhookEndpointView,
    summary="One webhook endpoint",
    description="Where it is, what it takes, and how it stands; never its secret.",
)
async def get_webhook_endpoint(endpoint_id: _EndpointId, user: _Reader) -> Response:
    return _show(await webhook_endpoints.get_endpoint(user.user_id, endpoint_id))


@router.patch(
    "/{endpoint_id}",
    response_model=WebhookEndpointView,
    responses=problem_responses(InvalidFields),
    summary="Change a webhook endpoint, disable it or enable it again",
    description="Only what is sent changes. What happens while it is disabled is not sent later: it is in the events. "
    "An API key needs `events:read` as well.",
)
async def change_webhook_endpoint(
    endpoint_id: _EndpointId, body: EndpointChanges, user: _Teller, resources: OpenResources
) -> Response:
    return _show(
        await webhook_endpoints.change(
            _registrar(resources), user.user_id, endpoint_id, body.changes, correlation_id.get()
        )
    )


@router.delete(
    "/{endpoint_id}",
    status_code=204,
    summary="Delete a webhook endpoint, at once and for good",
    description="What waits for it is canceled, and its secrets are forgotten.",
)
async def delete_webhook_endpoint(endpoint_id: _EndpointId, user: _Writer, resources: OpenResources) -> Response:
    await webhook_endpoints.delete(_registrar(resources), user.user_id, endpoint_id, correlation_id.get())
    return Response(status_code=204)


@router.post(
    "/{endpoint_id}/rotate-secret",
    response_model=IssuedEndpointView,
    summary="Give a webhook endpoint another secret, shown once",
    description="For `overlap_s` deliveries carry two signatures, the new secret's first. One before that ends now.",
)
async def rotate_webhook_secret(
    body: SecretRotationRequest, endpoint_id: _EndpointId, user: _Writer, resources: OpenResources
) -> Response:
    overlap = timedelta(seconds=body.overlap_s)
    issued = await webhook_endpoints.rotate_secret(
        _registrar(resources), user.user_id, endpoint_id, overlap, correlation_id.get()
    )
    return _show_secret(issued, 200)


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    response_model=WebhookDeliveryView,
    responses=problem_responses(WebhookEndpointDisabled, WebhookTestPending),
    summary="Send a test event now",
    description="Of type `webhook.test`, whatever types the endpoint takes; tried once, and one at a time. The "
    "delivery tells what came of it.",
)
async def test_webhook_endpoint(endpoint_id: _EndpointId, user: _Writer, resources: OpenResources) -> Response:
    delivery = await webhook_deliveries.send_test(user.user_id, endpoint_id, _sender(resources), correlation_id.get())
    return _show_delivery(delivery, 202)


@router.get(
    "/{endpoint_id}/deliveries",
    response_model=PageView[WebhookDeliveryView],
    summary="What was sent to a webhook endpoint, newest first",
    description="With every try and what came of it; what was answered is shown of the last one, and of all in a "
    "delivery by itself. Kept for 30 days, unless set otherwise.",
)
async def list_webhook_deliveries(
    endpoint_id: _EndpointId, query: Annotated[DeliveriesQuery, Query()], user: _Reader, resources: OpenResources
) -> Response:
    page = open_page(query, resources.settings, f"webhook_deliveries:{endpoint_id}", user.user_id, str)
    found = await webhook_deliveries.list_deliveries(
        user.user_id,
        endpoint_id,
        DeliveryFilter(query.status, query.event_type),
        before_id=page.position,
        limit=page.limit_and_one,
    )
    return page_of(found, page, lambda delivery: delivery.id, listed_delivery_view)


@router.get(
    "/{endpoint_id}/deliveries/{delivery_id}",
    response_model=WebhookDeliveryView,
    summary="One delivery",
    description="With every try and what came of it.",
)
async def get_webhook_delivery(endpoint_id: _EndpointId, delivery_id: _DeliveryId, user: _Reader) -> Response:
    return _show_delivery(await webhook_deliveries.get_delivery(user.user_id, endpoint_id, delivery_id), 200)


@router.post(
    "/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=WebhookDeliveryView,
    responses=problem_responses(NotFound, WebhookEndpointDisabled),
    summary="Send a delivery once more",
    description="Now, under the same `webhook-id` and with the same body, whatever became of it before; from there on "
    "it is tried as if it were new.",
)
async def redeliver_webhook(
    endpoint_id: _EndpointId, delivery_id: _DeliveryId, user: _Writer, resources: OpenResources
) -> Response:
    delivery = await webhook_deliveries.redeliver(user.user_id, endpoint_id, delivery_id, _sender(resources))
    return _show_delivery(delivery, 202)


# The name of the schema of what is sent, in the OpenAPI document.
EVENT_SCHEMA = "WebhookEventView"
_HEADERS = (
    ("webhook-id", "The delivery's id: the same each time that it is sent", "whd_0198c0ffee0070008000000000000001"),
    ("webhook-timestamp", "Unix seconds of this try: refuse what is more than five minutes off", "1771936496"),
    (
        "webhook-signature",
        (
            "`v1,` and base64 of HMAC-SHA256, by the endpoint's secret, over id, time and the body as it came, with "
            "full stops between; while a secret is being changed two of these, with a space between"
        ),
        "v1,mLVFJdVbHtOyxnX4E9OvmpYmQUyqGD7ZbyXTKvCHDSw=",
    ),
)


def event_webhook(example: Any) -> dict[str, Any]:  # noqa: ANN401 JSON is anything
    """What a receiver has to be, as an operation of OpenAPI."""
    return {
        "operationId": "receive_event",
        "tags": ["Webhook endpoints"],
        "summary": "An event, sent to a webhook endpoint",
        "description": "At least once, and not always in order: `webhook-id` tells what is double, `sequence` what is "
        "missing. Answer 2xx within 15 s, and work later. Anything else is tried again for three days; 429 and 503 may "
        "say when in Retry-After; 410 disables the endpoint. Redirects are not followed.",
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": description,
                "schema": {"type": "string"},
                "example": sent,
            }
            for name, description, sent in _HEADERS
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{EVENT_SCHEMA}"},
                    "example": example,
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken"},
            "410": {"description": "Nothing more is wanted here: the endpoint is disabled"},
            "default": {"description": "Not taken: it is sent again later"},
        },
    }


def _registrar(resources: Resources) -> Registrar:
    return Registrar(resources.databases.client, resources.settings, resources.webhook_addresses)


def _sender(resources: Resources) -> Sender:
    return Sender(resources.jobs, resources.settings, resources.rate_limits)


def _show(endpoint: WebhookEndpoint) -> Response:
    return json_response(webhook_endpoint_view(endpoint))


def _show_secret(issued: IssuedEndpoint, status_code: int) -> Response:
    body = webhook_endpoint_view(issued.endpoint) | {"secret": issued.secret}
    return json_response(body, status_code)


def _show_delivery(delivery: WebhookDelivery, status_code: int) -> Response:
    return json_response(webhook_delivery_view(delivery), status_code)
