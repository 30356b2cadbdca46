"""The FastAPI application: `uvicorn --factory service.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service.controllers import auth, deposits, health, users, wallets, webhooks, withdrawals
from service.controllers.middleware import add_middleware
from service.controllers.problems import add_problem_handlers
from service.controllers.schemas import declare_problems
from service.log import set_up_logging
from service.settings import Settings, get_settings
from service.startup import open_resources

API_PREFIX = "/api/v1"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Reads the environment unless it is handed settings."""
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        set_up_logging(settings)
        async with open_resources(settings) as resources:
            app.state.resources = resources
            yield

    app = FastAPI(
        title="Wallet service",
        version="0.1.0",
        description="Wallets whose balances are exact, fast under contention and provable afterwards.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    # Routes are tried in order: what is called most comes first.
    for router in (withdrawals.router, deposits.router, users.router, wallets.router, auth.router):
        app.include_router(router, prefix=API_PREFIX)
    for router in (webhooks.router, health.router):
        app.include_router(router)
    add_problem_handlers(app)
    declare_problems(app)
    add_middleware(app)
    return app
