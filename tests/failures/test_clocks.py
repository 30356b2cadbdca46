"""Processes whose machine is ten minutes off, by libfaketime: nothing is lost, leased for ever or refused for it.

Skipped where libfaketime is not installed (`apt-get install libfaketime`); tests/services/test_clock_watch.py tries the
same without it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from scripts.check_ledger import check_ledger
from scripts.service_stack import API, WORKER, Stack
from service.database import Databases
from service.domain.clock import machine_now
from tests.person import Person
from tests.stack_fixtures import QUICK_BANK, databases_of

_FOLDERS = (Path("/usr/lib"), Path("/usr/local/lib"))
_LIBRARY = next((str(one) for folder in _FOLDERS for one in folder.glob("**/libfaketime.so.1")), None)
pytestmark = pytest.mark.skipif(_LIBRARY is None, reason="libfaketime is missing: apt-get install libfaketime")

_PEOPLE = 3
_PAYMENTS = 4
_LIMIT_S = 60.0
_POLL_S = 0.1
# The longest claim of these settings, and what a busy machine takes.
_LEASE = timedelta(seconds=45)


class SetStack(Stack):
    """Each program reads how far its machine's clock is off from a file of its own, once a second."""

    def set_clock(self, name: str, offset: str) -> None:
        """`+10m`, `-10m`, `+0`."""
        waiting = self._clock_of(name).with_suffix(".new")
        waiting.write_text(offset)
        waiting.rename(self._clock_of(name))

    def environment_of(self, name: str, command: Sequence[str]) -> dict[str, str]:
        if not self._clock_of(name).exists():
            self.set_clock(name, "+0")
        return super().environment_of(name, command) | {
            "LD_PRELOAD": _LIBRARY or "",
            "FAKETIME_TIMESTAMP_FILE": str(self._clock_of(name)),
            "FAKETIME_CACHE_DURATION": "1",
            # No machine sets this one.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def _clock_of(self, name: str) -> Path:
        return self.data_dir / f"{name}.clock"


@pytest.fixture(scope="module")
def set_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetStack]:
    settings = QUICK_BANK | {"WALLET_BANK_ATTEMPT_LIMIT": "15"}
    with SetStack(tmp_path_factory.mktemp("clocks"), settings=settings) as stack:
        stack.start_servers()
        stack.migrate()
        stack.start_api()
        stack.start_worker()
        yield stack


@pytest.fixture
async def set_databases(set_stack: SetStack) -> AsyncIterator[Databases]:
    async with databases_of(set_stack) as databases:
        yield databases


@pytest.fixture
async def people(set_stack: SetStack) -> AsyncIterator[list[Person]]:
    async with httpx.AsyncClient(base_url=set_stack.base_url, timeout=30) as http:
        people = [await Person.register(http) for _ in range(_PEOPLE)]
        await asyncio.gather(*(person.fund(1_000) for person in people))
        yield people


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_LIMIT_S):
        while not await holds():  # noqa: ASYNC110 other processes ring no bell
            await asyncio.sleep(_POLL_S)


async def _pay(people: list[Person]) -> list[tuple[Person, httpx.Response]]:
    """Deposits and withdrawals of each, all taken."""
    sent = [(one, await ask(7)) for one in people for _ in range(_PAYMENTS) for ask in (one.deposit, one.withdraw)]
    assert {answer.status_code for _, answer in sent} == {202}
    return sent


async def _end(sent: list[tuple[Person, httpx.Response]]) -> None:
    ended = await asyncio.gather(*(person.ended(answer.json(), _LIMIT_S) for person, answer in sent))
    assert {operation["status"] for operation in ended} == {"success"}


async def _assert_sound(databases: Databases, stack: Stack) -> None:
    assert await check_ledger(databases, grace=None) == []
    assert "bank.callback_refused" not in stack.log_path(API).read_text()


class TestAWorker:
    @pytest.mark.parametrize("offset", ["+10m", "-10m"])
    async def test_leaves_nothing_behind_when_its_clock_is_right_again(
        self, set_stack: SetStack, set_databases: Databases, people: list[Person], offset: str
    ) -> None:
        """Its claims lay ten minutes ahead, and its callbacks were refused by the hundred."""

        async def is_told(*, is_off: bool) -> bool:
            rows = await set_databases.wallet["workers"].find({"stopped_at": None}).to_list()
            return all(row["clock_is_off"] is is_off for row in rows)

        set_stack.set_clock(WORKER, offset)
        sent = await _pay(people)
        await _until(lambda: is_told(is_off=True))
        sent += await _pay(people)
        for rows in (set_databases.wallet["outbox"], set_databases.wallet["bank_callbacks"]):
            latest = await rows.find_one({"due_at": {"$exists": True}}, sort=[("due_at", -1)])
            assert latest is None or latest["due_at"] < machine_now() + _LEASE, latest
        set_stack.set_clock(WORKER, "+0")
        await _end(sent)
        await _until(lambda: is_told(is_off=False))
        await _assert_sound(set_databases, set_stack)

    async def test_leaves_its_work_to_those_whose_clock_is_right(
        self, set_stack: SetStack, set_databases: Databases, people: list[Person]
    ) -> None:
        set_stack.set_clock(WORKER, "+10m")
        sent = await _pay(people)
        set_stack.start_worker("second")
        await _end(sent)
        set_stack.stop("second")
        set_stack.set_clock(WORKER, "+0")
        await _assert_sound(set_databases, set_stack)


class TestAnApi:
    @pytest.mark.parametrize("offset", ["+10m", "-10m"])
    async def test_takes_no_money_until_its_clock_is_right_again(
        self, set_stack: SetStack, set_databases: Databases, people: list[Person], offset: str
    ) -> None:
        sent = await _pay(people)
        set_stack.set_clock(API, offset)

        async def is_ready(expected: int) -> bool:
            return (await people[0].http.get("/readyz")).status_code == expected

        await _until(lambda: is_ready(503))
        refused = await people[0].deposit(5, key=(key := uuid4().hex))
        assert (refused.status_code, refused.json()["error"]) == (503, "clock_off")
        # Callbacks go on being kept, and tokens being taken.
        await _end(sent)
        set_stack.set_clock(API, "+0")
        await _until(lambda: is_ready(200))
        accepted = await people[0].deposit(5, key=key)
        assert accepted.status_code == 202
        await _end([(people[0], accepted)])
        await _assert_sound(set_databases, set_stack)
