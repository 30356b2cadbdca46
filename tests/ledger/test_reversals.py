"""Reversals against whatever else moves the same wallets in another process."""

import asyncio
from datetime import timedelta
from typing import Any

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.transfers import Transfer
from service.domain.wallets import Wallet
from service.ledger.reversals import ReverseOriginal, way_back
from service.ledger.transfers import RequestTransfer
from tests.factories import current, make_funded_wallet, make_user, make_wallet, run, withdrawal_of
from tests.ledger.conftest import TwoLedgers

_TIMES = 20


def _by(user_id: str) -> dict[str, Any]:
    now = utc_now()
    key = new_id(Prefix.TRANSACTION)
    return {
        "now": now,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "claim": IdempotencyClaim(f"{user_id}:{key}", f"fingerprint of {key}", now + timedelta(days=1)),
        "user_id": user_id,
        "token_version": None,
    }


async def _sent(databases: Databases, sender: Wallet, recipient: Wallet, amount: int) -> Transfer:
    command = RequestTransfer(
        **_by(sender.user_id),
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
    (decided,) = await run(databases, command)
    assert isinstance(decided.record, Transfer), decided
    return decided.record


def reversal_of(transfer: Transfer, user_id: str, *, is_forced: bool) -> ReverseOriginal:
    return ReverseOriginal(
        **_by(user_id),
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason="A race",
        reversal_id=new_id(Prefix.REVERSAL),
        original_id=transfer.id,
        **way_back(transfer)._asdict(),
        is_forced=is_forced,
        out_entry_id=new_id(Prefix.ENTRY),
        in_entry_id=new_id(Prefix.ENTRY),
        house_entry_id=new_id(Prefix.ENTRY),
    )


class TestAForcedReversal:
    async def test_in_two_processes_happens_once_and_takes_what_withdrawals_leave(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        boss = await make_user(databases)
        for _ in range(_TIMES):
            sender = await make_funded_wallet(databases, 100)
            recipient = await make_wallet(databases, await make_user(databases))
            transfer = await _sent(databases, sender, recipient, 100)
            *withdrawn, one, other = await asyncio.gather(
                *(ledgers.first.execute(withdrawal_of(recipient, 10)) for _ in range(8)),
                *(ledger.execute(reversal_of(transfer, boss.id, is_forced=True)) for ledger in ledgers),
            )
            answers = [decided.answer for decided in (one, other) if decided.answer is not None]
            assert sorted(answer.status_code for answer in answers) == [201, 409]
            held = 10 * sum(d.answer is not None and d.answer.status_code == 202 for d in withdrawn)
            after = await current(recipient)
            assert (after.available, after.held) == (0, held)
            assert (await current(sender)).available == 100
            (reversal,) = await databases.wallet["reversals"].find({"original_id": transfer.id}).to_list()
            assert reversal["shortfall"] == held
