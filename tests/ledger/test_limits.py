"""The last of a limit, for which two processes race; and overrides that meet payments."""

import asyncio
from typing import Any

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.limits import Limits
from service.ledger.limits import OverrideLimits
from tests.factories import current, fund_wallet, make_user, make_wallet, withdrawal_of
from tests.ledger.conftest import TwoLedgers

_TIMES = 20


class TestADaysLimit:
    async def test_is_used_up_exactly_by_two_processes(self, ledgers: TwoLedgers, databases: Databases) -> None:
        for _ in range(_TIMES):
            wallet = await make_wallet(databases, await make_user(databases), limits=Limits(per_day=50))
            await fund_wallet(databases, wallet, 1_000)
            decided = await asyncio.gather(
                *(ledger.execute(withdrawal_of(wallet, 5)) for _ in range(10) for ledger in ledgers)
            )
            statuses = [one.answer.status_code for one in decided if one.answer is not None]
            assert (statuses.count(202), statuses.count(422)) == (10, 10)
            after = await current(wallet)
            assert (after.held, after.usage.day_amount) == (50, 50)

    async def test_lowered_by_another_process_lets_nothing_more_through(
        self, ledgers: TwoLedgers, databases: Databases
    ) -> None:
        boss = await make_user(databases)
        for _ in range(_TIMES):
            wallet = await make_wallet(databases, await make_user(databases))
            await fund_wallet(databases, wallet, 1_000)
            override: dict[str, Any] = {
                "now": utc_now(),
                "transaction_id": new_id(Prefix.TRANSACTION),
                "audit_event_id": new_id(Prefix.AUDIT_EVENT),
                "user_id": boss.id,
                "token_version": None,
                "reason": "A race",
                "owner_id": wallet.user_id,
                "currency": wallet.currency,
            }
            *decided, _ = await asyncio.gather(
                *(ledgers.first.execute(withdrawal_of(wallet, 5)) for _ in range(20)),
                ledgers.second.execute(OverrideLimits(**override, limits=Limits(per_day=1))),
            )
            accepted = sum(one.answer is not None and one.answer.status_code == 202 for one in decided)
            after = await current(wallet)
            assert (after.held, after.usage.day_amount, after.limits) == (
                5 * accepted,
                5 * accepted,
                Limits(per_day=1),
            )
            late = await ledgers.first.execute(withdrawal_of(wallet, 2))
            assert late.answer is not None
            assert late.answer.status_code == 422
