"""Is it alive, is it ready: for people, load balancers and orchestrators."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import orjson
import structlog
from fastapi import APIRouter, Response
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from service.controllers.dependencies import OpenResources
from service.startup import Resources

log = structlog.get_logger()

router = APIRouter(tags=["Health"])

# An orchestrator asks every few seconds and gives up after about two.
_CHECK_TIMEOUT_S = 1.5
_OK, _NOT_READY = 200, 503


@router.get("/livez", summary="The process answers")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="The process can serve requests", responses={503: {"description": "Not ready"}})
async def readyz(resources: OpenResources) -> Response:
    """MongoDB and the ledger are needed. Without Redis requests are still taken; work just starts later."""
    checks = await _checks(resources)
    is_ready = checks["mongodb"] == "ok" and checks["ledger"] == "ok"
    return _shape(is_ready, checks)


@router.get("/health", summary="Every part, by name", responses={503: {"description": "A part is missing"}})
async def health(resources: OpenResources) -> Response:
    checks = await _checks(resources)
    return _shape(all(state == "ok" for state in checks.values()), checks)


async def _checks(resources: Resources) -> dict[str, str]:
    mongodb, redis = await asyncio.gather(
        _answers("mongodb", resources.databases.client.admin.command("ping")),
        _answers("redis", resources.jobs.ping()),
    )
    return {"mongodb": mongodb, "redis": redis, "ledger": "ok" if resources.ledger.is_running() else "stopped"}


async def _answers(part: str, call: Awaitable[Any]) -> str:
    try:
        await asyncio.wait_for(call, _CHECK_TIMEOUT_S)
    except (PyMongoError, RedisError, OSError, TimeoutError) as error:
        log.warning("health.part_missing", part=part, error=repr(error))
        return "unavailable"
    return "ok"


def _shape(is_ok: bool, checks: dict[str, str]) -> Response:
    body = orjson.dumps({"status": "ok" if is_ok else "unavailable", "checks": checks})
    return Response(body, _OK if is_ok else _NOT_READY, media_type="application/json")
