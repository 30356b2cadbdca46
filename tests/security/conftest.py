"""The world of the corpus, made once."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from tests.security.routes import read_routes
from tests.security.target import Target
from tests.security.world import World


@pytest.fixture(scope="session")
async def target(app: FastAPI) -> AsyncIterator[Target]:
    """The sound app, with every route that its document names."""
    routes = read_routes(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wallet.example") as api:
        yield Target(api, await World.make(app, api, routes), routes)
