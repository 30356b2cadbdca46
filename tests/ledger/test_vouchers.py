"""Redeeming: points, stock and the person's count allow it, or nothing happens."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from scripts.check_ledger import check_ledger
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.policy import Policy
from service.domain.vouchers import Redemption, Voucher
from service.domain.wallets import Freeze, WalletStatus
from service.ledger.batch import Decided
from service.ledger.committer import Ledger
from service.ledger.vouchers import UpdateVoucher
from service.repositories import records as record_repository
from tests.factories import (
    Account,
    current,
    make_saver,
    make_savers,
    make_user,
    make_voucher,
    make_wallet,
    redemption_of,
    run,
)

_DAY = timedelta(days=1)


def _errors(decided: list[Decided]) -> list[str]:
    return [orjson.loads(one.answer.body).get("error", "") for one in decided if one.answer is not None]


async def _now(voucher: Voucher) -> Voucher:
    found = await record_repository.find(voucher.id, Voucher)
    assert found is not None
    return found


async def _update_of(databases: Databases, voucher: Voucher, add_stock: int, **changes: Any) -> UpdateVoucher:
    return UpdateVoucher(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        user_id=(await make_user(databases, roles=["admin"])).id,
        token_version=None,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=None,
        voucher_id=voucher.id,
        changes=changes,
        add_stock=add_stock,
    )


async def _breaches(databases: Databases, voucher: Voucher) -> list[str]:
    found = await check_ledger(databases)
    redemptions = set(await databases.wallet["redemptions"].distinct("_id", {"voucher_id": voucher.id}))
    return [str(one) for one in found if one.subject.startswith(voucher.id) or one.subject in redemptions]


class TestRedeeming:
    async def test_takes_points_and_stock_and_counts_the_person(self, databases: Databases) -> None:
        saver, voucher = await make_saver(databases, 250), await make_voucher(databases)
        (decided,) = await run(databases, redemption_of(saver, voucher))
        redemption = decided.record
        assert isinstance(redemption, Redemption)
        wallet = await current(saver.wallet)
        assert (wallet.available, wallet.held, wallet.open_operations) == (150, 0, 0)
        assert (await _now(voucher)).stock == 9
        use = await databases.wallet["voucher_uses"].find_one({"voucher_id": voucher.id})
        assert use is not None
        assert (use["user_id"], use["redeemed"]) == (saver.user.id, 1)
        entry = await databases.wallet["transaction_logs"].find_one({"reference": redemption.id})
        assert entry is not None
        assert (entry["type"], entry["amount"], entry["counterparty"]) == ("VOUCHER", 100, "house:rewards")
        assert await _breaches(databases, voucher) == []

    @pytest.mark.parametrize(
        ("changes", "code", "reason"),
        [
            ({"stock": 0}, "voucher_sold_out", None),
            ({"is_active": False}, "voucher_not_valid", "inactive"),
            pytest.param({"valid_from": utc_now() + _DAY}, "voucher_not_valid", "not_yet_valid", id="not_yet_valid"),
            pytest.param({"valid_until": utc_now() - _DAY}, "voucher_not_valid", "over", id="over"),
            ({"cost": 251}, "insufficient_funds", None),
        ],
        ids=str,
    )
    async def test_is_refused_and_changes_nothing(
        self, databases: Databases, changes: dict[str, Any], code: str, reason: str | None
    ) -> None:
        saver, voucher = await make_saver(databases, 250), await make_voucher(databases, **changes)
        (decided,) = await run(databases, redemption_of(saver, voucher))
        assert decided.answer is not None
        problem = orjson.loads(decided.answer.body)
        assert (decided.answer.status_code, problem["error"], problem.get("reason")) == (422, code, reason)
        assert await current(saver.wallet) == saver.wallet
        assert await _now(voucher) == voucher
        assert await databases.wallet["redemptions"].count_documents({"voucher_id": voucher.id}) == 0

    async def test_of_what_is_no_voucher_is_not_found(self, databases: Databases) -> None:
        saver, voucher = await make_saver(databases, 250), await make_voucher(databases)
        commands = [redemption_of(saver, voucher, voucher_id=wrong) for wrong in ("vch_x", saver.wallet.id, "x", "")]
        assert _errors(await run(databases, *commands)) == ["not_found"] * 4

    async def test_needs_a_wallet_for_points(self, databases: Databases) -> None:
        user, voucher = await make_user(databases), await make_voucher(databases)
        money = await make_wallet(databases, user)
        command = redemption_of(Account(user, money), voucher)
        assert _errors(await run(databases, command)) == ["no_wallet_in_currency"]

    @pytest.mark.parametrize(
        ("status", "freeze", "code"),
        [
            (WalletStatus.FROZEN, Freeze.OUT, "wallet_frozen"),
            (WalletStatus.FROZEN, Freeze.BOTH, "wallet_frozen"),
            (WalletStatus.CLOSED, None, "wallet_closed"),
        ],
    )
    async def test_takes_nothing_from_a_wallet_that_is_shut(
        self, databases: Databases, status: WalletStatus, freeze: Freeze | None, code: str
    ) -> None:
        user, voucher = await make_user(databases), await make_voucher(databases)
        wallet = await make_wallet(databases, user, currency="PTS", status=status, freeze=freeze, available=500)
        assert _errors(await run(databases, redemption_of(Account(user, wallet), voucher))) == [code]

    async def test_more_often_than_one_may_is_refused_to_that_person_alone(self, databases: Databases) -> None:
        first, second = await make_savers(databases, 2, 1_000)
        voucher = await make_voucher(databases, per_user_limit=2)
        mine = [redemption_of(first, voucher) for _ in range(3)]
        decided = await run(databases, *mine, redemption_of(second, voucher))
        assert _errors(decided) == ["", "", "voucher_limit_reached", ""]
        assert _errors(await run(databases, redemption_of(first, voucher))) == ["voucher_limit_reached"]
        assert (await _now(voucher)).stock == 7
        assert await _breaches(databases, voucher) == []

    async def test_again_with_the_same_key_gives_the_same_code(self, databases: Databases) -> None:
        saver, voucher = await make_saver(databases, 250), await make_voucher(databases)
        command = redemption_of(saver, voucher)
        (first,) = await run(databases, command)
        (again,) = await run(databases, redemption_of(saver, voucher, claim=command.claim))
        assert first.answer is not None
        assert again.answer == first.answer._replace(replayed=True)
        assert (await current(saver.wallet)).available == 150


class TestTheStock:
    async def test_is_counted_up_and_down_beside_redemptions(self, databases: Databases) -> None:
        saver, voucher = await make_saver(databases, 1_000), await make_voucher(databases, stock=2)
        update = await _update_of(databases, voucher, 3, title="Tea")
        await run(databases, redemption_of(saver, voucher), update, redemption_of(saver, voucher))
        after = await _now(voucher)
        assert (after.stock, after.stocked_total, after.title, after.version) == (3, 5, "Tea", 1)
        await run(databases, await _update_of(databases, voucher, -3))
        assert (await _now(voucher))[4:6] == (0, 2)
        assert await _breaches(databases, voucher) == []

    async def test_never_gives_back_what_was_redeemed(self, databases: Databases) -> None:
        saver, voucher = await make_saver(databases, 1_000), await make_voucher(databases, stock=2)
        decided = await run(databases, redemption_of(saver, voucher), await _update_of(databases, voucher, -2))
        assert decided[1].error is not None
        assert (decided[1].error.code, decided[1].error.facts) == ("voucher_stock_too_low", {"stock": 1})


@pytest.fixture
async def ledgers(databases: Databases) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Those of two processes."""
    limits: dict[str, Any] = {"policy": Policy(), "batch_limit": 16, "queue_limit": 1000, "patience_s": 10.0}
    both = tuple(Ledger(databases.client, **limits, on_committed=lambda _committed: None) for _ in range(2))
    for ledger in both:
        ledger.start()
    yield both[0], both[1]
    for ledger in both:
        await ledger.close()


