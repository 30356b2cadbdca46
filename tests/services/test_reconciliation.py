"""Days against the bank's statements: what agrees is left in peace, each way to disagree is found and named."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from service.domain.bank_lines import Flow
from service.domain.breaks import SYSTEM, BreakKind, BreakState
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.reconciliation import DayTotal, watched_days
from service.gateways.bank import BankOrder, BankOutcomeUnknown, OrderKind, StatementLine
from service.gateways.bank_behaviours import paid_row
from service.ledger.orders import FlagForReview, NoteAttempt
from service.repositories import bank_orders as journal
from service.repositories import duties as duty_repository
from service.repositories import reconciliations as reconciliation_repository
from service.services import leases
from service.services import reconciliation as reconciliation_service
from service.services.reconciliation import DUTY, compare_days, reconcile_what_is_due
from tests.factories import (
    change,
    change_of,
)
from tests.services.statement_desk import Desk

K = BreakKind


class TestADay:
    async def test_that_agrees_has_no_breaks_and_is_remembered_with_both_sides(self, desk: Desk) -> None:
        desk.pay(await desk.settle(1_000))
        desk.pay(await desk.settle(500))
        desk.pay(await desk.settle(70, deposit=True))
        (compared,) = await compare_days(desk.clerk, [desk.day])
        assert (compared.day, compared.lines, compared.ours, compared.breaks) == (desk.day.isoformat(), 3, 3, {})
        assert compared.totals == (
            DayTotal(Flow.COLLECTION, "INR", 70, 70),
            DayTotal(Flow.PAYOUT, "INR", 1_500, 1_500),
        )
        (again,) = await compare_days(desk.clerk, [desk.day])
        assert (again.comparisons, again.lines, again.first_compared_at) == (2, 3, compared.first_compared_at)
        assert again.compared_at >= compared.compared_at
        assert await desk.breaks() == []

    async def test_is_compared_in_portions(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reconciliation_service, "_PORTION", 2)
        for _ in range(5):
            desk.pay(await desk.settle())
        unknown = await desk.settle()
        assert await desk.compare() == [(K.MISSING_THERE, unknown.id)]

    async def test_edges_are_the_banks_matter_and_no_break(self, desk: Desk) -> None:
        last, first = time(23, 59, 59), time(0, 0, 1)
        desk.pay(await desk.settle(at=desk.at(last)), at=desk.at(first, days=1))
        desk.pay(await desk.settle(at=desk.at(first)), at=desk.at(last, days=-1))
        for near in (-1, 0, 1):
            assert await desk.compare(near) == []

    async def test_that_is_not_over_is_not_judged_by_what_is_missing(self, desk: Desk) -> None:
        today = utc_now().date()
        desk.day = today
        await desk.settle(at=desk.at(time(0)))
        assert K.MISSING_THERE not in {kind for kind, _ in await desk.compare()}

    async def test_of_a_silent_bank_is_left_for_later(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        async def say_nothing(_day: date) -> list[StatementLine]:
            await asyncio.sleep(1)
            return []

        monkeypatch.setattr(leases, "STATEMENT_LIMIT_S", 0.01)
        monkeypatch.setattr(desk.bank, "statement", say_nothing)
        with pytest.raises(BankOutcomeUnknown):
            await compare_days(desk.clerk, [desk.day])

    async def test_whose_statement_does_not_come_holds_up_no_other(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[date] = []
        statement = desk.bank.statement

        async def say_nothing_of_one(day: date) -> list[StatementLine]:
            asked.append(day)
            if day == desk.day:
                raise BankOutcomeUnknown("503")
            return await statement(day)

        monkeypatch.setattr(desk.bank, "statement", say_nothing_of_one)
        later = [desk.day + timedelta(days=days) for days in (0, 1, 2, 3)]
        with pytest.raises(BankOutcomeUnknown):
            await compare_days(desk.clerk, later)
        compared = [await reconciliation_repository.find(day.isoformat()) for day in later]
        assert [one is not None for one in compared] == [False, False, True, True]
        assert asked.count(desk.day) == 1

    async def test_is_no_other_workers_while_its_statement_is_awaited(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []
        statement = desk.bank.statement

        async def heard(rows: int) -> None:
            told.append(f"{rows} rows")

        async def asked(day: date) -> list[StatementLine]:
            told.append("asked")
            return await statement(day)

        monkeypatch.setattr(desk.bank, "statement", asked)
        await compare_days(desk.clerk._replace(on_progress=heard), [desk.day])
        assert told[:2] == ["0 rows", "asked"]


class TestBreaks:
    async def test_money_under_a_reference_that_nobody_here_knows(self, desk: Desk) -> None:
        operation = await desk.settle()
        desk.pay(operation)
        unknown = desk.pay(operation, reference=new_id(Prefix.WITHDRAWAL))
        stranger = desk.pay(operation, reference="INV/2025/7")
        found = await desk.compare()
        assert sorted(found) == sorted([(K.MISSING_HERE, unknown.reference), (K.MISSING_HERE, stranger.reference)])

    @pytest.mark.parametrize("deposit", [False, True])
    async def test_a_success_that_no_statement_has(self, desk: Desk, deposit: bool) -> None:
        operation = await desk.settle(deposit=deposit)
        assert await desk.compare() == [(K.MISSING_THERE, operation.id)]

    @pytest.mark.parametrize(
        "said",
        [{"amount": 999}, {"currency": "USD"}, {"kind": OrderKind.COLLECTION}],
        ids=["amount", "currency", "way"],
    )
    async def test_another_amount(self, desk: Desk, said: dict[str, Any]) -> None:
        operation = await desk.settle()
        desk.pay(operation, **said)
        assert await desk.compare() == [(K.AMOUNT_DIFFERS, operation.id)]
        (one,) = await desk.breaks()
        assert (one.expected["amount"], one.expected["currency"]) == (1_000, "INR")
        assert one.found["amount"] == said.get("amount", 1_000)

    async def test_paid_though_we_say_that_it_failed(self, desk: Desk) -> None:
        operation = await desk.fail()
        desk.pay(operation)
        assert await desk.compare() == [(K.STATE_DIFFERS, operation.id)]

    async def test_paid_and_still_open_here(self, desk: Desk) -> None:
        pending, begun, reviewed = [await desk.ask() for _ in range(3)]
        await change(desk.books.databases, change_of(NoteAttempt, begun))
        flag = change_of(FlagForReview, reviewed, failure_code="unknown", failure_message="No word")
        await change(desk.books.databases, flag)
        for one in (pending, begun, reviewed):
            desk.pay(one)
        assert sorted(await desk.compare()) == sorted((K.UNAPPLIED, one.id) for one in (pending, begun, reviewed))

    async def test_paid_a_moment_ago_may_still_be_open_here(self, desk: Desk) -> None:
        desk.day = utc_now().date()
        operation = await desk.ask()
        desk.pay(operation, at=utc_now())
        assert (K.UNAPPLIED, operation.id) not in await desk.compare()

    @pytest.mark.parametrize("later", [0, 1], ids=["the same day", "the next day"])
    async def test_paid_twice(self, desk: Desk, later: int) -> None:
        operation = await desk.settle()
        desk.pay(operation)
        desk.pay(operation, at=desk.at(days=later))
        assert await desk.compare() == [(K.PAID_TWICE, operation.id)]
        await desk.compare(later)
        assert len(await desk.breaks()) == 1

    async def test_paid_twice_in_one_millisecond_is_twice_in_each_import(self, desk: Desk) -> None:
        operation = await desk.settle()
        desk.bank.lines[desk.day] += [desk.pay(operation)]
        for _ in range(2):
            assert await desk.compare() == [(K.PAID_TWICE, operation.id)]
        (compared,) = await compare_days(desk.clerk, [desk.day])
        assert compared.lines == 2

    async def test_money_that_came_back_and_is_not_here(self, desk: Desk) -> None:
        operation = await desk.settle()
        desk.pay(operation)
        desk.pay(operation, is_return=True)
        assert await desk.compare() == [(K.RETURN_MISSING_HERE, operation.id)]

    @pytest.mark.parametrize("deposit", [False, True])
    async def test_money_that_came_back_on_both_sides_is_none(self, desk: Desk, deposit: bool) -> None:
        operation = await desk.give_back(await desk.settle(deposit=deposit))
        desk.pay(operation)
        desk.pay(operation, at=desk.at(days=1), is_return=True)
        assert [await desk.compare(days) for days in (0, 1)] == [[], []]
        (compared,) = await compare_days(desk.clerk, [desk.day])
        returned = Flow.RETURNED_COLLECTION if deposit else Flow.RETURNED_PAYOUT
        assert [(one.bank, one.ours) for one in compared.totals if one.flow is returned] == [(0, 1_000)]

    async def test_money_that_came_back_here_and_in_no_statement(self, desk: Desk) -> None:
        operation = await desk.give_back(await desk.settle())
        desk.pay(operation)
        assert await desk.compare() == [(K.RETURN_MISSING_THERE, operation.id)]

    async def test_money_that_came_back_in_another_amount(self, desk: Desk) -> None:
        operation = await desk.give_back(await desk.settle())
        desk.pay(operation)
        desk.pay(operation, is_return=True, amount=999)
        assert await desk.compare() == [(K.RETURN_DIFFERS, operation.id)]

    async def test_freeze_no_wallet(self, desk: Desk) -> None:
        operation = await desk.fail()
        desk.pay(operation)
        await desk.settle()
        assert len(await desk.compare()) == 2
        assert await desk.books.state_of(desk.wallet) == ("active", None)

    async def test_resolve_themselves_when_the_statement_comes_late(self, desk: Desk) -> None:
        operation = await desk.settle()
        assert await desk.compare() == [(K.MISSING_THERE, operation.id)]
        desk.pay(operation)
        assert await desk.compare() == []
        (one,) = await desk.breaks()
        assert one.resolved is not None
        assert one.resolved.by == SYSTEM

    async def test_resolve_themselves_when_the_bank_takes_its_line_back(self, desk: Desk) -> None:
        operation = await desk.settle()
        desk.pay(operation)
        wrong = desk.pay(operation, reference="wdr_of-somebody-else")
        assert await desk.compare() == [(K.MISSING_HERE, wrong.reference)]
        desk.bank.lines[desk.day].remove(wrong)
        assert await desk.compare() == []

    async def test_that_show_still_are_seen_again_and_not_told_twice(self, desk: Desk) -> None:
        await desk.settle()
        await desk.compare()
        await desk.compare()
        (one,) = await desk.breaks()
        assert (one.times_seen, one.state) == (2, BreakState.OPEN)


class TestTheSimulatedBank:
    """Damage in its own journal: the independent witness."""

    async def test_a_payment_removed_added_or_changed_is_found(self, desk: Desk) -> None:
        bank = desk.books.resources.bank
        desk.clerk = desk.clerk._replace(bank=bank)
        operations = [await desk.settle() for _ in range(4)]
        orders = desk.books.admin.bank["orders"]
        orders_in = [
            paid_row(
                BankOrder(operation.id, OrderKind.PAYOUT, operation.amount, "INR", "bank-account-0001"),
                desk.at(),
                desk.clerk.settings,
            )
            for operation in operations
        ]
        await journal.insert_missing(orders_in)
        assert await desk.compare() == []
        sound, removed, doubled, changed = operations
        await orders.update_one({"_id": removed.id}, {"$set": {"payments": []}})
        (payment,) = (await orders.find_one({"_id": doubled.id}) or {})["payments"]
        await orders.update_one({"_id": doubled.id}, {"$push": {"payments": payment}})
        await orders.update_one({"_id": changed.id}, {"$set": {"payments.0.amount": payment["amount"] + 1}})
        found = {subject: kind for kind, subject in await desk.compare()}
        assert found == {removed.id: K.MISSING_THERE, doubled.id: K.PAID_TWICE, changed.id: K.AMOUNT_DIFFERS}
        assert sound.id not in found


_NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)


def due(compared: dict[date, datetime], *, now: datetime = _NOW, broken: Sequence[date] = ()) -> list[int]:
    """Days of November, of which the first with an entry is the 14th."""
    grace, interval = timedelta(hours=2), timedelta(hours=6)
    found = watched_days(date(2026, 11, 14), compared, broken, now, grace=grace, interval=interval, days_back=3)
    return [one.day.day for one in found if one.due_at <= now]


class TestWhatIsDue:
    def test_is_every_day_that_is_over_and_was_never_compared(self) -> None:
        assert due({}) == [14, 15, 16, 17, 18, 19]

    def test_is_not_a_day_that_has_just_ended(self) -> None:
        assert due({}, now=_NOW.replace(hour=1, minute=59)) == [14, 15, 16, 17, 18]
        assert due({}, now=_NOW.replace(hour=2)) == [14, 15, 16, 17, 18, 19]

    def test_is_again_what_is_recent_after_a_while(self) -> None:
        long_ago, lately = _NOW - timedelta(hours=6), _NOW - timedelta(hours=5)
        compared = {date(2026, 11, day): long_ago for day in range(14, 20)}
        assert due(compared) == [17, 18, 19]
        assert due(compared | {date(2026, 11, 18): lately}) == [17, 19]

    def test_is_again_what_has_breaks_however_long_ago(self) -> None:
        compared = {date(2026, 11, day): _NOW - timedelta(hours=7) for day in range(14, 20)}
        assert due(compared, broken=[date(2026, 11, 14)]) == [14, 17, 18, 19]

    async def test_several_workers_at_once_compare_each_day_once(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        yesterday = utc_now().date() - timedelta(days=1)
        asked: list[date] = []

        async def find_yesterday(*_: Any) -> list[date]:
            return [yesterday]

        async def note(day: date) -> list[StatementLine]:
            asked.append(day)
            await asyncio.sleep(0.05)
            return []

        monkeypatch.setattr(reconciliation_service, "find_days_due", find_yesterday)
        monkeypatch.setattr(desk.bank, "statement", note)
        done = await asyncio.gather(*(reconcile_what_is_due(desk.clerk) for _ in range(4)))
        assert sum(len(compared) for compared in done) == 1
        assert len(asked) == len(set(asked)) == 3
        assert await duty_repository.claim(DUTY, now=utc_now(), lease_s=1) is None
