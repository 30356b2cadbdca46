"""What Prometheus asks for. The worker answers the same on a port of its own (workers/metrics.py)."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from service.controllers.dependencies import OpenResources
from service.controllers.routing import operation_id
from service.controllers.schemas import problem_responses
from service.errors import NotFound, Unauthenticated
from service.services.metrics import let_in_to_metrics

router = APIRouter(generate_unique_id_function=operation_id, tags=["Health"])

_EXAMPLE: Final = """\
# HELP wallet_ledger_queue_depth Commands that wait for a transaction
# TYPE wallet_ledger_queue_depth gauge
wallet_ledger_queue_depth 0.0
"""
_CONTENT: Final[dict[str, Any]] = {
    media_type: {"schema": {"type": "string"}, "example": example}
    for media_type, example in (
        ("text/plain", _EXAMPLE),
        ("application/openmetrics-text", _EXAMPLE + "# EOF\n"),
    )
}


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics for Prometheus",
    description="In its text format, or as OpenMetrics where `Accept` names it. With `WALLET_METRICS_TOKEN` set, for "
    "who sends it as a bearer token; else for who asks from the same machine, unless this is production, and nobody "
    "else learns of it.",
    response_class=Response,
    responses={200: {"content": _CONTENT}, **problem_responses(Unauthenticated, NotFound)},
)
async def get_metrics(request: Request, resources: OpenResources) -> Response:
    peer = "" if request.client is None else request.client.host
    let_in_to_metrics(peer, request.headers, resources.settings)
    body, media_type = await resources.scrapes.answer(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type})
