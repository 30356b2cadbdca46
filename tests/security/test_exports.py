"""Exports: one at a time for each user and few in all, and whoever hangs up or cannot be read frees the place."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from uuid import uuid4

import httpx
import pytest
from starlette.types import Message

from service.controllers.csv_stream import CsvStream
from service.database import Databases
from service.main import create_app
from service.services.exports import Exports
from service.settings import Settings
from service.startup import Resources
from tests.factories import Account, bearer, make_account

_YEAR = "from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z&format=csv"


class Office:
    """An application that makes two files at a time. `open_files` are those whose clients read nothing yet."""

    def __init__(self, resources: Resources) -> None:
        self.settings: Settings = resources.settings
        self.exports = Exports(2)
        self.app = create_app(self.settings)
        self.app.state.resources = resources._replace(exports=self.exports)
        self.open_files: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def ask(self, account: Account, form: str = "csv") -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://wallet.example", headers=self._headers(account)
        ) as client:
            return await client.get(self._path(account), params=f"{_YEAR.removesuffix('csv')}{form}")

    def _path(self, account: Account) -> str:
        return f"/api/v1/wallets/{account.wallet.id}/statement"

    def _headers(self, account: Account) -> dict[str, str]:
        return bearer(account.user, self.settings)

    async def begin(self, account: Account) -> asyncio.Event:
        """Returns when the first bytes have come. The client hangs up once the event is set."""
        begun, hung_up = asyncio.Event(), asyncio.Event()
        is_asked = False

        async def receive() -> Message:
            nonlocal is_asked
            if not is_asked:
                is_asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200
                begun.set()
                await hung_up.wait()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": self._path(account),
            "raw_path": self._path(account).encode(),
            "query_string": _YEAR.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self._headers(account).items()],
            "client": ("203.0.113.1", 4711),
            "server": ("wallet.example", 80),
        }
        task = asyncio.create_task(self.app(scope, receive, send))
        self.open_files.append((task, hung_up))
        await asyncio.wait_for(begun.wait(), 10)
        return hung_up

    async def close_files(self) -> None:
        for task, hung_up in self.open_files:
            hung_up.set()
            await task


@pytest.fixture
async def office(resources: Resources) -> AsyncIterator[Office]:
    office = Office(resources)
    yield office
    await office.close_files()


class TestAnExport:
    async def test_is_the_users_only_one_until_it_ends(self, office: Office, databases: Databases) -> None:
        greedy, stranger = await make_account(databases, balance=1), await make_account(databases, balance=1)
        await office.begin(greedy)
        refused = await office.ask(greedy)
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_exports")
        assert int(refused.headers["retry-after"]) > 0
        # Others have theirs, and a statement as JSON is no export.
        assert (await office.ask(stranger)).status_code == 200
        assert (await office.ask(greedy, "json")).status_code == 200
        await office.close_files()
        assert [(await office.ask(greedy)).status_code for _ in range(2)] == [200, 200]

    async def test_of_many_users_are_few_at_a_time(self, office: Office, databases: Databases) -> None:
        accounts = [await make_account(databases, balance=1) for _ in range(3)]
        for account in accounts[:2]:
            await office.begin(account)
        refused = await office.ask(accounts[2])
        assert (refused.status_code, refused.json()["error"]) == (503, "exports_busy")
        assert int(refused.headers["retry-after"]) > 0
        await office.close_files()
        assert (await office.ask(accounts[2])).status_code == 200


async def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.controllers.csv_stream._STALL_LIMIT_S", 0.05)
    ended: list[str] = []

    async def rows() -> AsyncIterator[bytes]:
        yield uuid4().bytes
        await asyncio.Event().wait()

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(_message: Message) -> None: ...

    async def close() -> None:
        ended.append("closed")

    await asyncio.wait_for(CsvStream(rows(), "a.csv", close)({"type": "http"}, never, send), 10)
    assert ended == ["closed"]


async def test_a_file_that_moves_takes_longer_than_a_stall_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.controllers.csv_stream._STALL_LIMIT_S", 0.5)
    begun_s, sent = perf_counter(), 0

    async def rows() -> AsyncIterator[bytes]:
        while perf_counter() - begun_s < 1.2:
            yield b"1"
            await asyncio.sleep(0.01)

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal sent
        sent += message.get("more_body") is False

    async def close() -> None: ...

    await asyncio.wait_for(CsvStream(rows(), "a.csv", close)({"type": "http"}, never, send), 10)
    assert sent == 1
