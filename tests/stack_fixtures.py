"""Whole stacks for all tests that need them: servers, API and worker as processes of their own, and a quick bank."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from scripts.service_stack import NO_LIMITS, Stack
from service.database import Databases, connect
from service.settings import Settings

_POOL = 8
_MAIL_LIMIT_S = 30.0
_MAIL_POLL_S = 0.05

QUICK_BANK = {
    # Tests pay what they like.
    "WALLET_LIMITS": "{}",
    "WALLET_ENV": "development",
    "WALLET_LOG_JSON": "true",
    "WALLET_BANK_DELAY_MIN_S": "0.02",
    "WALLET_BANK_DELAY_MAX_S": "0.2",
    "WALLET_BANK_TIMEOUT_S": "1",
    "WALLET_BANK_TIMEOUT_RATE": "0",
    "WALLET_BANK_ERROR_RATE": "0",
    "WALLET_BANK_SUCCESS_RATE": "1",
    "WALLET_BANK_RECHECK_S": "2",
    "WALLET_BANK_ATTEMPT_LIMIT": "3",
    "WALLET_WORKER_SWEEP_S": "1",
    # Receivers of tests are on this machine.
    "WALLET_WEBHOOK_ALLOW_LOOPBACK": "true",
    "WALLET_WEBHOOK_RETRY_DELAYS_S": "[1, 1, 1]",
    # For those who ask for it: everybody else's wallets stay as they were.
    "WALLET_EARNING_RULES": json.dumps(
        [{"name": "deposits", "on": "deposit", "currency": "INR", "per_amount": 10_000, "category": "saving"}]
    ),
    **NO_LIMITS,
}


@asynccontextmanager
async def databases_of(stack: Stack, **settings: Any) -> AsyncIterator[Databases]:
    """The service's own view of the stack's databases; Beanie stays bound to those of the tests in this process."""
    url = stack.settings["WALLET_MONGO_URL"]
    databases = connect(url, Settings(mongo_url=SecretStr(url), _env_file=None, **settings))
    try:
        yield databases
    finally:
        await databases.client.close()


async def statuses(databases: Databases) -> set[str]:
    """Of all deposits and withdrawals."""
    found: set[str] = set()
    for collection in ("deposits", "withdrawals"):
        found |= set(await databases.wallet[collection].distinct("status"))
    return found


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), settings=QUICK_BANK) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.start_worker()
        yield stack


class ManyPools(httpx.AsyncBaseTransport):
    """So many connections in pools of a few each.

    For each request a pool looks at all its connections and at all who wait: with a thousand at once in one pool, the
    processor would be the client's, and the service would have next to nothing to do at once.
    """

    def __init__(self, connections: int) -> None:
        limits = httpx.Limits(max_connections=_POOL, max_keepalive_connections=_POOL)
        context = httpx.create_ssl_context()
        self._pools = [httpx.AsyncHTTPTransport(verify=context, limits=limits) for _ in range(connections // _POOL)]
        self._turns = itertools.cycle(self._pools)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await next(self._turns).handle_async_request(request)

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.aclose()


@pytest.fixture(scope="session")
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=30, transport=ManyPools(200)) as client:
        yield client


@pytest.fixture(scope="session")
async def stack_databases(stack: Stack) -> AsyncIterator[Databases]:
    async with databases_of(stack) as databases:
        yield databases


# Payments above it wait for a code: small enough that somebody can have many of them.
STEP_UP_ABOVE = 1_000


@pytest.fixture(scope="session")
def payment_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two processes of the API, so that commands race in MongoDB too, and many payments that wait for a code."""
    settings = {**QUICK_BANK, "WALLET_API_PROCESSES": "2", "WALLET_STEP_UP_ABOVE": f'{{"INR": {STEP_UP_ABOVE}}}'}
    with Stack(tmp_path_factory.mktemp("payment_stack"), settings=settings) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.start_worker()
        yield stack


@pytest.fixture(scope="session")
async def payment_http(payment_stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=payment_stack.base_url, timeout=30, transport=ManyPools(64)) as client:
        yield client


@pytest.fixture(scope="session")
async def payment_databases(payment_stack: Stack) -> AsyncIterator[Databases]:
    async with databases_of(payment_stack) as databases:
        yield databases


async def mail_to(stack: Stack, email: str, subject: str) -> str:
    end = time.monotonic() + _MAIL_LIMIT_S
    path = Path(stack.settings["WALLET_DATA_DIR"]) / "mailbox.jsonl"
    while time.monotonic() < end:
        lines = path.read_text().splitlines() if path.exists() else []
        for mail in map(json.loads, lines):
            if (mail["to"], mail["subject"]) == (email, subject):
                return str(mail["text"])
        await asyncio.sleep(_MAIL_POLL_S)
    raise AssertionError(f"no mail {subject!r} to {email}")
