"""No line of a statement stops a day, no day the days after it, and what people have decided stays decided."""

from datetime import date, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.bank_lines import Flow
from service.domain.breaks import BreakKind, BreakState
from service.domain.clock import utc_now
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.reconciliation import Reconciliation
from service.domain.statement_lines import SetAsideLine, read_line
from service.gateways.bank import BankOutcomeUnknown, StatementLine
from service.repositories import duties as duty_repository
from service.services import reconciliation as reconciliation_service
from service.services.breaks import explain_break, resolve_break
from service.services.integrity import Doubt, find_days_watched, look_at_integrity
from service.services.reconciliation import (
    DUTY,
    Clerk,
    DaysFailed,
    compare_days,
    find_watched_days,
    reconcile_what_is_due,
)
from tests.logs import own_logs
from tests.services.statement_desk import Desk

K = BreakKind
_DAY = timedelta(days=1)


BAD_LINES: list[Any] = [
    {"reference": ""},
    {"reference": None},
    {"reference": "x" * 5_000},
    {"reference": "wdr_\ud800"},
    {"amount": 0},
    {"amount": -5},
    {"amount": 2**63},
    {"amount": 12.5},
    {"amount": True},
    {"currency": "inr"},
    {"currency": None},
    {"kind": "cheque"},
    {"is_return": "no"},
    {"booked_at": None},
    {"booked_at": "2025-01-01"},
    {"bank_reference": 7},
]


class TestABadLine:
    @pytest.mark.parametrize("said", BAD_LINES, ids=lambda said: "{}={!r:.20}".format(*next(iter(said.items()))))
    async def test_is_set_aside_and_stops_neither_its_day_nor_the_next(self, desk: Desk, said: dict[str, Any]) -> None:
        good = desk.pay(await desk.settle())
        desk.bank.lines[desk.day].append(good._replace(**said))
        desk.pay(await desk.settle(at=desk.at(days=1)), at=desk.at(days=1))
        first, second = await compare_days(desk.clerk, [desk.day, desk.day + _DAY])
        assert (first.lines, first.ours, second.lines, second.ours) == (1, 1, 1, 1)
        assert (first.set_aside, second.set_aside) == (1, 0)

    async def test_is_shown_with_its_reason_until_the_bank_corrects_it(self, desk: Desk) -> None:
        good = desk.pay(await desk.settle())
        bad = good._replace(amount=0)
        # The same twice are two.
        desk.bank.lines[desk.day] += [bad, bad]
        for _ in range(2):
            found = await desk.compare()
            assert [kind for kind, _ in found] == [K.LINE_SET_ASIDE, K.LINE_SET_ASIDE]
        one, another = await desk.breaks()
        assert one.subject != another.subject
        assert one.found["reason"] == "amount_not_positive"
        assert good.reference in str(one.found["line"])
        desk.bank.lines[desk.day] = [good]
        assert await desk.compare() == []
        (compared,) = await compare_days(desk.clerk, [desk.day])
        assert (compared.lines, compared.set_aside) == (1, 0)

    async def test_may_be_anything_at_all(self, desk: Desk) -> None:
        class Treacherous:
            @property
            def reference(self) -> str:
                raise RuntimeError

            def __repr__(self) -> str:
                raise RuntimeError

        anything: list[Any] = [None, {}, 7, object(), "line", Treacherous()]
        desk.bank.lines[desk.day] += anything
        (compared,) = await compare_days(desk.clerk, [desk.day])
        assert (compared.lines, compared.set_aside) == (0, 6)
        before = {one.id for one in await desk.breaks()}
        await compare_days(desk.clerk, [desk.day])
        assert {one.id for one in await desk.breaks()} == before, "each has one name in every import"

    async def test_of_a_huge_sum_is_told_as_text(self, desk: Desk) -> None:
        operation = await desk.settle()
        for milliseconds in range(3):
            at = desk.at() + timedelta(milliseconds=milliseconds)
            desk.pay(operation, at=at, amount=MAX_AMOUNT_MINOR)
        assert sorted(kind for kind, _ in await desk.compare()) == [K.AMOUNT_DIFFERS, K.PAID_TWICE]
        assert {one.found["amount"] for one in await desk.breaks()} == {str(3 * MAX_AMOUNT_MINOR)}

    @given(st.builds(StatementLine, *(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans()),) * 7))
    def test_never_raises(self, line: StatementLine) -> None:
        read = read_line(line)
        if isinstance(read, SetAsideLine):
            assert len(read.raw.encode()) < 16_000
        else:
            assert 1 <= read.line.amount <= MAX_AMOUNT_MINOR


