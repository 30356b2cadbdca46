"""Where the bank reports to."""

import json
from typing import Annotated, Any, Final, Literal

from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Header, Request
from pydantic import Field, ValidationError

from service.controllers.dependencies import OpenResources
from service.controllers.requests import StrictRoute, parse_json
from service.controllers.routing import operation_id
from service.controllers.schemas import View, problem_responses
from service.errors import FieldError, InvalidFields, InvalidSignature, Malformed
from service.services.bank_callbacks import (
    CallbackPayload,
    ReturnPayload,
    read_payload,
    receive_callback,
    verify_signature,
)

router = APIRouter(route_class=StrictRoute, generate_unique_id_function=operation_id, tags=["Webhooks"])

_EXAMPLE: Final[dict[str, Any]] = {
    "type": "payment.settled",
    "reference": "wdr_0198c0ffee0070008000000000000001",
    "status": "success",
    "amount": 10000,
    "currency": "INR",
    "bank_reference": "bank_5f0c3e1b9a7d4c2e",
}
_RETURNED_EXAMPLE: Final[dict[str, Any]] = {
    "type": "payment.returned",
    "reference": "wdr_0198c0ffee0070008000000000000001",
    "amount": 10000,
    "currency": "INR",
    "bank_reference": "bank_5f0c3e1b9a7d4c2f",
    "return_code": "account_closed",
    "return_message": "The account was closed before the money arrived",
}
_SETTLED_SCHEMA: Final[dict[str, Any]] = CallbackPayload.model_json_schema()
_SETTLED_SCHEMA["properties"]["type"] = {"const": "payment.settled", "title": "Type", "type": "string"}
_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        _SETTLED_SCHEMA,
        ReturnPayload.model_json_schema(),
        {
            "title": "Anything else",
            "description": "Kept and acknowledged; nothing comes of it",
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"type": "string", "maxLength": 64, "not": {"enum": ["payment.settled", "payment.returned"]}}
            },
        },
    ]
}


class ReceivedView(View):
    received: Literal[True] = Field(description="It is kept, and will be applied")


@router.post(
    "/webhooks/bank-callback",
    operation_id="receive_bank_callback",
    response_model=ReceivedView,
    responses=problem_responses(InvalidSignature),
    summary="The bank reports the outcome of an order",
    description="Signed as in Standard Webhooks 1.0.0. Kept once for each `webhook-id`, answered, then applied, in any "
    "order and as often as it comes. What cannot be, given how things stand, opens an incident and moves no money.",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _SCHEMA,
                    "examples": {
                        "settled": {"summary": "What became of an order", "value": _EXAMPLE},
                        "returned": {"summary": "Money of a settled order came back", "value": _RETURNED_EXAMPLE},
                    },
                }
            },
        },
        "security": [{"bankSignature": []}],
    },
)
async def bank_callback(
    request: Request,
    resources: OpenResources,
    webhook_id: Annotated[
        str | None,
        Header(alias="webhook-id", max_length=255, description="Of the message, the same each time that it is sent"),
    ] = None,
    webhook_timestamp: Annotated[
        str | None,
        Header(
            alias="webhook-timestamp",
            max_length=32,
            description="Unix seconds; more than five minutes off is refused",
        ),
    ] = None,
    webhook_signature: Annotated[
        str | None,
        Header(
            alias="webhook-signature",
            max_length=1024,
            description="One or more, with spaces between: `v1,` and base64 of HMAC-SHA256 over id, time and body",
        ),
    ] = None,
) -> dict[str, Any]:
    body = await request.body()
    headers = {
        "webhook-id": webhook_id or "",
        "webhook-timestamp": webhook_timestamp or "",
        "webhook-signature": webhook_signature or "",
    }
    callback_id = verify_signature(body, headers, resources.settings)
    try:
        payload = read_payload(parse_json(body))
    except json.JSONDecodeError as error:
        raise Malformed(f"The body is not valid JSON: {error.msg}") from error
    except ValidationError as error:
        fields = tuple(
            FieldError("/" + "/".join(map(str, one["loc"])), one["type"], one["msg"]) for one in error.errors()
        )
        raise InvalidFields(fields=fields) from error
    await receive_callback(callback_id, payload, correlation_id.get(), resources.jobs)
    return {"received": True}
