"""The guard of a wallet's update: what holds even if everything above it were wrong."""

from typing import Any

import pytest

from service.database import Databases, session_in_transaction
from service.domain.wallets import Wallet, WalletStatus
from service.repositories import wallets as wallet_repository
from tests.factories import current, make_funded_wallet


async def _update(databases: Databases, before: Wallet, after: Wallet) -> bool:
    async with session_in_transaction(databases.client) as session:
        return await wallet_repository.update_guarded([(before, after)], session=session)


class TestTheGuard:
    async def test_lets_the_next_state_in(self, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 100)
        after = wallet._replace(available=20, held=80, seq=wallet.seq + 1)
        assert await _update(databases, wallet, after)
        assert await current(wallet) == after

    @pytest.mark.parametrize(
        ("believed", "taken"),
        [
            # What is there is 100 available and nothing held.
            ({"available": 500}, {"available": 300}),
            ({"held": 50}, {"held": 0}),
        ],
        ids=["available", "held"],
    )
    async def test_takes_no_more_than_is_there_whatever_was_believed(
        self, databases: Databases, believed: dict[str, Any], taken: dict[str, Any]
    ) -> None:
        """Of the right `seq`: only the balance's own condition is left."""
        wallet = await make_funded_wallet(databases, 100)
        before = wallet._replace(**believed)
        assert not await _update(databases, before, before._replace(**taken, seq=wallet.seq + 1))
        assert await current(wallet) == wallet

    @pytest.mark.parametrize("field", ["seq", "status"])
    async def test_lets_nothing_in_that_was_decided_on_another_state(self, databases: Databases, field: str) -> None:
        wallet = await make_funded_wallet(databases, 100)
        other: dict[str, Any] = {"seq": wallet.seq + 1, "status": WalletStatus.FROZEN}
        before = wallet._replace(**{field: other[field]})
        assert not await _update(databases, before, before._replace(available=20, seq=before.seq + 1))
        assert await current(wallet) == wallet
