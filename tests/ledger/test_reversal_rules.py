"""Adjustments, transfers and reversals against a model: random ones, compared step by step with plain arithmetic."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.adjustments import Adjustment, AdjustmentType
from service.domain.entries import EFFECTS, Entry
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.reversals import Reversal
from service.domain.transfers import Transfer
from service.domain.wallets import Wallet, new_wallet
from service.ledger.adjustments import ApproveAdjustment, RejectAdjustment, RequestAdjustment
from service.ledger.batch import Batch, Decided, Loaded
from service.ledger.commands import Command
from service.ledger.reversals import ReverseOriginal, way_back
from service.ledger.transfers import RequestTransfer

_NOW = datetime(2026, 2, 28, 22, 0, tzinfo=UTC)
_OWNERS = ("usr_a", "usr_b", "usr_c")
_ADMINS = ("usr_admin_1", "usr_admin_2")
# Above this an admin's adjustment waits for the other one.
_ALONE = 60

_TRANSFERS = st.tuples(st.just("transfer"), st.integers(0, 2), st.integers(1, 2), st.integers(10, 100))
# More of those that move money about, so that what is taken back has often been spent.
_STEPS = st.one_of(
    st.tuples(st.sampled_from(AdjustmentType), st.integers(0, 2), st.integers(1, 100), st.booleans()),
    _TRANSFERS,
    _TRANSFERS,
    st.tuples(st.sampled_from(("approve", "reject")), st.integers(0, 5)),
    st.tuples(st.just("reverse"), st.integers(0, 5), st.booleans()),
)


@dataclass
class Books:
    """What a database would hold, and beside it what plain arithmetic says."""

    wallets: dict[str, Wallet] = field(
        default_factory=lambda: {f"wal_{owner}": new_wallet(f"wal_{owner}", owner, "INR", _NOW) for owner in _OWNERS}
    )
    records: dict[str, Record] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=lambda: dict.fromkeys((f"wal_{owner}" for owner in _OWNERS), 0))
    waiting: list[Adjustment] = field(default_factory=list)
    settled: list[Adjustment | Transfer] = field(default_factory=list)
    reversed_ids: set[str] = field(default_factory=set)
    number: int = 0

    def run(self, command: Command) -> Decided:
        active = dict.fromkeys((*_OWNERS, *_ADMINS), 0)
        policy = Policy(adjustment_approval_above={"INR": _ALONE})
        batch = Batch(Loaded(active, self.wallets, self.records, {}), policy)
        decided = batch.run(command)
        writes = batch.writes()
        self.wallets |= {update.after.id: update.after for update in writes.wallet_updates}
        self.records |= {record.id: record for record in writes.record_inserts}
        self.records |= {update.after.id: update.after for update in writes.record_updates}
        self.entries += writes.entries
        return decided

    def by(self, user_id: str) -> dict[str, Any]:
        self.number += 1
        # Hours, days and months go by.
        now = _NOW + timedelta(minutes=11 * self.number)
        return {
            "now": now,
            "transaction_id": f"txn_{self.number}",
            "user_id": user_id,
            "token_version": 0,
        }

    def audited(self, user_id: str) -> dict[str, Any]:
        return {**self.by(user_id), "audit_event_id": f"aud_{self.number}", "reason": "A test"}

    def adjust(self, adjustment_type: AdjustmentType, wallet_id: str, amount: int, *, is_admin: bool) -> None:
        command = RequestAdjustment(
            **self.audited(_ADMINS[0]),
            adjustment_id=f"adj_{self.number}",
            entry_id=f"ent_{self.number}",
            type=adjustment_type,
            wallet_id=wallet_id,
            amount=amount,
            currency="INR",
            category=None,
            description=None,
            metadata={},
            is_admin=is_admin,
        )
        decided = self.run(command)
        is_possible = adjustment_type is AdjustmentType.CREDIT or self.expected[wallet_id] >= amount
        assert decided.refused is not is_possible
        if isinstance(decided.record, Adjustment):
            if is_admin and amount > _ALONE:
                self.waiting.append(decided.record)
            else:
                self._note(decided.record)

    def approve(self, adjustment: Adjustment) -> None:
        about: dict[str, Any] = {"adjustment_id": adjustment.id, "wallet_id": adjustment.wallet_id}
        assert self.run(ApproveAdjustment(**self.audited(_ADMINS[0]), **about, entry_id="ent_x")).refused
        command = ApproveAdjustment(**self.audited(_ADMINS[1]), **about, entry_id=f"ent_{self.number}")
        decided = self.run(command)
        is_credit = adjustment.type is AdjustmentType.CREDIT
        assert decided.refused is not (is_credit or self.expected[adjustment.wallet_id] >= adjustment.amount)
        if isinstance(decided.record, Adjustment):
            self.waiting.remove(adjustment)
            self._note(decided.record)

    def reject(self, adjustment: Adjustment) -> None:
        command = RejectAdjustment(
            **self.audited(_ADMINS[1]), adjustment_id=adjustment.id, wallet_id=adjustment.wallet_id
        )
        assert not self.run(command).refused
        self.waiting.remove(adjustment)

    def _note(self, adjustment: Adjustment) -> None:
        is_credit = adjustment.type is AdjustmentType.CREDIT
        self.expected[adjustment.wallet_id] += adjustment.amount if is_credit else -adjustment.amount
        assert adjustment.available_after == self.expected[adjustment.wallet_id]
        self.settled.append(adjustment)

    def transfer(self, wallet_id: str, to_wallet_id: str, amount: int) -> None:
        command = RequestTransfer(
            **self.by(wallet_id.removeprefix("wal_")),
            transfer_id=f"trf_{self.number}",
            wallet_id=wallet_id,
            to_wallet_id=to_wallet_id,
            to_user_id=None,
            amount=amount,
            currency="INR",
            category=None,
            description=None,
            metadata={},
            out_entry_id=f"ent_{self.number}_out",
            in_entry_id=f"ent_{self.number}_in",
        )
        decided = self.run(command)
        assert decided.refused is not (self.expected[wallet_id] >= amount)
        if isinstance(decided.record, Transfer):
            self.expected[wallet_id] -= amount
            self.expected[to_wallet_id] += amount
            self.settled.append(decided.record)

    def reverse(self, original: Adjustment | Transfer, *, is_forced: bool) -> None:
        way = way_back(original)
        command = ReverseOriginal(
            **self.audited(_ADMINS[0]),
            reversal_id=f"rev_{self.number}",
            original_id=original.id,
            **way._asdict(),
            is_forced=is_forced,
            out_entry_id=f"ent_{self.number}_out",
            in_entry_id=f"ent_{self.number}_in",
            house_entry_id=f"ent_{self.number}_house",
        )
        decided = self.run(command)
        there = original.amount if way.from_wallet_id is None else self.expected[way.from_wallet_id]
        is_covered = there >= original.amount
        borne = original.amount if way.from_wallet_id is None else max(0, original.amount - there)
        # Everything here is asked for by one and the same admin.
        is_possible = original.id not in self.reversed_ids and (is_forced or is_covered) and borne <= _ALONE
        assert decided.refused is not is_possible
        if isinstance(decided.record, Reversal):
            self.reversed_ids.add(original.id)
            taken = min(there, original.amount)
            assert decided.record.shortfall == original.amount - taken
            if way.from_wallet_id is not None:
                self.expected[way.from_wallet_id] -= taken
            if way.to_wallet_id is not None:
                self.expected[way.to_wallet_id] += original.amount

    def check(self) -> None:
        assert {wallet.id: wallet.available for wallet in self.wallets.values()} == self.expected
        for wallet in self.wallets.values():
            assert wallet.open_operations == sum(one.wallet_id == wallet.id for one in self.waiting)
            assert min(wallet.usage.hour_count, wallet.usage.day_amount, wallet.usage.month_amount) >= 0
        from_house = sum(
            EFFECTS[entry.type].available * entry.amount
            for entry in self.entries
            if entry.counterparty == "house:adjustments"
        )
        assert from_house == sum(self.expected.values())


class TestAgainstAModel:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(_STEPS, min_size=20, max_size=60))
    def test_no_balance_is_negative_and_what_wallets_have_the_house_gave(self, steps: list[tuple[Any, ...]]) -> None:
        books = Books()
        for owner in _OWNERS:
            books.adjust(AdjustmentType.CREDIT, f"wal_{owner}", 100, is_admin=False)
        for what, *rest in steps:
            match what:
                case AdjustmentType():
                    books.adjust(what, f"wal_{_OWNERS[rest[0]]}", rest[1], is_admin=rest[2])
                case "transfer":
                    sender, recipient = _OWNERS[rest[0]], _OWNERS[(rest[0] + rest[1]) % 3]
                    books.transfer(f"wal_{sender}", f"wal_{recipient}", rest[2])
                case "reverse" if books.settled:
                    books.reverse(books.settled[-1 - rest[0] % len(books.settled)], is_forced=rest[1])
                case "approve" if books.waiting:
                    books.approve(books.waiting[rest[0] % len(books.waiting)])
                case "reject" if books.waiting:
                    books.reject(books.waiting[rest[0] % len(books.waiting)])
            books.check()
