"""Points out of nothing: one sum paid in and out again, sent to a friend and back, or taken back by its bank."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.incidents import Said, SaidEvent
from service.domain.operations import Operation
from service.domain.outbox import OutboxTopic, outbox_id, outbox_row
from service.domain.permissions import Role
from service.domain.policy import Policy
from service.domain.rewards import EarningBounds, EarningEvent, EarningRule, Settled
from service.domain.transfers import Transfer
from service.domain.wallets import Wallet
from service.ledger.committer import Ledger
from service.services.orders import Requester
from service.services.returns import apply_return
from service.services.reversals import reverse
from service.services.rewards import earn_points
from service.services.wallets import get_balances
from service.startup import Resources
from tests.factories import (
    change,
    deposit_of,
    fund_wallet,
    make_account,
    make_user,
    run,
    settlement_of,
    transfer_of,
    withdrawal_of,
)

# As .env.example has it: a point for each 100.00 INR.
_SHIPPED = EarningRule("deposits", EarningEvent.DEPOSIT, "INR", 10_000, 1, 1_000)
_ON_TRANSFERS = _SHIPPED._replace(name="transfers", on=EarningEvent.TRANSFER)
_ON_WITHDRAWALS = _SHIPPED._replace(name="withdrawals", on=EarningEvent.WITHDRAWAL)
_SUM = 50_000


class Saver:
    def __init__(self, databases: Databases, ledger: Ledger, wallet: Wallet) -> None:
        self.databases, self.ledger, self.wallet = databases, ledger, wallet

    async def pay_in(self, amount: int = _SUM, *, earns: bool = True) -> Operation:
        operation = await change(self.databases, deposit_of(self.wallet, amount))
        (decided,) = await run(self.databases, settlement_of(operation), policy=self.ledger.policy)
        settled = decided.record
        assert isinstance(settled, Operation)
        if earns:
            await self.earn(settled)
        return settled

    async def earn(self, settled: Settled) -> None:
        row = outbox_row(OutboxTopic.REWARD, settled.id, None, settled.updated_at)
        await earn_points(row, self.ledger, self.databases.client)

    async def pay_out(self, amount: int = _SUM) -> Operation:
        asked = await change(self.databases, withdrawal_of(self.wallet, amount))
        return await change(self.databases, settlement_of(asked))

    async def send(self, friend: "Saver", amount: int = _SUM) -> Transfer:
        (decided,) = await run(self.databases, transfer_of(self.wallet, friend.wallet, amount))
        assert isinstance(decided.record, Transfer), decided
        return decided.record

    async def reverse(self, transfer: Transfer) -> None:
        admin = Requester((await make_user(self.databases, role=Role.ADMIN)).id, None)
        claim = IdempotencyClaim(f"{admin.user_id}:reverse", "fingerprint", utc_now() + timedelta(days=1))
        answer = await reverse(self.ledger, admin, transfer, "A theft", claim, None, is_forced=False)
        assert answer.status_code == 201, answer

    async def take_back(self, settled: Operation) -> None:
        said = Said(SaidEvent.RETURNED, None, settled.amount, settled.currency, "bnk_back", "AC04", None)
        await apply_return(settled, said, self.ledger)

    async def points(self) -> int:
        return sum(one.available for one in await get_balances(self.wallet.user_id) if one.currency == "PTS")


@pytest.fixture
async def ledger(resources: Resources) -> AsyncIterator[Ledger]:
    ledger = Ledger(
        resources.databases.client,
        policy=Policy(earning_rules=(_SHIPPED,), earning_bounds=EarningBounds(points_per_day=12)),
        batch_limit=10,
        queue_limit=10,
        patience_s=5,
        on_committed=lambda _committed: None,
    )
    ledger.start()
    yield ledger
    await ledger.close()


async def somebody(databases: Databases, ledger: Ledger) -> Saver:
    return Saver(databases, ledger, (await make_account(databases)).wallet)


@pytest.fixture
async def saver(databases: Databases, ledger: Ledger) -> Saver:
    return await somebody(databases, ledger)


class TestOneSum:
    async def test_earns_once_however_often_it_is_paid_in_and_out(self, saver: Saver) -> None:
        for _ in range(2):
            await saver.pay_in()
            await saver.pay_out()
        assert await saver.points() == 5

    async def test_earns_nothing_for_two_who_send_it_to_each_other(
        self, saver: Saver, databases: Databases, ledger: Ledger
    ) -> None:
        friend = await somebody(databases, ledger)
        await saver.pay_in()
        await saver.send(friend)
        await friend.pay_out()
        await saver.pay_in()
        assert (await saver.points(), await friend.points()) == (5, 0)

    async def test_earns_once_by_two_workers_that_count_at_once(self, saver: Saver) -> None:
        first = await saver.pay_in(earns=False)
        await saver.pay_out()
        second = await saver.pay_in(earns=False)
        await asyncio.gather(saver.earn(first), saver.earn(second))
        assert await saver.points() == 5


class TestNewMoney:
    async def test_earns_each_time_up_to_the_cap_of_the_day(self, saver: Saver) -> None:
        for _ in range(3):
            await saver.pay_in()
        assert await saver.points() == 12

    async def test_earns_for_the_part_that_is_new(self, saver: Saver) -> None:
        await saver.pay_in(30_000)
        await saver.pay_out(20_000)
        await saver.pay_in(50_000)
        assert await saver.points() == 3 + 3


class TestTheWindow:
    async def test_takes_off_no_money_that_was_there_before_it(self, saver: Saver) -> None:
        """As of somebody who pays in each month and spends it."""
        await saver.pay_in(earns=False)
        begins = utc_now()
        await saver.pay_out()
        settled = await saver.pay_in(earns=False)
        window = EarningBounds(window=settled.updated_at - begins)
        saver.ledger.policy = saver.ledger.policy._replace(earning_bounds=window)
        await saver.earn(settled)
        assert await saver.points() == 5

    async def test_counts_nothing_of_a_deposit_whose_points_went_back(self, saver: Saver) -> None:
        await saver.take_back(await saver.pay_in())
        assert await saver.points() == 0
        await saver.pay_in()
        assert await saver.points() == 5


class TestPoints:
    async def test_whose_row_comes_early_wait_until_they_are_due(self, saver: Saver) -> None:
        waiting = saver.ledger.policy.earning_bounds._replace(pending=timedelta(days=60))
        saver.ledger.policy = saver.ledger.policy._replace(earning_bounds=waiting)
        await saver.pay_in()
        assert await saver.points() == 0

    async def test_of_a_deposit_that_is_taken_back_are_never_credited(self, saver: Saver) -> None:
        waiting = saver.ledger.policy.earning_bounds._replace(pending=timedelta(days=60))
        saver.ledger.policy = saver.ledger.policy._replace(earning_bounds=waiting)
        settled = await saver.pay_in(earns=False)
        named = {"_id": outbox_id(OutboxTopic.REWARD, settled.id)}
        row = await saver.databases.wallet["outbox"].find_one(named)
        assert row is not None
        assert row["due_at"] > utc_now() + timedelta(days=59)
        await saver.take_back(settled)
        assert await saver.databases.wallet["outbox"].find_one(named) is None
        await saver.earn(settled)
        assert await saver.points() == 0


class TestPointsOfATransfer:
    async def test_go_back_with_it(self, saver: Saver, databases: Databases, ledger: Ledger) -> None:
        ledger.policy = ledger.policy._replace(earning_rules=(_ON_TRANSFERS,))
        friend = await somebody(databases, ledger)
        await fund_wallet(databases, saver.wallet, _SUM)
        transfer = await saver.send(friend)
        await saver.earn(transfer)
        assert await saver.points() == 5
        await saver.reverse(transfer)
        assert await saver.points() == 0

    async def test_that_went_back_before_they_were_credited_never_are(
        self, saver: Saver, databases: Databases, ledger: Ledger
    ) -> None:
        ledger.policy = ledger.policy._replace(earning_rules=(_ON_TRANSFERS,))
        friend = await somebody(databases, ledger)
        await fund_wallet(databases, saver.wallet, _SUM)
        transfer = await saver.send(friend)
        await saver.reverse(transfer)
        await saver.earn(transfer)
        assert await saver.points() == 0


class TestPointsOfAWithdrawal:
    async def test_go_back_when_the_bank_returns_it(self, saver: Saver, databases: Databases, ledger: Ledger) -> None:
        ledger.policy = ledger.policy._replace(earning_rules=(_ON_WITHDRAWALS,))
        await fund_wallet(databases, saver.wallet, _SUM)
        paid = await saver.pay_out()
        await saver.earn(paid)
        assert await saver.points() == 5
        await saver.take_back(paid)
        assert await saver.points() == 0
