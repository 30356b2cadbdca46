"""Spending over HTTP: what counts, in which month, and within which limits."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service.controllers.spending import SpendingView
from service.database import Databases
from service.domain.entries import EntryType
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.wallets import Wallet
from service.repositories import transaction_logs as log_repository
from service.repositories import users as user_repository
from service.services import spending
from service.settings import Settings
from tests.factories import bearer, make_account
from tests.histories import OPENED_AT, Step, make_old_wallet, write_history
from tests.servers import Admin, fail_point

DAY = 24.0


class Spender:
    def __init__(self, api: httpx.AsyncClient, wallet: Wallet, headers: dict[str, str]) -> None:
        self.api = api
        self.wallet = wallet
        self.headers = headers

    async def ask(self, from_month: str = "2026-01", to_month: str = "2026-12", **query: str) -> httpx.Response:
        months = {"from_month": from_month, "to_month": to_month}
        path = f"/api/v1/wallets/{self.wallet.id}/spending"
        return await self.api.get(path, params=months | query, headers=self.headers)

    async def spent(self, from_month: str = "2026-01", to_month: str = "2026-12") -> list[dict[str, Any]]:
        answer = await self.ask(from_month, to_month)
        assert answer.status_code == 200, answer.text
        months: list[dict[str, Any]] = answer.json()["months"]
        return months


@pytest.fixture
async def spender(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Spender:
    """With an empty wallet, opened as January 2026 began."""
    wallet = await make_old_wallet(databases)
    user = await user_repository.find(wallet.user_id)
    assert user is not None
    return Spender(api, wallet, bearer(user, settings))


def spent(spent: int, paid: int, returned: int, paid_count: int, returned_count: int) -> dict[str, int]:
    return {
        "spent": spent,
        "paid": paid,
        "returned": returned,
        "paid_count": paid_count,
        "returned_count": returned_count,
    }


class TestWhatCounts:
    async def test_is_told_by_month_and_category_the_largest_first(
        self, spender: Spender, databases: Databases
    ) -> None:
        await write_history(
            databases,
            spender.wallet,
            Step(EntryType.DEPOSIT, 100_000),
            Step(EntryType.WITHDRAWAL, 300, "food"),
            Step(EntryType.WITHDRAWAL, 5_000, "rent"),
            Step(EntryType.WITHDRAWAL, 200, "food"),
            Step(EntryType.TRANSFER_OUT, 40),
            Step(EntryType.WITHDRAWAL_SETTLEMENT, 5_000, "rent"),
            Step(EntryType.WITHDRAWAL_REFUND, 300, "food", after_h=31 * DAY),
            Step(EntryType.DEBIT, 100, "fees"),
        )
        answer = await spender.ask("2026-01", "2026-03")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["months"] == [
            {
                "month": "2026-01",
                **spent(5_540, 5_540, 0, 4, 0),
                "categories": [
                    {"category": "rent", **spent(5_000, 5_000, 0, 1, 0)},
                    {"category": "food", **spent(500, 500, 0, 2, 0)},
                    {"category": None, **spent(40, 40, 0, 1, 0)},
                ],
            },
            {
                "month": "2026-02",
                **spent(-200, 100, 300, 1, 1),
                "categories": [
                    {"category": "fees", **spent(100, 100, 0, 1, 0)},
                    {"category": "food", **spent(-300, 0, 300, 0, 1)},
                ],
            },
            {"month": "2026-03", **spent(0, 0, 0, 0, 0), "categories": []},
        ]
        assert (body["wallet_id"], body["currency"]) == (spender.wallet.id, "INR")
        assert (body["from_month"], body["to_month"]) == ("2026-01", "2026-03")
        assert SpendingView(**body).model_dump() == body

    @pytest.mark.parametrize(
        ("step", "amount"),
        [
            (Step(EntryType.WITHDRAWAL, 10), 10),
            (Step(EntryType.TRANSFER_OUT, 10), 10),
            (Step(EntryType.HOLD_CAPTURE, 10), 10),
            (Step(EntryType.DEBIT, 10), 10),
            (Step(EntryType.WITHDRAWAL_REFUND, 10), -10),
            (Step(EntryType.REVERSAL_IN, 10), -10),
            *(
                (Step(kind, 10), 0)
                for kind in (
                    EntryType.DEPOSIT, EntryType.WITHDRAWAL_SETTLEMENT, EntryType.TRANSFER_IN, EntryType.CREDIT,
                    EntryType.HOLD, EntryType.HOLD_RELEASE, EntryType.REVERSAL_OUT, EntryType.CONVERSION_OUT,
                    EntryType.CONVERSION_IN, EntryType.POINTS_EARNED, EntryType.VOUCHER,
                )
            ),
        ],
        ids=lambda value: value.type if isinstance(value, Step) else str(value),
    )  # fmt: skip
    async def test_is_what_is_paid_less_what_comes_back(
        self, spender: Spender, databases: Databases, step: Step, amount: int
    ) -> None:
        await write_history(databases, spender.wallet, Step(EntryType.DEPOSIT, 100), Step(EntryType.HOLD, 50), step)
        (month,) = await spender.spent("2026-01", "2026-01")
        assert month["spent"] == amount

    async def test_is_of_the_entrys_month_in_utc_to_the_millisecond(
        self, spender: Spender, databases: Databases
    ) -> None:
        last_moment = datetime(2026, 2, 1, tzinfo=UTC) - timedelta(milliseconds=1) - OPENED_AT
        await write_history(
            databases,
            spender.wallet,
            Step(EntryType.CREDIT, 100),
            Step(EntryType.DEBIT, 1, after_h=last_moment / timedelta(hours=1) - 1),
            Step(EntryType.DEBIT, 2, after_h=timedelta(milliseconds=1) / timedelta(hours=1)),
        )
        assert [month["spent"] for month in await spender.spent("2026-01", "2026-02")] == [1, 2]
        assert [month["spent"] for month in await spender.spent("2026-01", "2026-01")] == [1]
        assert [month["spent"] for month in await spender.spent("2026-02", "2026-02")] == [2]
        assert [month["spent"] for month in await spender.spent("2025-12", "2025-12")] == [0]

    async def test_of_months_to_come_is_nothing_though_entries_arrive(
        self, spender: Spender, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find_seq_before = log_repository.find_seq_before

        async def find_and_be_overtaken(*arguments: Any) -> int:
            seq = await find_seq_before(*arguments)
            await write_history(databases, spender.wallet, Step(EntryType.CREDIT, 5), Step(EntryType.DEBIT, 5))
            return seq

        monkeypatch.setattr(log_repository, "find_seq_before", find_and_be_overtaken)
        assert [month["spent"] for month in await spender.spent("2030-01", "2030-02")] == [0, 0]


class TestLimits:
    async def test_are_two_years_of_months(self, spender: Spender) -> None:
        months = await spender.spent("2024-12", "2026-11")
        assert len(months) == 24
        assert (months[0]["month"], months[1]["month"], months[-1]["month"]) == ("2024-12", "2025-01", "2026-11")

    @pytest.mark.parametrize(
        ("from_month", "to_month", "pointer", "code"),
        [
            ("2024-12", "2026-12", "/query/to_month", "too_many_months"),
            ("1970-01", "2199-12", "/query/to_month", "too_many_months"),
            ("2026-02", "2026-01", "/query/to_month", "before_from_month"),
            ("2026-13", "2026-12", "/query/from_month", "string_pattern_mismatch"),
            ("2026-1", "2026-12", "/query/from_month", "string_pattern_mismatch"),
            ("2026-01-01", "2026-12", "/query/from_month", "string_pattern_mismatch"),
            ("0000-01", "2026-12", "/query/from_month", "string_pattern_mismatch"),
            ("2026-01", "9999-12", "/query/to_month", "string_pattern_mismatch"),
            ("2026-01", "२०२६-०२", "/query/to_month", "string_pattern_mismatch"),
        ],
    )
    async def test_refuse_what_is_no_range_of_months(
        self, spender: Spender, from_month: str, to_month: str, pointer: str, code: str
    ) -> None:
        answer = await spender.ask(from_month, to_month)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")
        assert [(field["pointer"], field["code"]) for field in answer.json()["errors"]] == [(pointer, code)]

    async def test_refuse_what_is_not_known(self, spender: Spender) -> None:
        answer = await spender.ask(category="rent")
        assert [field["pointer"] for field in answer.json()["errors"]] == ["/query/category"]

    async def test_too_many_categories_are_refused(
        self, spender: Spender, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spending, "_SUMS_LIMIT", 2)
        steps = [Step(EntryType.DEBIT, 1, category) for category in ("a", "b")]
        await write_history(databases, spender.wallet, Step(EntryType.CREDIT, 9), *steps)
        assert len((await spender.spent())[0]["categories"]) == 2
        await write_history(databases, spender.wallet, Step(EntryType.DEBIT, 1, "c"))
        answer = await spender.ask()
        assert (answer.status_code, answer.json()["error"]) == (422, "too_many_categories")

    async def test_a_total_beyond_what_json_carries_is_refused(self, spender: Spender, databases: Databases) -> None:
        there_and_back = (Step(EntryType.CREDIT, MAX_AMOUNT_MINOR), Step(EntryType.DEBIT, MAX_AMOUNT_MINOR))
        await write_history(databases, spender.wallet, *there_and_back)
        assert (await spender.spent())[0]["spent"] == MAX_AMOUNT_MINOR
        await write_history(databases, spender.wallet, *there_and_back)
        answer = await spender.ask()
        assert (answer.status_code, answer.json()["error"]) == (422, "total_overflow")

    async def test_a_sum_that_takes_too_long_is_ended(self, spender: Spender, admin: Admin) -> None:
        # MaxTimeMSExpired, as the server says it.
        with fail_point(admin, times=1, failCommands=["aggregate"], errorCode=50, appName="wallet-service"):
            answer = await spender.ask()
        assert (answer.status_code, answer.json()["error"]) == (422, "search_too_long")


class TestSomebodyElses:
    async def test_is_not_found(self, spender: Spender, databases: Databases) -> None:
        spender.wallet = (await make_account(databases, balance=777)).wallet
        answer = await spender.ask()
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
