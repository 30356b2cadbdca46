"""What queries on the log cost: the server's profiler counts the keys and documents that each has looked at."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from service.database import Databases
from service.domain.entries import EntryType
from service.domain.history import BEFORE_THE_FIRST, EntryFilter
from service.domain.wallets import Wallet
from service.repositories import transaction_logs as log_repository
from service.settings import Settings
from tests.histories import OPENED_AT, Step, make_old_wallet, write_history
from tests.servers import Admin

_PAGE = 21
# Above the default of 101 documents in a first batch, and the page by far.
_ENTRIES = 600

Looked = Callable[[], list[dict[str, Any]]]


@pytest.fixture
async def looked(admin: Admin, settings: Settings) -> AsyncIterator[Looked]:
    """What the operations on the log since the test's start have looked at."""
    database = admin[settings.database]
    database["system.profile"].drop()
    database.command({"profile": 2})

    def operations() -> list[dict[str, Any]]:
        return list(database["system.profile"].find({"ns": f"{settings.database}.transaction_logs"}, sort=[("ts", 1)]))

    yield operations
    database.command({"profile": 0})
    database["system.profile"].drop()


@pytest.fixture
async def wallet(databases: Databases) -> Wallet:
    """An entry each hour, but the last 300 in one and the same millisecond."""
    wallet = await make_old_wallet(databases)
    half = _ENTRIES // 2
    steps = [Step(EntryType.DEPOSIT, 1)] * half + [Step(EntryType.DEPOSIT, 1, after_h=0)] * half
    await write_history(databases, wallet, *steps)
    return wallet


class TestPages:
    @pytest.mark.parametrize(
        ("hours", "before_seq", "first_seq", "rows"),
        [
            pytest.param((None, None), None, 600, 21, id="the first"),
            pytest.param((None, None), 30, 29, 21, id="the last"),
            pytest.param((None, 100), None, 99, 21, id="at the end of a time"),
            pytest.param((100, None), 110, 109, 10, id="at the beginning of a time"),
            pytest.param((100, 102), None, 101, 2, id="of a short time"),
            pytest.param((300, None), None, 600, 21, id="of a crowded millisecond"),
            pytest.param((None, 300), None, 299, 21, id="before a crowded millisecond"),
            pytest.param((301, None), None, None, 0, id="after everything"),
            pytest.param((None, 1), None, None, 0, id="before everything"),
        ],
    )
    async def test_cost_the_same_wherever_they_lie(
        self,
        wallet: Wallet,
        looked: Looked,
        hours: tuple[int | None, int | None],
        before_seq: int | None,
        first_seq: int | None,
        rows: int,
    ) -> None:
        since, until = (None if hour is None else OPENED_AT + timedelta(hours=hour) for hour in hours)
        wanted = EntryFilter(created_from=since, created_to=until)
        found = await log_repository.find_of_wallet(wallet.id, wanted, before_seq=before_seq, limit=_PAGE)
        assert [entry.seq for entry in found[:1]] == ([] if first_seq is None else [first_seq])
        assert len(found) == rows
        operations = looked()
        assert len(operations) <= 3
        for operation in operations:
            assert operation["keysExamined"] <= _PAGE
            assert operation["docsExamined"] <= _PAGE


class TestBalances:
    @pytest.mark.parametrize(
        ("hour", "seq"), [(0, 0), (1, 1), (1.5, 1), (250, 250), (299, 299), (300, 600), (9e5, 600)]
    )
    async def test_cost_a_step_in_the_index_for_each_wallet(
        self, databases: Databases, wallet: Wallet, looked: Looked, hour: float, seq: int
    ) -> None:
        empty = await make_old_wallet(databases)
        other = await make_old_wallet(databases)
        await write_history(databases, other, *[Step(EntryType.DEPOSIT, 2)] * 5)
        at = OPENED_AT + timedelta(hours=hour)
        points = await log_repository.find_points_at([wallet.id, empty.id, other.id], at)
        assert points[wallet.id][:3] == (seq, seq, 0)
        assert points[empty.id] == BEFORE_THE_FIRST
        assert points[other.id].available == min(5, int(hour)) * 2
        aggregated = looked()[-1]
        assert aggregated["keysExamined"] <= 8
        assert aggregated["docsExamined"] <= 3

    async def test_just_before_a_moment_leave_out_what_happens_in_it(self, wallet: Wallet) -> None:
        moment = OPENED_AT + timedelta(hours=300)
        assert (await log_repository.find_point_before(wallet.id, moment)).seq == 299
        assert await log_repository.find_seq_before(wallet.id, moment) == 299
        assert (await log_repository.find_point_before(wallet.id, OPENED_AT)) == BEFORE_THE_FIRST
        assert await log_repository.find_seq_before(wallet.id, OPENED_AT) == 0
