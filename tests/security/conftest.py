"""The world of the corpus, made once, and a real server on the same databases."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI

from scripts.server_process import LOOPBACK
from scripts.service_stack import API, Stack
from service.settings import Settings
from tests.security.routes import read_routes
from tests.security.target import Target
from tests.security.wire import Server
from tests.security.world import World


@pytest.fixture(scope="session")
async def target(app: FastAPI) -> AsyncIterator[Target]:
    """The sound app, with every route that its document names."""
    routes = read_routes(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as api:
        yield Target(api, await World.make(app, api, routes), routes)


@pytest.fixture(scope="session")
def stack_on_same_databases(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API process as `make run` starts it, that knows the users of this process's tests."""
    secrets = {
        f"WALLET_{name.upper()}": getattr(settings, name).get_secret_value()
        for name in ("mongo_url", "redis_url", "jwt_secret", "encryption_key", "bank_webhook_secret")
    }
    shared = {**secrets, "WALLET_DATABASE": settings.database, "WALLET_LOG_JSON": "true"}
    with Stack(tmp_path_factory.mktemp("security"), settings=shared) as stack:
        stack.start_servers()
        stack.start_api()
        yield stack


@pytest.fixture(scope="session")
def server(stack_on_same_databases: Stack) -> Server:
    return Server(LOOPBACK, stack_on_same_databases.api_port, stack_on_same_databases.log_path(API))
