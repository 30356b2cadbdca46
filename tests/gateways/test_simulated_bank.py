"""The simulated bank as its client sees it: answers, what it tells when asked, statements, outages and its clock."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.gateways.bank import BankOrder, BankOutcomeUnknown, BankRejected, BankState, OrderKind
from service.gateways.simulated_bank import SimulatedBank
from service.repositories import bank_conditions
from service.repositories import bank_orders as journal
from service.startup import Resources
from tests.servers import Admin
from workers.bank_simulation import BankWork

S, F, A = BankState.SUCCESS, BankState.FAILED, BankState.ACCEPTED


def _order(behaviour: str, **overrides: object) -> BankOrder:
    order = BankOrder(new_id(Prefix.WITHDRAWAL), OrderKind.PAYOUT, 500, "INR", f"savings-{behaviour}")
    return order._replace(**overrides)  # type: ignore[arg-type]  # a test may hand in anything


@pytest.fixture
async def bank(resources: Resources, admin: Admin) -> AsyncIterator[SimulatedBank]:
    """It is up again afterwards, and its clock is right."""
    yield SimulatedBank(resources.settings.model_copy(update={"bank_timeout_s": 0.05}), resources.jobs)
    admin[resources.settings.bank_database]["conditions"].delete_many({})


class Deaf(BankWork):
    """Of the worker's part only the money."""

    async def act(self) -> None:
        self.conditions.forget()
        while batches := await self.claim(1):
            for orders in batches:
                for order in orders:
                    order["reports"] = []
                await self.work(orders)


async def _answer(bank: SimulatedBank, order: BankOrder) -> str:
    try:
        return (await bank.submit(order)).state
    except BankRejected as rejected:
        return rejected.code
    except BankOutcomeUnknown as unknown:
        return str(unknown)


_SILENCE = "no answer from the bank in time"


class TestAnswers:
    @pytest.mark.parametrize(
        ("behaviour", "answer", "end", "payments", "returns"),
        [
            ("success", A, S, 1, 0),
            ("decline", A, F, 0, 0),
            ("insufficient-funds", A, F, 0, 0),
            ("invalid-account", "invalid_account", None, 0, 0),
            ("unavailable", "503 from the bank", None, 0, 0),
            ("timeout", _SILENCE, None, 0, 0),
            ("timeout-after", _SILENCE, S, 1, 0),
            ("paid-500", "500 from the bank", S, 1, 0),
            ("silent", A, S, 1, 0),
            ("silent-decline", A, F, 0, 0),
            ("callback-first", S, S, 1, 0),
            ("duplicate", A, S, 1, 0),
            ("duplicate-anew", A, S, 1, 0),
            ("late", A, S, 1, 0),
            ("success-then-failed", A, S, 1, 0),
            ("failed-then-success", A, F, 0, 0),
            ("other-amount", A, S, 1, 0),
            ("unknown-reference", A, S, 1, 0),
            ("returned", A, S, 1, 1),
            ("out-of-order", A, S, 1, 1),
        ],
    )
    async def test_and_what_becomes_of_the_order_once_however_often_it_is_handed_in(
        self,
        bank: SimulatedBank,
        resources: Resources,
        behaviour: str,
        answer: str,
        end: BankState | None,
        payments: int,
        returns: int,
    ) -> None:
        order = _order(behaviour)
        assert await _answer(bank, order) == answer
        work = Deaf(resources.settings)
        await asyncio.sleep(0.06)
        await work.act()
        await bank_conditions.advance_clock(timedelta(days=4))
        await work.act()
        work.close()
        found = await bank.find(order.reference)
        assert (None if found is None else found.state) == end
        if end is not None:
            assert await _answer(bank, order) == end
            row = await journal.get(order.reference)
            assert (len(row["payments"]), len(row["returns"]), row["submissions"]) == (payments, returns, 2)

    async def test_a_reference_belongs_to_one_order(self, bank: SimulatedBank) -> None:
        order = _order("success")
        await bank.submit(order)
        with pytest.raises(BankRejected, match="reference_reused"):
            await bank.submit(order._replace(amount=501))

    async def test_of_many_that_hand_in_one_order_at_once_one_is_the_first(self, bank: SimulatedBank) -> None:
        order = _order("success")
        answers = await asyncio.gather(*(bank.submit(order) for _ in range(20)))
        assert len({answer.bank_reference for answer in answers}) == 1
        assert (await journal.get(order.reference))["submissions"] == 20


