"""Freezing and closing against what moves money at the same moment, in two processes: one order wins, exactly."""

import asyncio
from typing import Any

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.errors import WalletServiceError
from service.ledger.batch import Decided
from service.ledger.wallet_life import CloseWallet, FreezeWallet
from tests.factories import current, deposit_of, make_account, make_funded_wallet, withdrawal_of
from tests.ledger.conftest import TwoLedgers

_TIMES = 20


def _by_owner(wallet: Wallet) -> dict[str, Any]:
    return {
        "now": utc_now(),
        "transaction_id": new_id(Prefix.TRANSACTION),
        "audit_event_id": new_id(Prefix.AUDIT_EVENT),
        "user_id": wallet.user_id,
        "token_version": None,
        "wallet_id": wallet.id,
        "reason": "A race",
    }


def _status(decided: Decided | BaseException) -> int:
    if isinstance(decided, WalletServiceError):
        return decided.http_status
    assert isinstance(decided, Decided), decided
    return 200 if decided.answer is None else decided.answer.status_code


class TestFreezing:
    async def test_against_withdrawals_none_is_taken_after_it(self, ledgers: TwoLedgers, databases: Databases) -> None:
        for _ in range(_TIMES):
            wallet = await make_funded_wallet(databases, 100)
            freeze = FreezeWallet(**_by_owner(wallet), freeze=Freeze.OUT)
            *withdrawn, _frozen = await asyncio.gather(
                *(ledgers.first.execute(withdrawal_of(wallet, 1)) for _ in range(20)), ledgers.second.execute(freeze)
            )
            statuses = [_status(one) for one in withdrawn]
            assert set(statuses) <= {202, 422}
            after = await current(wallet)
            assert (after.status, after.held) == (WalletStatus.FROZEN, statuses.count(202))
            (event,) = await databases.wallet["audit_events"].find({"subject_id": wallet.id}).to_list()
            entries = databases.wallet["transaction_logs"].find({"wallet_id": wallet.id, "type": "WITHDRAWAL"})
            assert all(entry["created_at"] <= event["at"] for entry in await entries.to_list())
            late = await ledgers.first.execute(withdrawal_of(wallet, 1))
            assert _status(late) == 422

    async def test_of_many_freezes_at_once_each_direction_is_told_once_in_a_row(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        wallet = await make_funded_wallet(databases, 100)
        await asyncio.gather(
            *(
                ledger.execute(FreezeWallet(**_by_owner(wallet), freeze=Freeze.BOTH))
                for ledger in ledgers
                for _ in range(10)
            ),
            return_exceptions=True,
        )
        assert await databases.wallet["audit_events"].count_documents({"subject_id": wallet.id}) == 1
        assert (await current(wallet)).freeze is Freeze.BOTH


class TestClosing:
    async def test_against_a_deposit_exactly_one_of_the_two_happens(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        for number in range(_TIMES):
            wallet = (await make_account(databases)).wallet
            close = CloseWallet(**_by_owner(wallet), is_admin=False)
            racers = [ledgers.first.execute(deposit_of(wallet, 5)), ledgers.second.execute(close)]
            if number % 2:
                racers.reverse()
            outcomes = await asyncio.gather(*racers, return_exceptions=True)
            deposited, closed = outcomes if number % 2 == 0 else reversed(outcomes)
            assert (_status(deposited), _status(closed)) in {(202, 409), (422, 200)}
            after = await current(wallet)
            if after.status is WalletStatus.CLOSED:
                assert (after.available, after.held, after.open_operations) == (0, 0, 0)
                assert await databases.wallet["deposits"].count_documents({"wallet_id": wallet.id}) == 0
            else:
                assert (after.status, after.open_operations) == (WalletStatus.ACTIVE, 1)
