"""What movements do to the headroom of accounts, and how portions of it change hands."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import house_positions
from service.domain.accounts import SystemAccount
from service.domain.entries import EFFECTS, EntryType
from service.domain.house_positions import (
    POOL,
    Portion,
    PortionUpdate,
    _updates,
    add_portion,
    floor_of,
    headroom_change,
    headroom_change_of_debt,
    is_own_enough,
    is_pool_overdrawn,
    is_refusable,
    rebalance,
    stored_floor,
    total_headroom,
)
from service.domain.wallets import Movement, apply_movement, new_wallet

_NOW = datetime(2026, 11, 30, tzinfo=UTC)
_PAIR = ("bank", "EUR")
_AMOUNTS = st.integers(-1_000, 1_000)
_CHANGES = st.integers(-1_500, 1_500)
_OWN, _LIVING = "me", ("ada", "bo", "me")


def portion(owner: str, headroom: int, version: int = 3) -> Portion:
    return Portion(*_PAIR, owner, headroom, version, floor=-7 if owner == POOL else None)


@st.composite
def several(draw: st.DrawFn) -> list[Portion]:
    owners = draw(st.sets(st.sampled_from((POOL, _OWN, "ada", "bo", "gone", "long gone"))))
    return [portion(owner, draw(_AMOUNTS)) for owner in sorted(owners)]


def applied(portions: Sequence[Portion], updates: Sequence[PortionUpdate]) -> dict[str, Portion]:
    """The portions afterwards, by owner; each update is of the very portion that was read."""
    now = {one.id: one for one in portions}
    for update_id, before, after in updates:
        assert now.pop(update_id, None) == before
        if after is not None:
            now[update_id] = after
    return {one.owner: one for one in now.values()}


def rebalanced(portions: Sequence[Portion], change: int) -> dict[str, Portion]:
    return applied(portions, rebalance(_PAIR, portions, _OWN, change, _LIVING))


def headrooms(portions: Sequence[Portion], change: int) -> dict[str, int]:
    return {owner: one.headroom for owner, one in rebalanced(portions, change).items()}


class TestHeadroomChange:
    @pytest.mark.parametrize(
        ("account", "steps", "changes"),
        [
            ("bank", ["DEPOSIT"], [10]),
            # Taken when it is accepted; afterwards it leaves, or comes back.
            ("bank", ["WITHDRAWAL", "WITHDRAWAL_SETTLEMENT"], [-10, 0]),
            ("bank", ["WITHDRAWAL", "WITHDRAWAL_REFUND"], [-10, 10]),
            ("bank", ["WITHDRAWAL", "WITHDRAWAL_SETTLEMENT", "WITHDRAWAL_RETURN"], [-10, 0, 10]),
            ("bank", ["DEPOSIT", "DEPOSIT_RETURN"], [10, -10]),
            ("house:fx", ["CONVERSION_IN"], [-10]),
            ("house:fx", ["CONVERSION_OUT"], [10]),
            ("house:adjustments", ["CREDIT"], [-10]),
            ("house:rewards", ["VOUCHER"], [10]),
            # What is set aside for the house is not the house's yet.
            ("house:revenue", ["HOLD", "HOLD_CAPTURE"], [0, 10]),
            ("house:revenue", ["HOLD", "HOLD_RELEASE"], [0, 0]),
        ],
    )
    def test_is_what_the_account_can_give_less(self, account: str, steps: list[str], changes: list[int]) -> None:
        assert [headroom_change(account, EntryType(step), 10) for step in steps] == changes

    @given(
        steps=st.lists(st.tuples(st.sampled_from(EntryType), st.integers(1, 50)), max_size=30),
        account=st.sampled_from(SystemAccount),
    )
    def test_adds_up_to_what_the_entries_say(self, steps: list[tuple[EntryType, int]], account: SystemAccount) -> None:
        """The bank's: its position less what is set aside; the house's: what wallets gave less what they got."""
        start = new_wallet("wal_ada", "usr_ada", "EUR", _NOW)._replace(available=2_000, held=2_000)
        wallet, total = start, 0
        for entry_type, amount in steps:
            movement = Movement(wallet.id, entry_type, amount, "success", "ref", "txn", account, "ent", _NOW)
            wallet, entry = apply_movement(wallet, movement)
            total += headroom_change(entry.counterparty, entry.type, entry.amount)
        balance = (start.available + start.held) - (wallet.available + wallet.held)
        reserved = wallet.held - start.held
        assert total == (-balance - reserved if account == "bank" else balance)

    def test_of_what_is_owed_is_the_banks_and_never_in_points(self) -> None:
        assert headroom_change_of_debt("EUR", 5) == {("bank", "EUR"): -5}
        assert headroom_change_of_debt("EUR", -5) == {("bank", "EUR"): 5}
        assert headroom_change_of_debt("PTS", 5) == headroom_change_of_debt("EUR", 0) == {}

    def test_is_refusable_unless_it_was_decided_before(self) -> None:
        assert {one for one in EFFECTS if not is_refusable(one)} == {EntryType.DEPOSIT_RETURN, EntryType.POINTS_EARNED}


class TestFloorOf:
    def test_is_nothing_for_bank_and_exchange_and_none_for_others_unless_stated(self) -> None:
        floors = {("bank", "EUR"): -5, ("house:rewards", "PTS"): -9}
        assert floor_of(("bank", "EUR"), floors) == -5
        assert floor_of(("bank", "INR"), floors) == floor_of(("house:fx", "EUR"), floors) == 0
        assert floor_of(("house:rewards", "PTS"), floors) == -9
        assert floor_of(("house:adjustments", "EUR"), floors) is None


class TestTheStoredFloor:
    def test_is_that_of_the_pool(self) -> None:
        assert stored_floor(_PAIR, [portion("ada", 1), portion(POOL, 2)]) == -7
        assert stored_floor(_PAIR, [portion(POOL, 2)._replace(floor=None)]) is None

    def test_is_the_usual_one_where_there_is_no_pool(self) -> None:
        assert stored_floor(_PAIR, [portion("ada", 1)]) == 0
        assert stored_floor(("house:rewards", "PTS"), []) is None


class TestRebalance:
    @given(portions=several(), change=_CHANGES)
    def test_loses_nothing_and_makes_nothing(self, portions: list[Portion], change: int) -> None:
        assert total_headroom(rebalanced(portions, change).values()) == total_headroom(portions) + change

    @given(portions=several(), change=_CHANGES)
    def test_leaves_nobody_below_0_while_there_is_enough(self, portions: list[Portion], change: int) -> None:
        after = rebalanced(portions, change)
        if total_headroom(portions) + change >= 0:
            assert min(one.headroom for one in after.values()) >= 0

    @given(portions=several(), change=_CHANGES)
    def test_leaves_nothing_to_spend_while_there_is_not_enough(self, portions: list[Portion], change: int) -> None:
        after = rebalanced(portions, change)
        if total_headroom(portions) + change < 0:
            assert [one.owner for one in after.values() if one.headroom < 0] == [POOL]
            assert not any(is_own_enough(list(after.values()), name, -1) for name in after)

    @given(portions=several(), change=_CHANGES)
    def test_lets_nobody_spend_what_they_remember_when_the_pool_goes_below_0(
        self, portions: list[Portion], change: int
    ) -> None:
        after = rebalanced(portions, change)
        if is_pool_overdrawn(after.values()) and not is_pool_overdrawn(portions):
            assert all(one.version > 3 for one in after.values() if one.owner in {was.owner for was in portions})
            assert {one.headroom for one in after.values() if one.owner != POOL} == {0}

    def test_leaves_alone_what_others_have_added_while_the_pool_is_below_0(self) -> None:
        pool, ada, own = portion(POOL, -100), portion("ada", 60), portion(_OWN, 20)
        assert rebalance(_PAIR, [pool, ada, own], _OWN, -30, _LIVING) == [
            PortionUpdate(own.id, own, own._replace(headroom=0, version=4)),
            PortionUpdate(pool.id, pool, pool._replace(headroom=-110, version=4)),
        ]

    def test_writes_the_pool_for_whatever_takes_more_while_it_is_below_0(self) -> None:
        """Of two that take at once, each from what it has added itself, one must fail."""
        pool, own = portion(POOL, -100), portion(_OWN, 50)
        assert rebalance(_PAIR, [pool, own], _OWN, -30, _LIVING) == [
            PortionUpdate(own.id, own, own._replace(headroom=20, version=4)),
            PortionUpdate(pool.id, pool, pool._replace(version=4)),
        ]

    def test_fills_the_pool_up_as_soon_as_there_is_enough(self) -> None:
        assert headrooms([portion(POOL, -100), portion("ada", 60), portion(_OWN, 50)], -10) == {
            POOL: 0, "ada": 0, _OWN: 0,
        }  # fmt: skip

    @given(portions=several(), change=_CHANGES)
    def test_makes_no_new_portion_without_writing_the_pool(self, portions: list[Portion], change: int) -> None:
        """Or it could be made beside a transaction that leaves all others nothing, and be spent after it."""
        updates = rebalance(_PAIR, portions, _OWN, change, _LIVING)
        written = {after.owner for _, _, after in updates if after is not None}
        if _OWN not in {one.owner for one in portions}:
            assert POOL in written
        assert [update.id for update in updates] == sorted(update.id for update in updates)

    @given(portions=several(), change=_CHANGES)
    def test_removes_the_portions_of_processes_that_are_gone(self, portions: list[Portion], change: int) -> None:
        assert rebalanced(portions, change).keys() <= {POOL, *_LIVING}

    @given(portions=several(), change=_CHANGES)
    def test_changes_no_floor(self, portions: list[Portion], change: int) -> None:
        after = rebalanced(portions, change)
        is_new = POOL not in {one.owner for one in portions}
        assert POOL not in after or after[POOL].floor == (0 if is_new else -7)

    def test_takes_a_fair_share_and_leaves_one(self) -> None:
        after = rebalanced([portion(POOL, 900)], -100)
        assert (after[_OWN].headroom, after[POOL].headroom) == (400, 400)
        after = rebalanced([portion(POOL, 0), portion("ada", 900)], -100)
        assert {name: one.headroom for name, one in after.items()} == {POOL: 0, "ada": 534, _OWN: 266}

    def test_takes_from_the_pool_first_and_all_that_it_has(self) -> None:
        assert headrooms([portion(POOL, 300), portion("ada", 900)], 0) == {POOL: 0, "ada": 800, _OWN: 400}

    def test_takes_from_the_richest_process_first(self) -> None:
        portions = [portion("ada", 300), portion("bo", 600)]
        assert headrooms(portions, 0) == {POOL: 0, "ada": 300, "bo": 375, _OWN: 225}

    def test_leaves_the_richest_a_fair_share_too(self) -> None:
        portions = [portion("ada", 300), portion("bo", 300)]
        assert headrooms(portions, -100) == {POOL: 0, "ada": 125, "bo": 250, _OWN: 125}

    def test_takes_nothing_where_it_has_its_share(self) -> None:
        assert headrooms([portion(POOL, 100), portion(_OWN, 500)], -1) == {POOL: 100, _OWN: 499}

    def test_shares_with_processes_that_live(self) -> None:
        portions = [portion(POOL, 300), portion("gone", 0), portion("ada", 0)]
        assert headrooms(portions, 0) == {POOL: 200, "ada": 0, _OWN: 100}

    def test_writes_only_portions_that_change(self) -> None:
        """Each further document is one more that another transaction may be writing."""
        own = portion(_OWN, 5)
        for change in (-5, -4, 3):
            updates = rebalance(_PAIR, [portion(POOL, 0), portion("ada", 0), own], _OWN, change, _LIVING)
            assert updates == [PortionUpdate(own.id, own, own._replace(headroom=5 + change, version=4))]

    def test_writes_what_it_takes_from_and_in_the_order_of_their_ids(self) -> None:
        own, pool, ada, gone = portion(_OWN, 0), portion(POOL, 0), portion("ada", 90), portion("gone", 9)
        updates = rebalance(_PAIR, [pool, own, gone, ada], _OWN, -9, _LIVING)
        assert updates == [
            PortionUpdate("bank/EUR/ada", ada, ada._replace(headroom=60, version=4)),
            PortionUpdate("bank/EUR/gone", gone, None),
            PortionUpdate("bank/EUR/me", own, own._replace(headroom=30, version=4)),
        ]

    def test_begins_with_new_portions_of_the_account(self) -> None:
        assert rebalance(_PAIR, [], _OWN, 8, _LIVING) == [
            PortionUpdate("bank/EUR/me", None, Portion(*_PAIR, _OWN, 8, version=1)),
            PortionUpdate("bank/EUR/pool", None, Portion(*_PAIR, POOL, 0, version=1, floor=0)),
        ]

    def test_takes_the_last_from_whoever_has_it(self) -> None:
        after = rebalanced([portion(POOL, 0), portion("ada", 60), portion("bo", 40), portion(_OWN, 0)], -100)
        assert {one.headroom for one in after.values()} == {0}


class TestAddPortion:
    """Of an account without a floor."""

    @given(portions=several(), change=_CHANGES)
    def test_writes_the_new_portion_and_the_pool_alone(self, portions: list[Portion], change: int) -> None:
        portions = [one for one in portions if one.owner != _OWN]
        updates = add_portion(_PAIR, portions, _OWN, change, _LIVING)
        after = applied(portions, updates)
        assert total_headroom(after.values()) == total_headroom(portions) + change
        assert after[_OWN].headroom == change
        assert after.keys() <= {POOL, *_LIVING}
        assert {one.owner for _, before, one in updates if one is not None} == {_OWN, POOL}


class TestIsOwnEnough:
    @pytest.mark.parametrize(
        ("own", "other", "pool", "change", "enough"),
        [
            (5, 0, 0, -5, True),
            (5, 0, 0, -6, False),
            (5, 0, 0, 1, True),
            (-5, 0, 0, 9, False),
            (5, -1, 0, 3, False),
            (0, 0, 0, 0, True),
            # While the pool is below 0 everybody may add to their own, and nobody takes from it.
            (0, 0, -1, 1, True),
            (5, 0, -1, 0, True),
            (5, 0, -1, -1, False),
            (-5, 0, -1, 1, False),
        ],
    )
    def test_is_told_by_its_own_and_by_nobody_being_below_0(
        self, own: int, other: int, pool: int, change: int, *, enough: bool
    ) -> None:
        portions = [portion(_OWN, own), portion("ada", other), portion(POOL, pool)]
        assert is_own_enough(portions, _OWN, change) is enough

    def test_is_told_by_its_own_where_there_is_no_other(self) -> None:
        assert is_own_enough([portion(_OWN, 5)], _OWN, -5)
        assert not is_own_enough([portion(_OWN, 5)], _OWN, -6)

    def test_is_no_matter_of_those_without_a_portion(self) -> None:
        assert not is_own_enough([portion(POOL, 100)], _OWN, 1)


class Process(NamedTuple):
    """What a ledger process remembers; the ledger does the same in house_portions.py."""

    own: Portion | None = None
    is_overdrawn: bool = False


class Begun(NamedTuple):
    """A transaction between its snapshot and its commit."""

    owner: str
    updates: list[PortionUpdate]
    is_overdrawn: bool
    is_paid: bool


def interleave(seed: int) -> int:
    """Each step begins a transaction of some process, or commits one; who writes what changed meanwhile begins anew.

    Returns how many were paid. Functions of the module are looked up at each call, so that a test can break one.
    """
    draw = Random(seed)  # noqa: S311 no secret
    stored = {POOL: portion(POOL, 0)}
    processes = {name: Process() for name in ("1", "2", "3")}
    begun: dict[str, Begun] = {}
    paid = 0
    for step in range(3_000):
        owner = draw.choice(sorted(processes))
        if draw.random() < 0.01:
            # It is gone, and another one is there in its place.
            del processes[owner]
            begun.pop(owner, None)
            processes[str(step + 10)] = Process()
        elif owner not in begun:
            may_be_refused = draw.random() < 0.7
            change = draw.randint(-4, 4)
            attempt = begin(stored, processes, owner, change, may_be_refused=may_be_refused)
            begun |= {owner: attempt} if attempt is not None else {}
        else:
            attempt = begun.pop(owner)
            if any(stored.get(key.rpartition("/")[2]) != before for key, before, _ in attempt.updates):
                processes[owner] = Process()
                continue
            for key, _, after in attempt.updates:
                stored.pop(key.rpartition("/")[2], None)
                stored |= {} if after is None else {after.owner: after}
            processes[owner] = Process(stored[owner], attempt.is_overdrawn)
            assert min(one.headroom for name, one in stored.items() if name != POOL) >= 0
            assert not attempt.is_paid or stored[POOL].headroom >= 0
            paid += attempt.is_paid
    return paid


def begin(
    stored: Mapping[str, Portion],
    processes: Mapping[str, Process],
    owner: str,
    change: int,
    *,
    may_be_refused: bool,
) -> Begun | None:
    """None where it is refused."""
    own, is_overdrawn = processes[owner]
    is_paid = may_be_refused and change < 0
    if own is None or (change < 0 and (is_overdrawn or own.headroom + change < 0)):
        portions = list(stored.values())
        is_overdrawn = house_positions.is_pool_overdrawn(portions)
        if is_paid and total_headroom(portions) + change < 0:
            return None
        if not is_own_enough(portions, owner, change):
            updates = house_positions.rebalance(_PAIR, portions, owner, change, processes.keys())
            is_overdrawn = house_positions.is_pool_overdrawn(applied(portions, updates).values())
            return Begun(owner, updates, is_overdrawn, is_paid)
        own = stored[owner]
    updates = [PortionUpdate(own.id, own, own.with_headroom(own.headroom + change))]
    return Begun(owner, updates, is_overdrawn, is_paid)


class TestProcessesThatInterleave:
    @pytest.mark.parametrize("seed", range(4))
    def test_pay_out_nothing_that_is_not_there(self, seed: int) -> None:
        assert interleave(seed) > 100


def nobody_sees_that_the_pool_is_overdrawn(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(house_positions, "is_pool_overdrawn", lambda _: False)


def portions_that_keep_their_headroom_keep_their_version(patch: pytest.MonkeyPatch) -> None:
    """So a process goes on spending what it remembers from before the pool went below 0, or while another one takes."""
    patch.setattr(
        house_positions,
        "_updates",
        lambda own, pool, found, left, _, living: _updates(own, pool, found, left, {own.owner}, living),
    )


def portions_are_left_as_they_are_when_the_pool_goes_below_0(patch: pytest.MonkeyPatch) -> None:
    def leaving(pair: house_positions.AccountCurrency, portions: Sequence[Portion], *rest: Any) -> list[PortionUpdate]:
        owner = rest[0]
        updates = rebalance(pair, portions, *rest)
        is_taken = any(one.after is not None and one.after.headroom < 0 for one in updates)
        return [one for one in updates if not is_taken or one.id.rpartition("/")[2] in (POOL, owner)]

    patch.setattr(house_positions, "rebalance", leaving)


class TestThatItBites:
    """One defect at a time, found within a few runs."""

    @pytest.mark.parametrize(
        "defect",
        [
            nobody_sees_that_the_pool_is_overdrawn,
            portions_that_keep_their_headroom_keep_their_version,
            portions_are_left_as_they_are_when_the_pool_goes_below_0,
        ],
        ids=lambda defect: str(defect.__name__),
    )
    def test_finds(self, monkeypatch: pytest.MonkeyPatch, defect: Callable[[pytest.MonkeyPatch], None]) -> None:
        defect(monkeypatch)
        with pytest.raises(AssertionError):
            sum(map(interleave, range(20)))
