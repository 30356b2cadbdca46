"""Replaying logs against wallets: each kind of damage is found and shuts the wallet, and sound books never do.

The damage is done by the administrator past every validator: the service's own user could not do most of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64

from service.crash_points import EXIT_CODE, CrashPoint
from service.domain.breaks import SYSTEM, Break, BreakKind, BreakState
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import Wallet
from service.errors import InternalError
from service.ledger.orders import Fail, RequestOperation, Settle
from service.repositories import audit_events as audit_repository
from service.repositories import duties as duty_repository
from service.repositories.audit_events import AuditFilter
from service.services import replay as replay_service
from service.services.breaks import explain_break, resolve_break, resolve_by_itself
from service.services.replay import DUTY, Round, replay_slice, work_on_round
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.commands import run_module
from tests.factories import (
    current,
    deposit_of,
    fund_wallet,
    make_account,
    make_funded_wallet,
    run,
    transfer_of,
    withdrawal_of,
)
from tests.servers import Servers

K = BreakKind
_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
async def books(servers: Servers, resources: Resources) -> AsyncIterator[OwnBooks]:
    async with own_books(servers, resources) as books:
        yield books


@pytest.fixture(scope="module")
async def friend(books: OwnBooks) -> Wallet:
    """Made before all others: who looks at those does not look at it."""
    return (await make_account(books.databases)).wallet


async def make_busy_wallet(books: OwnBooks, friend: Wallet) -> Wallet:
    """With entries of several kinds: 1 deposit, 2 and 3 paid out, 4 and 5 refused, 6 under way, 7 sent, 8 deposit."""
    wallet = (await make_account(books.databases)).wallet
    deposit, later = deposit_of(wallet, 10_000), deposit_of(wallet, 500)
    paid, refused = withdrawal_of(wallet, 100), withdrawal_of(wallet, 200)
    await run(
        books.databases,
        *(deposit, Settle(**_word_on(deposit, wallet))),
        *(paid, Settle(**_word_on(paid, wallet))),
        *(refused, Fail(**_word_on(refused, wallet), failure_code="declined", failure_message="Declined")),
        withdrawal_of(wallet, 300),
        transfer_of(wallet, friend, 400),
        *(later, Settle(**_word_on(later, wallet))),
    )
    after = await current(wallet)
    assert (after.seq, after.available, after.held) == (8, 9_700, 300)
    return after


def _word_on(order: RequestOperation, wallet: Wallet) -> dict[str, Any]:
    """The bank's, in the same batch as what it is about."""
    return {
        "now": order.now,
        "transaction_id": new_id(Prefix.TRANSACTION),
        "entry_id": new_id(Prefix.ENTRY),
        "operation_id": order.operation_id,
        "wallet_id": wallet.id,
        "amount": order.amount,
        "currency": order.currency,
        "bank_reference": "bnk_test",
    }


async def operation_in(books: OwnBooks, wallet: Wallet, seq: int) -> str:
    return str((await books.entry(wallet, seq))["reference"])


async def raise_balance(books: OwnBooks, wallet: Wallet) -> str:
    await books.set("wallets", wallet.id, available=wallet.available + 1)
    return wallet.id


async def move_to_held(books: OwnBooks, wallet: Wallet) -> str:
    await books.set("wallets", wallet.id, available=wallet.available - 1, held=wallet.held + 1)
    return wallet.id


async def make_a_double_of_it(books: OwnBooks, wallet: Wallet) -> str:
    await books.set("wallets", wallet.id, available=float(wallet.available))
    return wallet.id


async def set_back_the_count(books: OwnBooks, wallet: Wallet) -> str:
    await books.set("wallets", wallet.id, seq=wallet.seq - 1)
    return wallet.id


async def change_the_head(books: OwnBooks, wallet: Wallet) -> str:
    await books.set("wallets", wallet.id, head_hash="0" * 64)
    return wallet.id


async def remove_the_last(books: OwnBooks, wallet: Wallet) -> str:
    await books.remove_entry(wallet, wallet.seq)
    return wallet.id