class TestManyAtOnce:
    @pytest.mark.parametrize("stock", [1, 7])
    async def test_the_last_ones_go_to_exactly_as_many_in_two_processes(
        self, databases: Databases, ledgers: tuple[Ledger, Ledger], stock: int
    ) -> None:
        savers, voucher = await make_savers(databases, 60, 100), await make_voucher(databases, stock=stock)
        decided = await asyncio.gather(
            *(ledgers[n % 2].execute(redemption_of(saver, voucher)) for n, saver in enumerate(savers))
        )
        assert Counter(_errors(list(decided))) == {"": stock, "voucher_sold_out": 60 - stock}
        assert (await _now(voucher)).stock == 0
        spent = [await current(saver.wallet) for saver in savers]
        assert Counter(wallet.available for wallet in spent) == {0: stock, 100: 60 - stock}
        assert await _breaches(databases, voucher) == []

    async def test_one_person_in_two_processes_is_counted_right_while_the_stock_changes(
        self, databases: Databases, ledgers: tuple[Ledger, Ledger]
    ) -> None:
        saver = await make_saver(databases, 900)
        voucher = await make_voucher(databases, stock=20, per_user_limit=5)
        updates = [await _update_of(databases, voucher, change) for change in (5, -3, 5, -3)]
        orders = [ledgers[n % 2].execute(redemption_of(saver, voucher)) for n in range(20)]
        stocked = [ledgers[n % 2].change(update, Voucher) for n, update in enumerate(updates)]
        decided, _ = await asyncio.gather(asyncio.gather(*orders), asyncio.gather(*stocked))
        assert Counter(_errors(list(decided))) == {"": 5, "voucher_limit_reached": 15}
        after = await _now(voucher)
        assert (after.stock, after.stocked_total) == (19, 24)
        assert (await current(saver.wallet)).available == 400
        assert await _breaches(databases, voucher) == []
