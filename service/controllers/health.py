"""Is it alive, is it ready: for people, load balancers and orchestrators."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Response
from pydantic import Field

from service.controllers.dependencies import OpenResources
from service.controllers.routing import operation_id
from service.controllers.schemas import View
from service.domain.workers import Presence
from service.services.clock_watch import ClockWatch
from service.startup import check_parts, find_workers

router = APIRouter(generate_unique_id_function=operation_id, tags=["Health"])

_State = Literal["ok", "unavailable", "stopped", "open", "half_open", "none", "off"]


class WorkersView(View):
    alive: int = Field(ge=0, description="Workers that have told of themselves in the last 20 seconds", examples=[1])
    last_seen_age_s: float | None = Field(description="Since the last one did; null: none ever has", examples=[2.5])


class ClockView(View):
    difference_s: float | None = Field(
        description="The clock of the process that answers less MongoDB's; null: not measured yet", examples=[0.002]
    )
    peers_difference_s: float | None = Field(
        description="The furthest that a worker's clock is from this one; null: none has told", examples=[0.001]
    )
    bound_s: float = Field(description="Further off, no commands are taken (`clock_off`)", examples=[5.0])


class HealthView(View):
    status: Literal["ok", "unavailable"]
    checks: dict[str, _State] = Field(
        description="By part. The bank's is that of its circuit breaker: `open` while it is known to be down, "
        "`half_open` while it is tried whether it is back; requests are accepted meanwhile, and wait. So they are "
        "where the workers are `none`: that fails no check. While the clock is `off`, commands get 503 `clock_off`",
        examples=[{"mongodb": "ok", "redis": "ok", "ledger": "ok", "bank": "ok", "clock": "ok", "workers": "ok"}],
    )
    workers: WorkersView | None = Field(None, description="Null where MongoDB, which knows of them, does not answer")
    clock: ClockView | None = Field(None, description="Of the process that answers; null in `/livez`")


def _answers(meaning: str) -> dict[str, Any]:
    return {"response_model": HealthView, "responses": {503: {"model": HealthView, "description": meaning}}}


_OK, _NOT_READY = 200, 503


@router.get("/livez", operation_id="get_liveness", summary="The process works", **_answers("It has to be started anew"))
async def livez(resources: OpenResources) -> Response:
    """Without MongoDB it lives, and waits; without its ledger's loop it would not come back by itself."""
    is_ok = resources.ledger.is_running()
    body = orjson.dumps({"status": "ok" if is_ok else "unavailable", "checks": {}})
    return _answer(is_ok, body)


@router.get("/readyz", operation_id="get_readiness", summary="The process can serve requests", **_answers("Not ready"))
async def readyz(resources: OpenResources) -> Response:
    """MongoDB, the ledger and a right clock are needed. Without Redis requests are still taken; work starts later."""
    checks, workers = await asyncio.gather(check_parts(resources), find_workers(resources))
    is_ready = all(checks[part] == "ok" for part in ("mongodb", "ledger", "clock"))
    return _shape(is_ready, checks, workers, resources.clock_watch)


@router.get(
    "/health",
    operation_id="get_health",
    summary="Every part, by name",
    **_answers("A part is missing"),
    description="200 where all of ours answer, else 503. A bank that is down makes nothing of ours unhealthy, "
    "and without a worker requests are still accepted: `workers` tells.",
)
async def health(resources: OpenResources) -> Response:
    checks, workers = await asyncio.gather(check_parts(resources), find_workers(resources))
    is_ok = all(state == "ok" for part, state in checks.items() if part != "bank")
    return _shape(is_ok, checks, workers, resources.clock_watch)


def _shape(is_ok: bool, checks: dict[str, str], workers: Presence | None, clock: ClockWatch) -> Response:
    seen = "unavailable" if workers is None else "ok" if workers.alive else "none"
    body = {
        "status": "ok" if is_ok else "unavailable",
        "checks": checks | {"workers": seen},
        "workers": None if workers is None else {"alive": workers.alive, "last_seen_age_s": workers.last_seen_age_s},
        "clock": _clock_view(clock, () if workers is None else workers.clock_differences_s),
    }
    return _answer(is_ok, orjson.dumps(body))


def _clock_view(clock: ClockWatch, of_peers: Sequence[float]) -> dict[str, float | None]:
    ours = clock.difference_s
    apart = None if ours is None else max((abs(ours - theirs) for theirs in of_peers), default=None)
    return {
        "difference_s": None if ours is None else round(ours, 3),
        "peers_difference_s": None if apart is None else round(apart, 3),
        "bound_s": clock.bound_s,
    }


def _answer(is_ok: bool, body: bytes) -> Response:
    return Response(body, _OK if is_ok else _NOT_READY, media_type="application/json")