async def forge_the_last(books: OwnBooks, wallet: Wallet) -> str:
    await books.forge(wallet, wallet.seq, category="other")
    return wallet.id


async def forge_the_last_and_the_head(books: OwnBooks, wallet: Wallet) -> str:
    entry = await books.forge(wallet, wallet.seq, category="other")
    await books.set("wallets", wallet.id, head_hash=entry["hash"])
    return wallet.id


async def add_one(books: OwnBooks, wallet: Wallet) -> str:
    entry = await books.entry(wallet, wallet.seq)
    await books.admin.wallet["transaction_logs"].insert_one(
        entry | {"_id": f"{entry['_id']}-x", "seq": Int64(wallet.seq + 1)}
    )
    return wallet.id


# What a replay of what is new sees at once: the wallet and the end of its chain.
AT_THE_HEAD = [
    (raise_balance, K.WALLET_BALANCE),
    (move_to_held, K.WALLET_BALANCE),
    (set_back_the_count, K.ENTRIES_MISSING),
    (change_the_head, K.ENTRIES_ALTERED),
    (remove_the_last, K.ENTRIES_MISSING),
    (forge_the_last, K.ENTRIES_ALTERED),
    (forge_the_last_and_the_head, K.ENTRIES_ALTERED),
    (add_one, K.ENTRIES_MISSING),
]


async def remove_in_the_middle(books: OwnBooks, wallet: Wallet) -> str:
    await books.remove_entry(wallet, 4)
    return wallet.id


async def remove_the_first(books: OwnBooks, wallet: Wallet) -> str:
    await books.remove_entry(wallet, 1)
    return wallet.id


async def change_without_sealing(books: OwnBooks, wallet: Wallet) -> str:
    await books.set("transaction_logs", (await books.entry(wallet, 3))["_id"], amount=99)
    return wallet.id


async def forge_in_the_middle(books: OwnBooks, wallet: Wallet) -> str:
    await books.forge(wallet, 3, counterparty="house:fx")
    return wallet.id


async def forge_an_amount(books: OwnBooks, wallet: Wallet) -> str:
    """With all that follows sealed anew and the wallet's head moved: only the sum tells."""
    before = await books.forge(wallet, 7, amount=399)
    entry = await books.forge(wallet, 8, prev_hash=before["hash"])
    await books.set("wallets", wallet.id, head_hash=entry["hash"])
    return wallet.id


async def make_unreadable(books: OwnBooks, wallet: Wallet) -> str:
    await books.set("transaction_logs", (await books.entry(wallet, 5))["_id"], type="GIFT")
    return wallet.id


async def say_paid_is_failed(books: OwnBooks, wallet: Wallet) -> str:
    operation_id = await operation_in(books, wallet, 3)
    await books.set("withdrawals", operation_id, status="failed")
    return operation_id


async def say_failed_is_paid(books: OwnBooks, wallet: Wallet) -> str:
    operation_id = await operation_in(books, wallet, 5)
    await books.set("withdrawals", operation_id, status="success")
    return operation_id


async def say_open_is_canceled(books: OwnBooks, wallet: Wallet) -> str:
    operation_id = await operation_in(books, wallet, 6)
    await books.set("withdrawals", operation_id, status="canceled")
    return operation_id


async def say_a_deposit_is_pending(books: OwnBooks, wallet: Wallet) -> str:
    operation_id = await operation_in(books, wallet, 8)
    await books.set("deposits", operation_id, status="pending")
    return operation_id


async def remove_an_operation(books: OwnBooks, wallet: Wallet) -> str:
    operation_id = await operation_in(books, wallet, 6)
    await books.admin.wallet["withdrawals"].delete_one({"_id": operation_id})
    return operation_id


