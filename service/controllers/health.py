"""Is it alive, is it ready: for people, load balancers and orchestrators."""

import orjson
from fastapi import APIRouter, Response

from service.controllers.dependencies import OpenResources
from service.startup import check_parts

router = APIRouter(tags=["Health"])

_OK, _NOT_READY = 200, 503


@router.get("/livez", summary="The process works", responses={503: {"description": "It has to be started anew"}})
async def livez(resources: OpenResources) -> Response:
    """Without MongoDB it lives, and waits; without its ledger's loop it would not come back by itself."""
    return _shape(resources.ledger.is_running(), {})


@router.get("/readyz", summary="The process can serve requests", responses={503: {"description": "Not ready"}})
async def readyz(resources: OpenResources) -> Response:
    """MongoDB and the ledger are needed. Without Redis requests are still taken; work just starts later."""
    checks = await check_parts(resources)
    is_ready = checks["mongodb"] == "ok" and checks["ledger"] == "ok"
    return _shape(is_ready, checks)


@router.get("/health", summary="Every part, by name", responses={503: {"description": "A part is missing"}})
async def health(resources: OpenResources) -> Response:
    checks = await check_parts(resources)
    return _shape(all(state == "ok" for state in checks.values()), checks)


def _shape(is_ok: bool, checks: dict[str, str]) -> Response:
    body = orjson.dumps({"status": "ok" if is_ok else "unavailable", "checks": checks})
    return Response(body, _OK if is_ok else _NOT_READY, media_type="application/json")
