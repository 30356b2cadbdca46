"""The FastAPI application: `uvicorn --factory service.main:create_app`."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service.controllers import (
    adjustments,
    admin,
    api_keys,
    approvals,
    audit_events,
    auth,
    bank_callbacks,
    blocked_withdrawals,
    breaks,
    checkpoints,
    conversions,
    dead_letters,
    deposits,
    events,
    health,
    holds,
    incidents,
    integrity,
    limits,
    lockdowns,
    metrics,
    password_changes,
    proofs,
    proposals,
    quotes,
    reference,
    returns,
    reversals,
    reviews,
    rewards,
    sessions,
    sockets,
    spending,
    statements,
    totp,
    transfers,
    user_administration,
    users,
    vouchers,
    wallet_life,
    wallets,
    webhook_endpoints,
    withdrawals,
)
from service.controllers.connections import CONNECTIONS, Connections, raise_file_limit
from service.controllers.middleware import add_middleware
from service.controllers.openapi import complete_openapi, metadata
from service.controllers.problems import add_problem_handlers, note_methods
from service.log import set_up_logging
from service.settings import Settings, get_settings
from service.startup import open_resources, tracing_of

# They are tried in order: what is called most comes first.
_ROUTERS = (
    withdrawals.router,
    deposits.router,
    transfers.router,
    transfers.batch_router,
    approvals.router,
    users.router,
    wallets.router,
    auth.router,
    sessions.router,
    password_changes.router,
    admin.router,
    integrity.router,
    breaks.router,
    totp.router,
    statements.router,
    spending.router,
    proofs.router,
    checkpoints.router,
    quotes.router,
    conversions.router,
    holds.router,
    adjustments.router,
    reversals.router,
    reviews.router,
    blocked_withdrawals.router,
    incidents.router,
    returns.router,
    limits.router,
    wallet_life.router,
    audit_events.router,
    api_keys.router,
    user_administration.router,
    proposals.router,
    lockdowns.router,
    vouchers.router,
    vouchers.admin_router,
    rewards.router,
    dead_letters.router,
    events.router,
    sockets.router,
    sockets.plain_router,
    webhook_endpoints.router,
    bank_callbacks.router,
    health.router,
    metrics.router,
    reference.router,
)


def _spare_the_garbage_collector() -> None:
    """What lives as long as the process is not looked at again, and the rest less often.

    A request leaves no cycles behind, so that a full collection finds nothing; by default it took a quarter of the
    API's time under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Reads the environment unless it is handed settings."""
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Connections]]:
        set_up_logging(settings)
        async with tracing_of(settings, "wallet-api"), open_resources(settings) as resources:
            app.state.resources = resources
            await resources.ended_tokens.start()
            _spare_the_garbage_collector()
            raise_file_limit(settings)
            # uvicorn hands it to the protocol of each connection.
            yield {CONNECTIONS: Connections(settings)}

    app = FastAPI(
        **metadata(),
        routes=[route for router in _ROUTERS for route in router.routes],
        lifespan=lifespan,
        redirect_slashes=False,
        # Ours need nothing from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # FastAPI would look for OpenTelemetry's settings in the environment several times a request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    add_problem_handlers(app)
    note_methods(app)
    complete_openapi(app)
    add_middleware(app, settings)
    return app