# What was found good before, and is seen when all of it is replayed.
IN_THE_PAST = [
    (remove_in_the_middle, K.ENTRIES_MISSING),
    (remove_the_first, K.ENTRIES_MISSING),
    (change_without_sealing, K.ENTRIES_ALTERED),
    (forge_in_the_middle, K.ENTRIES_ALTERED),
    (forge_an_amount, K.ENTRIES_ALTERED),
    (make_unreadable, K.ENTRIES_ALTERED),
    (say_paid_is_failed, K.OPERATION_STATE),
    (say_failed_is_paid, K.OPERATION_STATE),
    (say_open_is_canceled, K.OPERATION_STATE),
    (say_a_deposit_is_pending, K.OPERATION_STATE),
    (remove_an_operation, K.OPERATION_STATE),
]

Damage = Callable[[OwnBooks, Wallet], Awaitable[str]]


def damages(*lists: Sequence[tuple[Damage, BreakKind]]) -> pytest.MarkDecorator:
    cases = [case for one in lists for case in one]
    return pytest.mark.parametrize(("damage", "kind"), cases, ids=[damage.__name__ for damage, _ in cases])


class TestDamage:
    @damages(AT_THE_HEAD, IN_THE_PAST)
    async def test_is_found_named_and_shuts_the_wallet_once(
        self, books: OwnBooks, friend: Wallet, damage: Damage, kind: BreakKind
    ) -> None:
        wallet = await make_busy_wallet(books, friend)
        neighbour = await make_busy_wallet(books, friend)
        await books.replay(wallet.id[:-1])
        subject = await damage(books, wallet)
        for _ in range(3):
            await books.replay(wallet.id[:-1], is_whole=True)
        breaks = await books.breaks_of(wallet)
        assert (kind, subject) in {(one.kind, one.subject) for one in breaks}
        assert {one.state for one in breaks} == {BreakState.OPEN}
        assert {one.times_seen for one in breaks} == {3}
        assert await books.state_of(wallet) == ("frozen", "both")
        events = await audit_repository.find_newest(AuditFilter(subject_id=wallet.id), before_id=None, limit=10)
        assert [(event.action, event.actor_id) for event in events] == [("wallet.frozen", SYSTEM)]
        assert breaks[0].id in str(events[0].reason)
        assert await books.state_of(neighbour) == ("active", None)
        assert await books.breaks_of(neighbour) == []

    @damages(AT_THE_HEAD)
    async def test_at_the_head_is_found_without_reading_all(
        self, books: OwnBooks, friend: Wallet, damage: Damage, kind: BreakKind
    ) -> None:
        wallet = await make_busy_wallet(books, friend)
        await books.replay(wallet.id[:-1])
        await damage(books, wallet)
        (found,) = await books.replay(wallet.id[:-1])
        assert found.entries <= 1
        assert kind in {one.kind for one in await books.breaks_of(wallet)}

    @damages(IN_THE_PAST)
    async def test_in_the_past_is_found_when_all_is_due(
        self, books: OwnBooks, friend: Wallet, damage: Damage, kind: BreakKind
    ) -> None:
        wallet = await make_busy_wallet(books, friend)
        await books.replay(wallet.id[:-1])
        await damage(books, wallet)
        await books.set("wallet_checks", wallet.id, full_due_at=utc_now() - timedelta(seconds=1))
        await books.replay(wallet.id[:-1])
        assert kind in {one.kind for one in await books.breaks_of(wallet)}

    @pytest.mark.parametrize("is_whole", [False, True])
    async def test_a_chain_that_was_sealed_anew_from_the_first_entry_on_is_not_the_one_that_was_seen(
        self, books: OwnBooks, friend: Wallet, is_whole: bool
    ) -> None:
        wallet = await make_busy_wallet(books, friend)
        await books.replay(wallet.id[:-1])
        prev_hash = "0" * 64
        for seq in range(1, wallet.seq + 1):
            entry = await books.forge(wallet, seq, category="other", prev_hash=prev_hash)
            prev_hash = entry["hash"]
        await books.set("wallets", wallet.id, head_hash=prev_hash)
        await books.replay(wallet.id[:-1], is_whole=is_whole)
        assert [one.kind for one in await books.breaks_of(wallet)] == [K.ENTRIES_ALTERED]

    async def test_entries_of_no_wallet_are_found(self, books: OwnBooks) -> None:
        wallet = await make_funded_wallet(books.databases)
        await books.admin.wallet["wallets"].delete_one({"_id": wallet.id})
        await books.replay(wallet.id[:-1])
        assert [one.kind for one in await books.breaks_of(wallet)] == [K.WALLET_UNKNOWN]

    async def test_past_what_the_ledger_can_write_is_found_though_the_wallet_stays_as_it_is(
        self, books: OwnBooks, friend: Wallet
    ) -> None:
        """Nothing can move in it either: the validator refuses every write."""
        wallet = await make_busy_wallet(books, friend)
        await make_a_double_of_it(books, wallet)
        await books.replay(wallet.id[:-1])
        assert [one.kind for one in await books.breaks_of(wallet)] == [K.WALLET_BALANCE]
        with pytest.raises(InternalError):
            await books.resources.ledger.execute(replace(withdrawal_of(wallet), claim=None))


