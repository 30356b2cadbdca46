"""Points: earned by what settles, credited once whatever runs twice."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scripts.check_ledger import check_ledger
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.money import POINTS
from service.domain.operations import Operation, OperationStatus
from service.domain.policy import Policy
from service.domain.rewards import EarningEvent, EarningRoom, EarningRule, Reward, RewardStatus, reward_id
from service.domain.step_up import Challenge
from service.domain.transfers import Transfer
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.errors import NotFound, NoWalletInCurrency
from service.ledger.approvals import ConfirmPayment
from service.ledger.committer import Ledger
from service.ledger.rewards import RoomMoved
from service.ledger.transfers import RequestTransfer
from service.services.wallets import get_balances
from tests.factories import (
    GENEROUS,
    Account,
    change,
    current,
    deposit_of,
    earning_of,
    failure_of,
    make_account,
    make_funded_wallet,
    make_saver,
    make_wallet,
    run,
    settlement_of,
    withdrawal_of,
)

_ON_ALL = Policy(
    earning_rules=tuple(EarningRule(event.value, event, "INR", 100, 1, 1_000, minimum=200) for event in EarningEvent)
)


async def _waiting(databases: Databases, operation_id: str) -> int:
    return await databases.wallet["outbox"].count_documents({"_id": f"reward:{operation_id}"})


async def _settled_deposit(databases: Databases, wallet: Wallet, amount: int = 500) -> Operation:
    (decided,) = await run(
        databases, settlement_of(await change(databases, deposit_of(wallet, amount))), policy=GENEROUS
    )
    assert isinstance(decided.record, Operation)
    return decided.record


async def _money_of(saver: Account) -> Wallet:
    """Their INR wallet."""
    (wallet, _points) = await get_balances(saver.user.id)
    return wallet


def _transfer_of(sender: Wallet, recipient: Wallet, amount: int) -> RequestTransfer:
    return RequestTransfer(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        user_id=sender.user_id,
        token_version=None,
        transfer_id=new_id(Prefix.TRANSFER),
        wallet_id=sender.id,
        to_wallet_id=recipient.id,
        to_user_id=None,
        amount=amount,
        currency=sender.currency,
        category=None,
        description=None,
        metadata={},
        out_entry_id=new_id(Prefix.ENTRY),
        in_entry_id=new_id(Prefix.ENTRY),
    )


class TestWhatSettles:
    @pytest.mark.parametrize(("amount", "rows"), [(199, 0), (200, 1)])
    async def test_leaves_word_only_where_a_rule_fits(self, databases: Databases, amount: int, rows: int) -> None:
        wallet = await make_funded_wallet(databases, 10_000)
        for order in (deposit_of(wallet, amount), withdrawal_of(wallet, amount)):
            operation = await change(databases, order)
            assert await _waiting(databases, operation.id) == 0
            await run(databases, settlement_of(operation), policy=_ON_ALL)
            assert await _waiting(databases, operation.id) == rows

    async def test_leaves_it_once_however_often_the_bank_tells(self, databases: Databases) -> None:
        operation = await change(databases, deposit_of((await make_account(databases)).wallet, 500))
        await run(databases, settlement_of(operation), policy=GENEROUS)
        await run(databases, settlement_of(operation), settlement_of(operation), policy=GENEROUS)
        assert await _waiting(databases, operation.id) == 1

    async def test_leaves_none_where_it_comes_to_nothing(self, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 10_000)
        for order in (deposit_of(wallet, 500), withdrawal_of(wallet, 500)):
            operation = await change(databases, order)
            await run(databases, failure_of(operation), policy=_ON_ALL)
            assert await _waiting(databases, operation.id) == 0

    async def test_a_transfers_points_are_the_senders(self, databases: Databases) -> None:
        saver, recipient = await make_saver(databases), await make_saver(databases)
        money = await _money_of(saver)
        await change(databases, settlement_of(await change(databases, deposit_of(money, 1_000))))
        small = _transfer_of(money, await _money_of(recipient), 199)
        large = _transfer_of(money, await _money_of(recipient), 500)
        _, made = await run(databases, small, large, policy=_ON_ALL)
        assert isinstance(made.record, Transfer)
        assert await _waiting(databases, small.transfer_id) == 0
        assert await _waiting(databases, large.transfer_id) == 1
        (credited,) = await run(databases, earning_of(made.record), policy=_ON_ALL)
        assert isinstance(credited.record, Reward)
        assert (credited.record.points, credited.record.rules) == (5, {"transfer": 5})
        assert (await current(saver.wallet)).available == 5
        assert (await current(recipient.wallet)).available == 0

    async def test_a_transfer_that_waits_for_a_code_leaves_it_once_it_is_confirmed(self, databases: Databases) -> None:
        sender, recipient = await make_funded_wallet(databases, 1_000), (await make_account(databases)).wallet
        challenge = Challenge("nonce", "0" * 64, utc_now() + timedelta(minutes=5), 3)
        waiting = replace(_transfer_of(sender, recipient, 500), challenge=challenge)
        await run(databases, waiting, policy=_ON_ALL)
        assert await _waiting(databases, waiting.transfer_id) == 0
        (confirmed,) = await run(
            databases,
            ConfirmPayment(
                now=utc_now(),
                transaction_id=new_id(Prefix.TRANSACTION),
                user_id=sender.user_id,
                token_version=None,
                payment_id=waiting.transfer_id,
                wallet_id=sender.id,
                to_wallet_id=recipient.id,
                release_entry_id=new_id(Prefix.ENTRY),
                code_hash="",
                is_verified=True,
                out_entry_id=new_id(Prefix.ENTRY),
                in_entry_id=new_id(Prefix.ENTRY),
            ),
            policy=_ON_ALL,
        )
        assert isinstance(confirmed.record, Transfer)
        assert confirmed.record.status is OperationStatus.SUCCESS
        assert await _waiting(databases, waiting.transfer_id) == 1


class TestEarning:
    async def test_credits_the_points_with_an_entry_of_the_reward_and_ends_the_row(self, databases: Databases) -> None:
        saver = await make_saver(databases, 500)
        wallet = await current(saver.wallet)
        assert (wallet.available, wallet.held, wallet.open_operations) == (500, 0, 0)
        entry = await databases.wallet["transaction_logs"].find_one({"wallet_id": wallet.id})
        reward = await databases.wallet["rewards"].find_one({"user_id": saver.user.id})
        assert entry is not None
        assert reward is not None
        assert (entry["type"], entry["amount"], entry["currency"]) == ("POINTS_EARNED", 500, POINTS)
        assert (entry["reference"], entry["counterparty"]) == (reward["_id"], "house:rewards")
        assert (reward["_id"], reward["rules"]) == (reward_id(reward["operation_id"]), {"tests": 500})
        assert await _waiting(databases, reward["operation_id"]) == 0

    async def test_happens_once_in_one_batch_and_in_the_next(self, databases: Databases) -> None:
        saver = await make_saver(databases)
        operation = await _settled_deposit(databases, await _money_of(saver))
        decided = await run(databases, earning_of(operation), earning_of(operation), policy=GENEROUS)
        decided += await run(databases, earning_of(operation), policy=GENEROUS)
        assert len({one.record.transaction_id for one in decided if isinstance(one.record, Reward)}) == 1
        assert (await current(saver.wallet)).available == 500

    async def test_waits_for_a_wallet(self, databases: Databases) -> None:
        operation = await _settled_deposit(databases, (await make_account(databases)).wallet)
        (decided,) = await run(databases, earning_of(operation), policy=GENEROUS)
        assert isinstance(decided.error, NoWalletInCurrency)
        assert await _waiting(databases, operation.id) == 1

    async def test_a_closed_wallet_stays_closed_and_the_points_lapse(self, databases: Databases) -> None:
        account = await make_account(databases)
        closed = await make_wallet(databases, account.user, currency=POINTS, status=WalletStatus.CLOSED)
        operation = await _settled_deposit(databases, account.wallet)
        (decided,) = await run(databases, earning_of(operation), policy=GENEROUS)
        assert isinstance(decided.record, Reward)
        assert (decided.record.status, decided.record.points) == (RewardStatus.LAPSED, 500)
        # Told, and otherwise as it was.
        assert await current(closed) == closed._replace(event_sequence=1)
        assert await _waiting(databases, operation.id) == 0

    @pytest.mark.parametrize("freeze", [*Freeze, None])
    async def test_points_land_on_a_frozen_wallet_as_deposits_do(
        self, databases: Databases, freeze: Freeze | None
    ) -> None:
        account = await make_account(databases)
        frozen = await make_wallet(databases, account.user, currency=POINTS, status=WalletStatus.FROZEN, freeze=freeze)
        await run(databases, earning_of(await _settled_deposit(databases, account.wallet)), policy=GENEROUS)
        assert (await current(frozen)).available == 500

    async def test_where_the_rules_have_changed_meanwhile_the_row_just_goes(self, databases: Databases) -> None:
        saver = await make_saver(databases)
        operation = await _settled_deposit(databases, await _money_of(saver))
        await run(databases, earning_of(operation))
        assert await _waiting(databases, operation.id) == 0
        assert await databases.wallet["rewards"].count_documents({"operation_id": operation.id}) == 0

    async def test_is_refused_where_the_points_have_moved_since_their_room_was_read(self, databases: Databases) -> None:
        saver = await make_saver(databases)
        settled = await _settled_deposit(databases, await _money_of(saver))
        purse = await current(saver.wallet)
        moved = earning_of(settled, room=EarningRoom(purse.seq + 1, 500, 100))
        (decided,) = await run(databases, moved, policy=GENEROUS)
        assert isinstance(decided.error, RoomMoved)
        (decided,) = await run(databases, replace(moved, room=EarningRoom(purse.seq, 500, 100)), policy=GENEROUS)
        assert isinstance(decided.record, Reward)
        assert (decided.record.counted, decided.record.currency) == (500, "INR")
        assert decided.record.settled_at == settled.updated_at

    async def test_what_has_not_succeeded_earns_nothing(self, databases: Databases) -> None:
        saver = await make_saver(databases)
        pending = await change(databases, deposit_of(await _money_of(saver), 500))
        assert pending.status is OperationStatus.PENDING
        await run(databases, earning_of(pending), policy=GENEROUS)
        assert (await current(saver.wallet)).available == 0

    async def test_asked_for_too_early_takes_no_word_from_what_settles_in_the_same_batch(
        self, databases: Databases
    ) -> None:
        money = await _money_of(await make_saver(databases))
        deposit = await change(databases, deposit_of(money, 500))
        await run(databases, earning_of(deposit), settlement_of(deposit), policy=GENEROUS)
        assert await _waiting(databases, deposit.id) == 1

    async def test_nobody_gets_what_another_has_earned(self, databases: Databases) -> None:
        thief = await make_saver(databases)
        operation = await _settled_deposit(databases, (await make_account(databases)).wallet)
        (decided,) = await run(databases, earning_of(operation, user_id=thief.user.id), policy=GENEROUS)
        assert isinstance(decided.error, NotFound)


@pytest.fixture
async def ledgers(databases: Databases) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Those of two processes."""
    limits: dict[str, Any] = {"policy": GENEROUS, "batch_limit": 256, "queue_limit": 1000, "patience_s": 10.0}
    both = tuple(Ledger(databases.client, **limits, on_committed=lambda _committed: None) for _ in range(2))
    for ledger in both:
        ledger.start()
    yield both[0], both[1]
    for ledger in both:
        await ledger.close()


class TestTwoWorkersWithOneRow:
    async def test_credit_it_once(self, databases: Databases, ledgers: tuple[Ledger, Ledger]) -> None:
        saver = await make_saver(databases)
        operations = [await _settled_deposit(databases, await _money_of(saver)) for _ in range(10)]
        records = await asyncio.gather(
            *(ledger.change(earning_of(one), Reward) for one in operations for ledger in (*ledgers, *ledgers))
        )
        assert len({record.transaction_id for record in records}) == 10
        assert (await current(saver.wallet)).available == 5_000
        assert await databases.wallet["rewards"].count_documents({"user_id": saver.user.id}) == 10
        assert not [breach for breach in await check_ledger(databases) if breach.subject.startswith("rwd_")]
