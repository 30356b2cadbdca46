"""Is it alive, is it ready: for people, load balancers and orchestrators."""

from typing import Any, Literal

import orjson
from fastapi import APIRouter, Response
from pydantic import Field

from service.controllers.dependencies import OpenResources
from service.controllers.schemas import View
from service.startup import check_parts

router = APIRouter(tags=["Health"])

_State = Literal["ok", "unavailable", "stopped", "open", "half_open"]


class HealthView(View):
    status: Literal["ok", "unavailable"]
    checks: dict[str, _State] = Field(
        description="By part. The bank's is that of its circuit breaker: `open` while it is known to be down, "
        "`half_open` while it is tried whether it is back; requests are accepted meanwhile, and wait",
        examples=[{"mongodb": "ok", "redis": "ok", "ledger": "ok", "bank": "ok"}],
    )


def _answers(meaning: str) -> dict[str, Any]:
    return {"response_model": HealthView, "responses": {503: {"model": HealthView, "description": meaning}}}


_OK, _NOT_READY = 200, 503


@router.get("/livez", operation_id="get_liveness", summary="The process works", **_answers("It has to be started anew"))
async def livez(resources: OpenResources) -> Response:
    """Without MongoDB it lives, and waits; without its ledger's loop it would not come back by itself."""
    return _shape(resources.ledger.is_running(), {})


@router.get("/readyz", operation_id="get_readiness", summary="The process can serve requests", **_answers("Not ready"))
async def readyz(resources: OpenResources) -> Response:
    """MongoDB and the ledger are needed. Without Redis requests are still taken; work just starts later."""
    checks = await check_parts(resources)
    is_ready = checks["mongodb"] == "ok" and checks["ledger"] == "ok"
    return _shape(is_ready, checks)


@router.get(
    "/health",
    operation_id="get_health",
    summary="Every part, by name",
    **_answers("A part is missing"),
    description="200 where all of ours answer, else 503. A bank that is down makes nothing of ours unhealthy.",
)
async def health(resources: OpenResources) -> Response:
    checks = await check_parts(resources)
    return _shape(all(state == "ok" for part, state in checks.items() if part != "bank"), checks)


def _shape(is_ok: bool, checks: dict[str, str]) -> Response:
    body = orjson.dumps({"status": "ok" if is_ok else "unavailable", "checks": checks})
    return Response(body, _OK if is_ok else _NOT_READY, media_type="application/json")
