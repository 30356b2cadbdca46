"""Where the bank reports to."""

import json
from typing import Annotated, Any

from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Header, Request
from pydantic import ValidationError

from service.controllers.dependencies import OpenResources
from service.controllers.requests import StrictRoute, parse_json
from service.errors import FieldError, InvalidFields, Malformed
from service.services.bank_callbacks import CallbackPayload, receive_callback, verify_signature

router = APIRouter(route_class=StrictRoute, tags=["Webhooks"])


@router.post(
    "/webhooks/bank-callback",
    summary="The bank reports the outcome of an order",
    description="Signed as in Standard Webhooks 1.0.0. Kept once for each `webhook-id`, answered, then applied.",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": CallbackPayload.model_json_schema()}},
        }
    },
)
async def bank_callback(
    request: Request,
    resources: OpenResources,
    webhook_id: Annotated[str | None, Header(alias="webhook-id")] = None,
    webhook_timestamp: Annotated[str | None, Header(alias="webhook-timestamp")] = None,
    webhook_signature: Annotated[str | None, Header(alias="webhook-signature")] = None,
) -> dict[str, Any]:
    body = await request.body()
    headers = {
        "webhook-id": webhook_id or "",
        "webhook-timestamp": webhook_timestamp or "",
        "webhook-signature": webhook_signature or "",
    }
    callback_id = verify_signature(body, headers, resources.settings)
    try:
        payload = CallbackPayload.model_validate(parse_json(body))
    except json.JSONDecodeError as error:
        raise Malformed(f"The body is not valid JSON: {error.msg}") from error
    except ValidationError as error:
        fields = tuple(
            FieldError("/" + "/".join(map(str, one["loc"])), one["type"], one["msg"]) for one in error.errors()
        )
        raise InvalidFields(fields=fields) from error
    await receive_callback(callback_id, payload, correlation_id.get(), resources.jobs)
    return {"received": True}