class TestBreaks:
    async def test_one_that_shows_no_more_is_resolved_by_the_system(self, books: OwnBooks) -> None:
        wallet = await make_funded_wallet(books.databases)
        await raise_balance(books, wallet)
        await books.replay(wallet.id[:-1])
        await books.set("wallets", wallet.id, available=wallet.available)
        await books.replay(wallet.id[:-1])
        (one,) = await books.breaks_of(wallet)
        assert one.state is BreakState.RESOLVED
        assert one.resolved is not None
        assert one.resolved.by == SYSTEM
        # To open it again is an admin's.
        assert await books.state_of(wallet) == ("frozen", "both")

    async def test_old_damage_is_not_taken_for_mended_by_a_look_at_what_is_new(
        self, books: OwnBooks, friend: Wallet
    ) -> None:
        wallet = await make_busy_wallet(books, friend)
        await books.replay(wallet.id[:-1])
        await forge_in_the_middle(books, wallet)
        await books.replay(wallet.id[:-1], is_whole=True)
        for _ in range(2):
            await books.replay(wallet.id[:-1])
        (one,) = await books.breaks_of(wallet)
        assert (one.state, one.times_seen) == (BreakState.OPEN, 3)

    async def test_one_that_shows_again_after_its_resolution_opens_anew_and_shuts_again(self, books: OwnBooks) -> None:
        wallet = await make_funded_wallet(books.databases)
        await raise_balance(books, wallet)
        await books.replay(wallet.id[:-1])
        (first,) = await books.breaks_of(wallet)
        client = books.databases.client
        await resolve_break(client, "usr_admin", first.id, "Looks fine to me", None)
        await books.set("wallets", wallet.id, status="active", freeze=None)
        await books.replay(wallet.id[:-1])
        again = await books.breaks_of(wallet)
        assert [one.state for one in again] == [BreakState.RESOLVED, BreakState.OPEN]
        assert await books.state_of(wallet) == ("frozen", "both")

    async def test_one_that_is_explained_is_seen_on_and_shuts_nothing(self, books: OwnBooks) -> None:
        wallet = await make_funded_wallet(books.databases)
        await raise_balance(books, wallet)
        await books.replay(wallet.id[:-1])
        (first,) = await books.breaks_of(wallet)
        await explain_break(books.databases.client, "usr_admin", first.id, "A restore from Tuesday", None)
        await books.set("wallets", wallet.id, status="active", freeze=None)
        await books.replay(wallet.id[:-1])
        (one,) = await books.breaks_of(wallet)
        assert (one.state, one.times_seen) == (BreakState.EXPLAINED, 2)
        assert await books.state_of(wallet) == ("active", None)

    async def test_one_that_is_explained_does_not_hide_that_one_more_entry_was_altered(
        self, books: OwnBooks, friend: Wallet
    ) -> None:
        wallet = await make_busy_wallet(books, friend)
        await books.set("transaction_logs", (await books.entry(wallet, 3))["_id"], hash="0" * 64)
        await books.replay(wallet.id[:-1])
        (first,) = await books.breaks_of(wallet)
        await explain_break(books.databases.client, "usr_admin", first.id, "Done by us", None)
        await books.set("wallets", wallet.id, status="active", freeze=None)
        await books.replay(wallet.id[:-1])
        assert await books.state_of(wallet) == ("active", None)
        await books.set("transaction_logs", (await books.entry(wallet, 6))["_id"], hash="0" * 64)
        await books.replay(wallet.id[:-1])
        (one,) = await books.breaks_of(wallet)
        assert (one.id, one.state) == (first.id, BreakState.OPEN)
        assert await books.state_of(wallet) == ("frozen", "both")

    async def test_one_that_was_seen_since_somebody_looked_is_not_resolved_by_what_they_saw(
        self, books: OwnBooks
    ) -> None:
        wallet = await make_funded_wallet(books.databases)
        await raise_balance(books, wallet)
        await books.replay(wallet.id[:-1])
        (seen,) = await books.breaks_of(wallet)
        await books.replay(wallet.id[:-1])
        assert await resolve_by_itself(books.databases.client, [seen]) == 0
        (now,) = await books.breaks_of(wallet)
        assert now.state is BreakState.OPEN
        assert await resolve_by_itself(books.databases.client, [now]) == 1

    async def test_several_reports_at_once_make_one_break_and_one_freeze(self, books: OwnBooks) -> None:
        wallet = await make_funded_wallet(books.databases)
        await raise_balance(books, wallet)
        await asyncio.gather(*(books.replay(wallet.id[:-1]) for _ in range(8)))
        (one,) = await books.breaks_of(wallet)
        assert one.times_seen == 8
        events = await audit_repository.find_newest(AuditFilter(subject_id=wallet.id), before_id=None, limit=10)
        assert len(events) == 1


