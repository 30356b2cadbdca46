"""What the bench's API process serves: the service's own application, and what it is measured against."""

from typing import Annotated, cast

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from scripts.bench.plain import PlainLedger
from service.controllers import withdrawals
from service.controllers.dependencies import IdempotencyKey, OpenResources, require
from service.controllers.requests import StrictRoute
from service.controllers.withdrawals import WithdrawalRequest
from service.domain.permissions import Permission
from service.ledger.committer import Ledger
from service.main import create_app
from service.services.callers import Caller
from service.startup import Resources

PING_PATH = "/bench/ping"
PLAIN_PATH = "/bench/plain/withdrawals"
OPEN_REQUESTS_PATH = "/bench/open-requests"

router = APIRouter(route_class=StrictRoute)


@router.get(PING_PATH)
async def ping(user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)]) -> Response:
    """The ceiling: everything that every authenticated request goes through, and nothing else."""
    return Response(orjson.dumps({"user_id": user.user_id}), media_type="application/json")


async def _with_plain_ledger(request: Request, resources: OpenResources) -> Resources:
    state = request.app.state
    if not hasattr(state, "plain_ledger"):
        state.plain_ledger = PlainLedger(resources.databases.client, resources.jobs, resources.ledger.policy)
    # The withdrawal's story asks a ledger for nothing but `execute`.
    return resources._replace(ledger=cast(Ledger, state.plain_ledger))


@router.post(PLAIN_PATH, status_code=202)
async def request_plain_withdrawal(
    body: WithdrawalRequest,
    user: Annotated[Caller, require(Permission.PAYMENTS_WRITE)],
    key: IdempotencyKey,
    resources: Annotated[Resources, Depends(_with_plain_ledger)],
) -> Response:
    """The very same request, controller and service; only the ledger differs."""
    return await withdrawals.request_withdrawal(body, user, key, resources)


class OpenRequests:
    """Counts the requests that are being worked on, also those whose client has gone: a load has ended at 0."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == OPEN_REQUESTS_PATH:
            await Response(str(self._open))(scope, receive, send)
        else:
            self._open += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._open -= 1


def create_bench_app() -> OpenRequests:
    """Served as `uvicorn --factory scripts.bench.app:create_bench_app`."""
    app: FastAPI = create_app()
    # First, where the ceiling is highest: behind them, the service's own withdrawals pay for one more try.
    app.router.routes[:0] = router.routes
    return OpenRequests(app)
