"""What several lines of the bank together are."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.bank_lines import BankLine, Flow, LineNote, told_as_batches
from service.domain.breaks import BreakKind, Finding
from service.domain.operations import Operation, OperationStatus, OperationType
from service.domain.reconciliation import OurReturn, judge_lines
from service.domain.sealed import Sealed

_NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
_DAY = "2026-11-20"


def make_operation(amount: int, status: OperationStatus) -> Operation:
    return Operation(
        id="wdr_1",
        type=OperationType.WITHDRAWAL,
        user_id="usr_1",
        wallet_id="wal_1",
        amount=amount,
        currency="INR",
        status=status,
        account_sealed=Sealed("k1", b"sealed"),
        account_masked="•••• 0001",
        category=None,
        description=None,
        metadata={},
        failure_code=None,
        failure_message=None,
        bank_reference="bnk_1",
        attempts=1,
        request_id=None,
        created_at=_NOON,
        updated_at=_NOON,
    )


def paid(amount: int, hours: float = 0, **other: Any) -> BankLine:
    return BankLine("wdr_1", Flow.PAYOUT, amount, "INR", _NOON + timedelta(hours=hours))._replace(**other)


def back(amount: int, hours: float = 0, **other: Any) -> BankLine:
    return paid(amount, hours, flow=Flow.RETURNED_PAYOUT, **other)


def judge(
    lines: list[BankLine], status: OperationStatus = OperationStatus.SUCCESS, returns: int = 0
) -> tuple[list[BreakKind], list[LineNote]]:
    operation = make_operation(1_000, status)
    ours = [OurReturn("rtn_1", "wdr_1", 1_000, "INR", is_booked=True)] * returns
    judged = judge_lines("wdr_1", lines, operation, ours, day=_DAY, booked_before=_NOON + timedelta(days=9))
    return sorted(finding.kind for finding in judged.findings), judged.notes


K, N, S = BreakKind, LineNote, OperationStatus


@pytest.mark.parametrize(
    ("lines", "status", "returns", "kinds", "notes"),
    [
        # Parts.
        ([paid(400), paid(600, 1)], S.SUCCESS, 0, [], [N.PAID_IN_PARTS]),
        ([paid(400), paid(600, 36)], S.SUCCESS, 0, [], [N.PAID_IN_PARTS]),
        ([paid(400), paid(500, 1)], S.SUCCESS, 0, [K.PAID_IN_PARTS], []),
        ([paid(400), paid(700, 1)], S.SUCCESS, 0, [K.AMOUNT_DIFFERS, K.PAID_TWICE], []),
        ([paid(400), paid(600, 1, currency="USD")], S.SUCCESS, 0, [K.AMOUNT_DIFFERS, K.PAID_TWICE], []),
        ([paid(1_000), paid(1_000, 1)], S.SUCCESS, 0, [K.PAID_TWICE], []),
        ([paid(400), paid(600, 1)], S.FAILED, 0, [K.STATE_DIFFERS], [N.PAID_IN_PARTS]),
        # Corrections.
        ([paid(1_000), paid(1_000, 1), back(1_000, 2)], S.SUCCESS, 0, [], [N.CORRECTED]),
        ([paid(100), back(100, 1), paid(1_000, 2)], S.SUCCESS, 0, [], [N.CORRECTED]),
        ([paid(100), back(100, 1), paid(400, 2), paid(600, 3)], S.SUCCESS, 0, [], [N.CORRECTED, N.PAID_IN_PARTS]),
        ([paid(1_000), back(1_000, 1)], S.FAILED, 0, [], [N.CORRECTED]),
        # Of another day it is a return of which we know nothing.
        ([paid(1_000), back(1_000, 24)], S.FAILED, 0, [K.RETURN_MISSING_HERE, K.STATE_DIFFERS], []),
        # What was paid and taken back without our knowing is no correction: our books say that it is there.
        ([paid(1_000), back(1_000, 1)], S.SUCCESS, 0, [K.RETURN_MISSING_HERE], []),
        ([paid(1_000), back(1_000, 1)], S.SUCCESS, 1, [], []),
        ([paid(1_000), paid(1_000), back(1_000, 1), back(1_000, 2)], S.SUCCESS, 1, [], [N.CORRECTED]),
        ([back(1_000), paid(1_000, 1), paid(1_000, 2)], S.SUCCESS, 0, [K.PAID_TWICE, K.RETURN_MISSING_HERE], []),
        ([paid(1_000), paid(999, 1), back(1_000, 2)], S.SUCCESS, 0, [K.AMOUNT_DIFFERS, K.PAID_TWICE,
          K.RETURN_MISSING_HERE], []),
    ],
)  # fmt: skip
def test_is_told_as_what_it_is(
    lines: list[BankLine], status: OperationStatus, returns: int, kinds: list[BreakKind], notes: list[LineNote]
) -> None:
    assert judge(lines, status, returns) == (kinds, notes)


@given(parts=st.lists(st.integers(1, 500), min_size=2, max_size=8), missing=st.integers(-50, 50))
def test_parts_need_nobody_exactly_where_they_add_up(parts: list[int], missing: int) -> None:
    operation = make_operation(max(1, sum(parts) + missing), S.SUCCESS)
    lines = [paid(part, hours=number) for number, part in enumerate(parts)]
    judged = judge_lines("wdr_1", lines, operation, [], day=_DAY, booked_before=_NOON + timedelta(days=9))
    assert (not judged.findings) == (sum(parts) == operation.amount)


@given(amounts=st.lists(st.integers(1, 2_000), max_size=4), backs=st.lists(st.integers(1, 2_000), max_size=4))
def test_a_correction_never_hides_money(amounts: list[int], backs: list[int]) -> None:
    """Where nobody is told anything, the bank has moved on balance what our books say."""
    lines = [paid(amount, number / 100) for number, amount in enumerate(amounts)]
    lines += [back(amount, 1 + number / 100) for number, amount in enumerate(backs)]
    for status, due in ((S.SUCCESS, 1_000), (S.FAILED, 0)):
        kinds, _ = judge(lines, status)
        if not kinds and lines:
            assert sum(amounts) - sum(backs) == due


def stranger(amount: int, **facts: Any) -> Finding:
    return Finding(
        K.MISSING_HERE, "bank-batch-7", {"operation": None}, _facts(amount, **facts) | {"lines": 1}, day=_DAY
    )


def unpaid(number: int, amount: int, **facts: Any) -> Finding:
    return Finding(K.MISSING_THERE, f"wdr_{number}", _facts(amount, **facts), {"lines": 0}, day=_DAY)


def _facts(amount: int, currency: str = "INR", flow: str = "payout") -> dict[str, str | int | None]:
    return {"amount": amount, "currency": currency, "flow": flow}


class TestABatch:
    def test_is_one_line_of_what_all_that_is_missing_comes_to(self) -> None:
        other = unpaid(3, 300, currency="USD")
        batch, left = told_as_batches([stranger(300)], [unpaid(1, 100), unpaid(2, 200), other])
        assert (batch.kind, batch.subject, batch.expected["operations"]) == (K.BATCH_BOOKING, "bank-batch-7", 2)
        assert left == other

    @pytest.mark.parametrize("line", [stranger(299), stranger(300, currency="USD"), stranger(300, flow="collection")])
    def test_is_none_where_sum_currency_or_way_differ(self, line: Finding) -> None:
        missing = [unpaid(1, 100), unpaid(2, 200)]
        assert told_as_batches([line], missing) == [line, *missing]

    def test_is_none_of_one_order(self) -> None:
        assert told_as_batches([stranger(100)], [unpaid(1, 100)]) == [stranger(100), unpaid(1, 100)]

    @given(amounts=st.lists(st.integers(1, 3), max_size=5), lines=st.lists(st.integers(1, 9), max_size=4))
    def test_loses_no_finding(self, amounts: list[int], lines: list[int]) -> None:
        missing = [unpaid(number, amount) for number, amount in enumerate(amounts)]
        told = told_as_batches([stranger(amount) for amount in lines], missing)
        batches = [one for one in told if one.kind is K.BATCH_BOOKING]
        covered = sum(int(one.expected["operations"] or 0) for one in batches)
        assert len(told) == len(lines) + len(missing) - covered
