"""What every test may ask for: real servers, settings, the open resources and the API in process.

Nothing is dropped between tests: each makes users of its own, and so sees only what is its own.
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import structlog
from fastapi import FastAPI

from service.database import Databases, set_up
from service.main import create_app
from service.settings import Settings
from service.startup import Resources
from tests.exact_numbers import require_exact_numbers
from tests.servers import Admin, Servers, make_settings, running_servers

_configure = structlog.configure

# For mutation tests, which call each test in one process again and again: the same examples each time. A failure is
# enough to know, nobody reads the smallest one: shrinking takes a hundred times as long as failing.
hypothesis.settings.register_profile(
    "mutants",
    derandomize=True,
    deadline=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)

# The stack with processes of its own, for journeys, invariants and failures.
pytest_plugins = ["tests.stack_fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-servers", action="store_true", help="run only tests that need no MongoDB and no Redis")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests that ask for a server, for those who run the others a thousand times over."""
    if not config.getoption("--without-servers"):
        return
    with_servers = [item for item in items if "servers" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=with_servers)
    items[:] = [item for item in items if item not in with_servers]


def pytest_configure() -> None:
    """What a developer has set for a stack of theirs, or a test before, must not change what tests see."""
    for name in [name for name in os.environ if name.startswith("WALLET_")]:
        del os.environ[name]
    structlog.configure = _configure_uncached  # type: ignore[assignment]  # it takes what the real one takes


def _configure_uncached(**how: Any) -> None:
    """`capture_logs` reaches the loggers that were used before somebody set logging up anew."""
    _configure(**how | {"cache_logger_on_first_use": False})


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running_servers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture(scope="session")
async def settings(servers: Servers) -> Settings:
    """Of a database that is set up."""
    settings = make_settings(servers)
    await set_up(settings)
    return settings


@pytest.fixture(scope="session")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="session")
def resources(app: FastAPI) -> Resources:
    """Those of the API. A process can have no second ones: Beanie's documents belong to one client."""
    resources: Resources = app.state.resources
    return resources


@pytest.fixture(scope="session")
def databases(resources: Resources) -> Databases:
    return resources.databases


@pytest.fixture(scope="session")
def admin(servers: Servers) -> Iterator[Admin]:
    """The administrator's client, for fail points and for damage that the service's own user cannot do."""
    with Admin(servers.mongo.admin_url) as client:
        yield client


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The API in process, without a worker."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://wallet.example",
        event_hooks={"response": [require_exact_numbers]},
    ) as client:
        yield client