class TestStatements:
    async def test_have_each_payment_and_each_return_on_its_day(
        self, bank: SimulatedBank, resources: Resources
    ) -> None:
        order = _order("returned")
        await bank.submit(order)
        work = Deaf(resources.settings)
        await asyncio.sleep(0.06)
        await work.act()
        paid = (await journal.get(order.reference))["payments"][0]["at"]
        await bank_conditions.advance_clock(timedelta(days=3, minutes=1))
        await work.act()
        work.close()
        back = (await journal.get(order.reference))["returns"][0]["at"]
        assert timedelta(days=3) < back - paid < timedelta(days=3, minutes=5)
        lines = {
            (at.date(), line.is_return, line.amount)
            for at in (paid, back, back + timedelta(days=1))
            for line in await bank.statement(at.date())
            if line.reference == order.reference
        }
        assert lines == {(paid.date(), False, 500), (back.date(), True, 500)}


class TestOutages:
    async def test_a_bank_that_is_down_answers_503_at_once_and_has_nothing_of_it(self, bank: SimulatedBank) -> None:
        await bank_conditions.go_down(utc_now() + timedelta(minutes=1), hangs=False)
        bank.conditions.forget()
        order = _order("success")
        with pytest.raises(BankOutcomeUnknown, match="it is down"):
            await bank.submit(order)
        with pytest.raises(BankOutcomeUnknown, match="it is down"):
            await bank.find(order.reference)
        with pytest.raises(BankOutcomeUnknown, match="it is down"):
            await bank.statement(utc_now().date())
        await bank_conditions.come_up()
        bank.conditions.forget()
        assert await bank.find(order.reference) is None

    async def test_one_that_hangs_outlasts_whoever_asks(self, bank: SimulatedBank) -> None:
        await bank_conditions.go_down(utc_now() + timedelta(minutes=1), hangs=True)
        bank.conditions.forget()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await bank.submit(_order("success"))

    async def test_executes_and_reports_nothing_meanwhile(self, bank: SimulatedBank, resources: Resources) -> None:
        order = _order("success")
        await bank.submit(order)
        await bank_conditions.go_down(utc_now() + timedelta(minutes=1), hangs=False)
        await bank_conditions.advance_clock(timedelta(minutes=1))
        work = Deaf(resources.settings)
        await work.act()
        assert (await journal.get(order.reference))["state"] == A
        await bank_conditions.come_up()
        await work.act()
        work.close()
        assert (await journal.get(order.reference))["state"] == S

    async def test_come_by_schedule_too(self, resources: Resources) -> None:
        always = {"bank_outage_every_s": 3600.0, "bank_outage_length_s": 3600.0, "bank_outage_hangs": False}
        never = always | {"bank_outage_length_s": 0.0}
        outages = [
            await SimulatedBank(resources.settings.model_copy(update=schedule), resources.jobs).conditions.outage()
            for schedule in (always, never)
        ]
        assert [outage is None for outage in outages] == [False, True]

    async def test_end_by_themselves(self, bank: SimulatedBank) -> None:
        await bank_conditions.go_down(utc_now() - timedelta(seconds=1), hangs=False)
        bank.conditions.forget()
        assert await bank.conditions.outage() is None


class TestTheClock:
    async def test_is_one_for_all_processes_and_never_goes_back(self, bank: SimulatedBank) -> None:
        await bank_conditions.advance_clock(timedelta(days=2))
        await bank_conditions.advance_clock(timedelta(days=1))
        bank.conditions.forget()
        assert timedelta(days=2, hours=23) < await bank.conditions.now() - utc_now() <= timedelta(days=3)
        with pytest.raises(ValueError, match="never goes back"):
            await bank_conditions.advance_clock(timedelta(days=-1))