class TestADayWhoseComparisonRaises:
    async def test_holds_up_no_other_and_is_tried_again_later_and_later(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As the worker does it."""
        compare = reconciliation_service._compare_day
        days = [desk.day + _DAY * number for number in range(3)]
        tried: list[date] = []

        async def find_these(*_: Any) -> list[date]:
            return days

        async def stumble(clerk: Clerk, day: date) -> Reconciliation:
            tried.append(day)
            if day == desk.day:
                raise ZeroDivisionError
            return await compare(clerk, day)

        monkeypatch.setattr(reconciliation_service, "find_days_due", find_these)
        monkeypatch.setattr(reconciliation_service, "_compare_day", stumble)
        monkeypatch.setattr(reconciliation_service, "LOOK_S", 0.0)
        with own_logs() as lines:
            compared = await reconcile_what_is_due(desk.clerk)
            assert [one.day for one in compared] == [str(day) for day in days[1:]]
            await reconcile_what_is_due(desk.clerk)
            assert tried.count(desk.day) == 1, "it has to wait"
            await _let_try_again(desk)
            await reconcile_what_is_due(desk.clerk)
            assert tried.count(desk.day) == 2
        failed = [line for line in lines if line["event"] == "reconciliation.day_failed"]
        assert [(line["failures"], line["exc_info"] is not None) for line in failed] == [(1, True), (2, False)]
        monkeypatch.setattr(reconciliation_service, "_compare_day", compare)
        await _let_try_again(desk)
        await reconcile_what_is_due(desk.clerk)
        assert (await duty_repository.find_progress(DUTY))["failures"] == {}

    async def test_is_done_with_once_it_was_compared_though_another_days_statement_does_not_come(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compare, statement = reconciliation_service._compare_day, desk.bank.statement
        mute, broken = desk.day + _DAY * 3, {desk.day}

        async def find_these(*_: Any) -> list[date]:
            return [desk.day, desk.day + _DAY * 5, mute]

        async def stumble(clerk: Clerk, day: date) -> Reconciliation:
            if day in broken:
                raise ZeroDivisionError
            return await compare(clerk, day)

        async def say_nothing_of_one(day: date) -> list[StatementLine]:
            if day == mute:
                raise BankOutcomeUnknown("503")
            return await statement(day)

        monkeypatch.setattr(reconciliation_service, "find_days_due", find_these)
        monkeypatch.setattr(reconciliation_service, "_compare_day", stumble)
        monkeypatch.setattr(reconciliation_service, "LOOK_S", 0.0)
        monkeypatch.setattr(desk.bank, "statement", say_nothing_of_one)
        with pytest.raises(BankOutcomeUnknown):
            await reconcile_what_is_due(desk.clerk)
        assert set((await duty_repository.find_progress(DUTY))["failures"]) == {str(desk.day)}
        with pytest.raises(DaysFailed, match="503"):
            await compare_days(desk.clerk, [desk.day, mute])
        broken.clear()
        await _let_try_again(desk)
        with pytest.raises(BankOutcomeUnknown):
            await reconcile_what_is_due(desk.clerk)
        assert (await duty_repository.find_progress(DUTY))["failures"] == {}


async def _let_try_again(desk: Desk) -> None:
    await desk.books.admin.wallet["duties"].update_one(
        {"_id": DUTY}, {"$set": {f"progress.failures.{desk.day}.again_at": utc_now()}}
    )


class TestSoundness:
    async def test_is_not_claimed_while_a_day_is_overdue_or_a_line_unexplained(self, desk: Desk) -> None:
        client, settings = desk.books.databases.client, desk.books.resources.settings
        good = desk.pay(await desk.settle())
        integrity = await look_at_integrity(client, settings)
        assert desk.day in integrity.overdue
        assert Doubt.DAYS_OVERDUE in integrity.doubts
        assert not integrity.is_sound
        assert (await find_days_watched(settings)).ages_s["older"] > _DAY.total_seconds()
        desk.bank.lines[desk.day].append(good._replace(reference=""))
        await compare_days(desk.clerk, [one.day for one in await find_watched_days(settings, utc_now())])
        integrity = await look_at_integrity(client, settings)
        assert (integrity.overdue, integrity.set_aside) == ([], 1)
        assert integrity.doubts == [Doubt.LINES_SET_ASIDE]
        (one,) = [one for one in await desk.breaks() if one.kind is K.LINE_SET_ASIDE]
        await explain_break(client, "usr_1", one.id, "The bank sends a correction", None)
        assert (await look_at_integrity(client, settings)).is_sound


class TestADecision:
    async def test_explained_stays_so_and_keeps_no_day_due_until_the_facts_change(self, desk: Desk) -> None:
        client, settings = desk.books.databases.client, desk.books.resources.settings
        operation = await desk.fail()
        desk.pay(operation)
        await desk.settle()
        assert len(await desk.compare()) == 2
        later = utc_now() + timedelta(hours=7)
        assert desk.day in {one.day for one in await find_watched_days(settings, later)}
        for one in await desk.breaks():
            await explain_break(client, "usr_1", one.id, "The bank looks into it", None)
        assert desk.day not in {one.day for one in await find_watched_days(settings, later)}
        await desk.compare()
        assert {one.state for one in await desk.breaks()} == {BreakState.EXPLAINED}
        desk.pay(operation)
        await desk.compare()
        states = {one.kind: one.state for one in await desk.breaks()}
        assert states == {
            K.STATE_DIFFERS: BreakState.OPEN,
            K.PAID_TWICE: BreakState.OPEN,
            K.MISSING_THERE: BreakState.EXPLAINED,
        }

    @pytest.mark.parametrize("is_from_before", [False, True], ids=["with its facts", "from before facts were kept"])
    async def test_resolved_stays_so_until_the_facts_change(self, desk: Desk, is_from_before: bool) -> None:
        client = desk.books.databases.client
        operation = await desk.fail()
        desk.pay(operation)
        await desk.compare()
        (one,) = await desk.breaks()
        await resolve_break(client, "usr_1", one.id, "The bank took it back by hand", None)
        if is_from_before:
            await desk.books.admin.wallet["breaks"].update_one({"_id": one.id}, {"$unset": {"resolved.facts": ""}})
        for _ in range(2):
            assert await desk.compare() == []
        (seen,) = await desk.breaks()
        assert (seen.id, seen.state, seen.times_seen) == (one.id, BreakState.RESOLVED, 3)
        desk.pay(operation)
        assert sorted(await desk.compare()) == [(K.PAID_TWICE, operation.id), (K.STATE_DIFFERS, operation.id)]
        assert one.id in {known.id for known in await desk.breaks() if known.state is BreakState.RESOLVED}

    async def test_that_the_system_has_resolved_is_none(self, desk: Desk) -> None:
        """It did not show any more; where it shows again, that is news."""
        operation = await desk.settle()
        await desk.compare()
        line = desk.pay(operation)
        assert await desk.compare() == []
        desk.bank.lines[desk.day].remove(line)
        assert await desk.compare() == [(K.MISSING_THERE, operation.id)]


class TestWhatALineIs:
    async def test_parts_that_add_up_and_corrections_are_noted_and_no_breaks(self, desk: Desk) -> None:
        in_parts, corrected = await desk.settle(), await desk.settle()
        desk.pay(in_parts, amount=400)
        desk.pay(in_parts, amount=600, at=desk.at(time(13)))
        for hour, is_return in ((12, False), (13, False), (14, True)):
            desk.pay(corrected, at=desk.at(time(hour)), is_return=is_return)
        (compared,) = await compare_days(desk.clerk, [desk.day])
        assert (compared.breaks, compared.notes) == ({}, {"corrected": 1, "paid_in_parts": 1})

    async def test_a_batch_booking_is_one_break_for_all_its_orders(self, desk: Desk) -> None:
        orders = [await desk.settle(amount) for amount in (100, 200, 300)]
        batch = desk.pay(orders[0], reference="BATCH/7", amount=600)
        assert await desk.compare() == [(K.BATCH_BOOKING, batch.reference)]
        (one,) = await desk.breaks()
        assert (one.expected["operations"], one.expected["amount"], one.found["amount"]) == (3, 600, 600)

    async def test_fees_are_one_break_a_day_and_currency_however_many(self, desk: Desk) -> None:
        operation = await desk.settle()
        desk.pay(operation)
        # With the order's reference, and without any.
        desk.pay(operation, is_fee=True, amount=7)
        desk.pay(operation, is_fee=True, amount=5, reference="")
        assert await desk.compare() == [(K.FEE, f"fees/{desk.day}/INR")]
        (one,) = await desk.breaks()
        assert one.found["amount"] == 12
        (compared,) = await compare_days(desk.clerk, [desk.day])
        assert [(total.bank, total.ours) for total in compared.totals if total.flow is Flow.FEE] == [(12, 0)]