class TestSlices:
    async def test_read_only_what_has_come_since(self, books: OwnBooks, friend: Wallet) -> None:
        wallet = await make_busy_wallet(books, friend)
        await books.replay(wallet.id[:-1])
        await fund_wallet(books.databases, wallet)
        (one,) = await books.replay(wallet.id[:-1])
        assert one.entries == 1
        (quiet,) = await books.replay(wallet.id[:-1])
        assert (quiet.entries, quiet.checks) == (0, [])

    async def test_are_bounded_in_wallets_and_entries(
        self, books: OwnBooks, friend: Wallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_WALLETS", 3)
        monkeypatch.setattr(replay_service, "_SLICE_ENTRIES", 5)
        first = await make_busy_wallet(books, friend)
        others = [await make_busy_wallet(books, friend) for _ in range(2)]
        slices = await books.replay(first.id[:-1])
        assert {one.entries <= 5 for one in slices} == {True}
        assert sum(one.wallets for one in slices) == len([first, *others])
        assert sum(one.entries for one in slices) == 8 * 3
        assert [one for single in slices for one in single.findings] == []
        await forge_in_the_middle(books, others[1])
        await books.replay(first.id[:-1], is_whole=True)
        assert [one.kind for one in await books.breaks_of(others[1])] == [K.ENTRIES_ALTERED]
        entry = await books.entry(others[1], 3)
        await books.forge(others[1], 3, counterparty="bank")
        assert entry["counterparty"] == "house:fx"
        await books.replay(first.id[:-1])
        assert [one.state for one in await books.breaks_of(others[1])] == [BreakState.RESOLVED]


class TestLongChains:
    async def test_a_break_far_behind_is_not_taken_for_mended_by_the_pieces_before_it(
        self, books: OwnBooks, friend: Wallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_ENTRIES", 3)
        wallet = await make_busy_wallet(books, friend)
        await books.forge(wallet, 7, category="other")
        for _ in range(2):
            await books.replay(wallet.id[:-1])
        assert [(one.state, one.times_seen) for one in await books.breaks_of(wallet)] == [(BreakState.OPEN, 2)]

    async def test_damage_in_the_first_piece_that_was_explained_hides_none_behind_it(
        self, books: OwnBooks, friend: Wallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_ENTRIES", 3)
        wallet = await make_busy_wallet(books, friend)
        await make_a_hash_wrong(books, wallet, 2)
        await books.replay(wallet.id[:-1])
        await explain_and_thaw(books, wallet)
        await books.replay(wallet.id[:-1])
        assert await books.state_of(wallet) == ("active", None)
        await make_a_hash_wrong(books, wallet, 6)
        await raise_balance(books, await current(wallet))
        await books.replay(wallet.id[:-1])
        breaks = await books.breaks_of(wallet)
        assert {(one.kind, one.state) for one in breaks} == {
            (K.ENTRIES_ALTERED, BreakState.OPEN),
            (K.WALLET_BALANCE, BreakState.OPEN),
        }
        assert await books.state_of(wallet) == ("frozen", "both")

    async def test_damage_that_is_new_shuts_the_wallet_before_the_end_is_reached(
        self, books: OwnBooks, friend: Wallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_ENTRIES", 3)
        wallet = await make_busy_wallet(books, friend)
        await make_a_hash_wrong(books, wallet, 2)
        await replay_slice(books.databases.client, books.resources.ledger, books.resources.settings, wallet.id[:-1])
        assert await books.state_of(wallet) == ("frozen", "both")

    async def test_damage_in_several_pieces_is_explained_once(
        self, books: OwnBooks, friend: Wallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_ENTRIES", 3)
        wallet = await make_busy_wallet(books, friend)
        await books.replay(wallet.id[:-1])
        for seq in (2, 6):
            await make_a_hash_wrong(books, wallet, seq)
        await books.replay(wallet.id[:-1], is_whole=True)
        (one,) = await explain_and_thaw(books, wallet)
        assert (one.found["seq"], one.found["faults"]) == (2, 4)
        for _ in range(2):
            await books.replay(wallet.id[:-1])
        (one,) = await books.breaks_of(wallet)
        assert (one.state, one.times_seen) == (BreakState.EXPLAINED, 4)
        assert await books.state_of(wallet) == ("active", None)

    @pytest.mark.parametrize("was_seen_before", [False, True])
    async def test_entries_that_are_missing_for_longer_than_a_piece_hide_nothing_behind_them(
        self, books: OwnBooks, friend: Wallet, monkeypatch: pytest.MonkeyPatch, was_seen_before: bool
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_ENTRIES", 2)
        wallet = await make_busy_wallet(books, friend)
        if was_seen_before:
            await books.replay(wallet.id[:-1])
        for seq in (3, 4, 5, 6):
            await books.remove_entry(wallet, seq)
        await raise_balance(books, wallet)
        async with asyncio.timeout(10):
            await books.replay(wallet.id[:-1], is_whole=True)
        assert {K.ENTRIES_MISSING, K.WALLET_BALANCE} <= {one.kind for one in await books.breaks_of(wallet)}

    async def test_damage_in_the_first_piece_that_was_mended_is_resolved_by_the_system(
        self, books: OwnBooks, friend: Wallet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_ENTRIES", 3)
        wallet = await make_busy_wallet(books, friend)
        right = (await books.entry(wallet, 2))["hash"]
        await make_a_hash_wrong(books, wallet, 2)
        await books.replay(wallet.id[:-1])
        await books.set("transaction_logs", (await books.entry(wallet, 2))["_id"], hash=right)
        await books.replay(wallet.id[:-1])
        assert [one.state for one in await books.breaks_of(wallet)] == [BreakState.RESOLVED]


async def make_a_hash_wrong(books: OwnBooks, wallet: Wallet, seq: int) -> None:
    """Two faults: in itself, and against the one behind it."""
    await books.set("transaction_logs", (await books.entry(wallet, seq))["_id"], hash="0" * 64)


async def explain_and_thaw(books: OwnBooks, wallet: Wallet) -> Sequence[Break]:
    breaks = await books.breaks_of(wallet)
    for one in breaks:
        await explain_break(books.databases.client, "usr_admin", one.id, "Done by us", None)
    await books.set("wallets", wallet.id, status="active", freeze=None)
    return breaks


async def begin_round(books: OwnBooks, wallet: Wallet) -> None:
    """Due now, and so far that this wallet is the next one."""
    progress = {"current": Round(7, utc_now(), wallet.id[:-1])._asdict(), "last": None}
    past = utc_now() - timedelta(seconds=1)
    await books.admin.wallet["duties"].replace_one(
        {"_id": DUTY}, {"due_at": past, "claim": None, "progress": progress}, upsert=True
    )


class TestRounds:
    async def test_of_two_workers_go_over_each_wallet_once_and_are_followed_by_the_next(
        self, books: OwnBooks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay_service, "_SLICE_WALLETS", 3)
        wallets = [await make_funded_wallet(books.databases) for _ in range(8)]
        await begin_round(books, wallets[0])
        settings = books.resources.settings.model_copy(update={"integrity_round_s": 0.0})

        async def worker() -> None:
            while (await duty_repository.find_progress(DUTY))["last"] is None:
                await work_on_round(books.databases.client, books.resources.ledger, settings)
                await asyncio.sleep(0.001)

        await asyncio.gather(worker(), worker())
        last = (await duty_repository.find_progress(DUTY))["last"]
        assert (last["number"], last["wallets"], last["entries"], last["slices"]) == (7, 8, 8, 3)
        assert last["finished_at"] >= last["started_at"]
        async with asyncio.timeout(10):
            while await work_on_round(books.databases.client, books.resources.ledger, settings) is None:  # noqa: ASYNC110 it is due soon
                await asyncio.sleep(0.01)
        assert (await duty_repository.find_progress(DUTY))["current"]["number"] == 8

    async def test_a_slice_whose_worker_died_is_done_by_another_when_its_lease_is_over(self, books: OwnBooks) -> None:
        wallet = await make_funded_wallet(books.databases)
        client, ledger, settings = books.databases.client, books.resources.ledger, books.resources.settings
        await begin_round(books, wallet)
        dead = await duty_repository.claim(DUTY, now=utc_now(), lease_s=30)
        assert dead is not None
        assert await work_on_round(client, ledger, settings) is None
        await raise_balance(books, wallet)
        await books.set("duties", DUTY, due_at=utc_now() - timedelta(seconds=1))
        assert await work_on_round(client, ledger, settings) is not None
        assert [one.kind for one in await books.breaks_of(wallet)] == [K.WALLET_BALANCE]
        assert not await duty_repository.hand_back(dead, utc_now(), {})


class TestADeadWorker:
    """One that dies in a slice as if the power had gone."""

    @pytest.mark.parametrize("point", [CrashPoint.REPLAY_READ, CrashPoint.REPLAY_CHECKED])
    async def test_leaves_a_slice_that_another_does_to_the_same_end(self, books: OwnBooks, point: CrashPoint) -> None:
        wallet = await make_funded_wallet(books.databases)
        await raise_balance(books, wallet)
        past = utc_now() - timedelta(seconds=1)
        await begin_round(books, wallet)
        settings = books.resources.settings
        died = await run_module(settings, _ROOT, "tests.replaying", "round", WALLET_CRASH_AT=point.value)
        assert died.status == EXIT_CODE, died
        told = await books.breaks_of(wallet)
        assert len(told) == (0 if point is CrashPoint.REPLAY_READ else 1)
        await books.set("duties", DUTY, due_at=past)
        assert await work_on_round(books.databases.client, books.resources.ledger, settings) is not None
        (one,) = await books.breaks_of(wallet)
        assert one.times_seen == len(told) + 1
        assert await books.state_of(wallet) == ("frozen", "both")
        events = await audit_repository.find_newest(AuditFilter(subject_id=wallet.id), before_id=None, limit=10)
        assert len(events) == 1
        after = await duty_repository.find_progress(DUTY)
        assert (after["current"], after["last"]["number"]) == (None, 7)
