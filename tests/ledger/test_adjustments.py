"""Adjustments decided and moved by two processes at once, and through a crash of the server."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from service.database import Databases
from service.domain.adjustments import AdjustmentStatus, AdjustmentType
from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import Wallet
from service.errors import IllegalTransition, Unavailable
from service.ledger.adjustments import ApproveAdjustment, RejectAdjustment, RequestAdjustment
from service.ledger.batch import Decided
from tests.factories import current, make_funded_wallet, make_user, withdrawal_of
from tests.ledger.conftest import TwoLedgers
from tests.servers import Admin, fail_point

_TIMES = 20
# Above what one admin may adjust alone by the policy of these ledgers.
_LARGE = 1_001


def _by(user_id: str) -> dict[str, Any]:
    now = utc_now()
    key = new_id(Prefix.TRANSACTION)
    return {
        "now": now,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "claim": IdempotencyClaim(f"{user_id}:{key}", f"fingerprint of {key}", now + timedelta(days=1)),
        "user_id": user_id,
        "token_version": None,
        "reason": "A race",
    }


def adjustment_of(wallet: Wallet, user_id: str, amount: int, **overrides: Any) -> RequestAdjustment:
    order: dict[str, Any] = {
        "adjustment_id": new_id(Prefix.ADJUSTMENT),
        "entry_id": new_id(Prefix.ENTRY),
        "type": AdjustmentType.CREDIT,
        "wallet_id": wallet.id,
        "amount": amount,
        "currency": wallet.currency,
        "category": None,
        "description": None,
        "metadata": {},
        "is_admin": True,
    }
    return RequestAdjustment(**(_by(user_id) | order | overrides))


class TestDeciding:
    async def test_of_an_approval_and_a_rejection_in_two_processes_one_wins(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        boss, second = await make_user(databases), await make_user(databases)
        for number in range(_TIMES):
            wallet = await make_funded_wallet(databases, 1)
            request = adjustment_of(wallet, boss.id, _LARGE)
            await ledgers.first.execute(request)
            assert (await current(wallet)).open_operations == 1
            about: dict[str, Any] = {"adjustment_id": request.adjustment_id, "wallet_id": wallet.id}
            approve = ApproveAdjustment(**_by(second.id), **about, entry_id=new_id(Prefix.ENTRY))
            reject = RejectAdjustment(**(_by(boss.id) | {"claim": None}), **about)
            one, other = (ledgers.first, ledgers.second) if number % 2 else (ledgers.second, ledgers.first)
            approved, rejected = await asyncio.gather(
                one.execute(approve), other.execute(reject), return_exceptions=True
            )
            assert isinstance(approved, Decided)
            assert approved.answer is not None
            has_won = approved.answer.status_code == 200
            assert isinstance(rejected, IllegalTransition if has_won else Decided)
            after = await current(wallet)
            assert (after.available, after.open_operations) == (1 + _LARGE * has_won, 0)
            row = await databases.wallet["adjustments"].find_one({"_id": request.adjustment_id})
            assert row is not None
            assert row["status"] == (AdjustmentStatus.SUCCESS if has_won else AdjustmentStatus.REJECTED)
            assert await databases.wallet["audit_events"].count_documents({"subject_id": request.adjustment_id}) == 2


class TestDebits:
    async def test_beside_withdrawals_of_another_process_take_exactly_what_is_there(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        robot = await make_user(databases)
        for _ in range(_TIMES):
            wallet = await make_funded_wallet(databases, 15)
            decided = await asyncio.gather(
                *(ledgers.first.execute(withdrawal_of(wallet, 1)) for _ in range(10)),
                *(
                    ledgers.second.execute(adjustment_of(wallet, robot.id, 1, type=AdjustmentType.DEBIT))
                    for _ in range(10)
                ),
            )
            statuses = [one.answer.status_code for one in decided if one.answer is not None]
            taken = statuses[:10].count(202), statuses[10:].count(201)
            assert sum(taken) == 15
            after = await current(wallet)
            assert (after.available, after.held) == (0, taken[0])


class TestACrash:
    async def test_a_credit_whose_commit_is_unknown_is_made_once_under_its_key(
        self, ledgers: TwoLedgers, databases: Databases, admin: Admin
    ) -> None:
        wallet, robot = await make_funded_wallet(databases, 1), await make_user(databases)
        command = adjustment_of(wallet, robot.id, 10)
        ledgers.first._patience_s = 0.3
        with (
            fail_point(
                admin,
                1000,
                failCommands=["commitTransaction"],
                writeConcernError={"code": 64, "errmsg": "the outcome is not known"},
                errorLabels=["UnknownTransactionCommitResult"],
            ),
            pytest.raises(Unavailable),
        ):
            await ledgers.first.execute(command)
        again = await ledgers.second.execute(command)
        assert again.answer is not None
        assert again.answer.status_code == 201
        assert (await current(wallet)).available == 11
        assert await databases.wallet["audit_events"].count_documents({"subject_id": command.adjustment_id}) == 1
