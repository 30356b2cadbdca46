"""What the ledger itself asserts and does, whatever rule it is given: on documents in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.entries import EntryType
from service.domain.idempotency import IdempotencyClaim
from service.domain.identifiers import IdWindow, Prefix, first_id_at
from service.domain.incidents import Incident
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_row
from service.domain.policy import Policy
from service.domain.records import Record
from service.domain.returns import ReturnStatus, ReturnType
from service.domain.vouchers import Voucher
from service.domain.wallets import Movement, Wallet
from service.errors import HouseFundsExhausted, InternalError, WalletServiceError
from service.ledger.approvals import LapsePayment
from service.ledger.batch import Batch, Decided, Headroom, Loaded, Writes
from service.ledger.commands import Changes, Command, CompositeCommand, Needs, PersonalCommand, State, merged_needs
from service.ledger.rules import with_one_fewer_open
from tests.records import at, build_incident, build_return, build_transfer, build_voucher, build_wallet

_ASHA = build_wallet()
_RAVI = build_wallet(id="wal_ravi", user_id="usr_ravi")
_VOUCHER = build_voucher()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Does(Command):
    """A rule that comes to just this."""

    changes: Changes

    def decide(self, state: State) -> Changes:  # noqa: ARG002 it looks at nothing
        return self.changes


@dataclass(frozen=True, slots=True, kw_only=True)
class _SaysToDo(PersonalCommand):
    """The same, asked for by somebody."""

    changes: Changes

    def decide(self, state: State) -> Changes:  # noqa: ARG002 it looks at nothing
        return self.changes


def _does(changes: Changes, **overrides: Any) -> _Does:
    fields: dict[str, Any] = {"now": at(5), "transaction_id": f"txn_{'0' * 32}", "traceparent": None}
    return _Does(**(fields | overrides), changes=changes)


def _says(changes: Changes, user: str) -> _SaysToDo:
    return _SaysToDo(now=at(5), transaction_id="txn_1", user_id=user, token_version=None, changes=changes)


def _movement(wallet_id: str = "wal_asha", **overrides: Any) -> Movement:
    fields: dict[str, Any] = {"status": "success", "reference": "trf_1", "transaction_id": "txn_1"}
    fields |= {"counterparty": "bank", "entry_id": "ent_1", "at": at(5), "type": EntryType.DEBIT, "amount": 5}
    return Movement(**({"wallet_id": wallet_id} | fields | overrides))


def _run(
    *commands: Command,
    wallets: tuple[Wallet, ...] = (_ASHA, _RAVI),
    records: tuple[Record, ...] = (),
    entry_ids: IdWindow | None = None,
) -> tuple[Writes, list[Decided]]:
    documents: Mapping[str, Record] = {one.id: one for one in records}
    loaded = Loaded({"usr_asha": 0}, {one.id: one for one in wallets}, documents, {}, entry_ids=entry_ids)
    batch = Batch(loaded, Policy())
    decided = [batch.run(command) for command in commands]
    return batch.writes(), decided


def _assert_stopped(message: str, command: Command, **loaded: Any) -> None:
    with pytest.raises(AssertionError) as stopped:
        _run(command, **loaded)
    assert str(stopped.value) == message


class TestItStops:
    def test_a_movement_of_a_wallet_that_was_not_named(self) -> None:
        moves = _does(Changes(_VOUCHER, (_movement("wal_none"),)))
        _assert_stopped("wal_none was not named as needed", moves)

    def test_a_change_of_a_wallet_that_was_not_named(self) -> None:
        changes = _does(Changes(_VOUCHER, wallets=(_ASHA._replace(id="wal_none"),)))
        _assert_stopped("wal_none was not named as needed", changes)

    def test_news_of_a_wallet_that_was_not_named(self) -> None:
        transfer = build_transfer(to_wallet_id="wal_none")
        _assert_stopped("wal_none was not named as needed, and is told of trf_1", _does(Changes(transfer)))

    @pytest.mark.parametrize("amount", [4, 6])
    def test_what_moves_between_wallets_and_does_not_add_up(self, amount: int) -> None:
        out = _movement(counterparty="wal_ravi", type=EntryType.TRANSFER_OUT)
        into = _movement("wal_ravi", counterparty="wal_asha", type=EntryType.TRANSFER_IN, amount=amount)
        message = f"what moves between wallets adds up to {{'INR': {amount - 5}}}"
        _assert_stopped(message, _does(Changes(_VOUCHER, (out, into))))

    def test_one_currency_is_not_set_off_against_another(self) -> None:
        dollars = _RAVI._replace(currency="USD")
        out = _movement(counterparty="wal_ravi", type=EntryType.TRANSFER_OUT)
        into = _movement("wal_ravi", counterparty="wal_asha", type=EntryType.TRANSFER_IN)
        message = "what moves between wallets adds up to {'INR': -5, 'USD': 5}"
        _assert_stopped(message, _does(Changes(_VOUCHER, (out, into))), wallets=(_ASHA, dollars))

    def test_money_that_somebody_moves_in_anothers_wallet_unrecorded(self) -> None:
        taken = Changes(_VOUCHER, (_movement("wal_ravi"),))
        _assert_stopped("usr_asha moves money of ['wal_ravi'] unrecorded", _says(taken, "usr_asha"))
        event = AuditEvent("aud_1", at(5), "usr_boss", AuditAction.HOLD_CAPTURED, "hld_1", None, {}, None)
        recorded = replace(taken, also=(event,))
        _assert_stopped("usr_asha moves money of ['wal_ravi'] unrecorded", _says(recorded, "usr_asha"))
        _run(_says(replace(taken, also=(event._replace(actor_id="usr_asha"),)), "usr_asha"))
        _run(_says(Changes(_VOUCHER, (_movement(),)), "usr_asha"))
        _run(_does(taken))

    def test_debts_that_are_no_returns(self) -> None:
        owing = _ASHA._replace(owed=5, debts=("inc_1",))
        credit = _does(Changes(_VOUCHER, (_movement(type=EntryType.CREDIT),)))
        message = "wal_asha owes inc_1, which is no return"
        _assert_stopped(message, credit, wallets=(owing,), records=(build_incident(),))

    def test_a_rule_that_owes_without_a_return(self) -> None:
        owing = _does(Changes(_VOUCHER, wallets=(_ASHA._replace(owed=5, debts=("rtn_1",)),)))
        _assert_stopped("wal_asha owes rtn_1, which is no return", owing)

    def test_a_rule_that_owes_more_or_less_than_its_returns(self) -> None:
        returned = build_return(id="rtn_2", owed=6)
        owing = _does(Changes(returned, wallets=(_ASHA._replace(available=700, owed=5, debts=("rtn_2",)),)))
        _assert_stopped("wal_asha owes 5 more, its returns 6", owing)

    @pytest.mark.parametrize(("owed", "debts"), [(0, ("rtn_1",)), (5, ())])
    def test_an_amount_that_is_owed_for_nothing(self, owed: int, debts: tuple[str, ...]) -> None:
        wallet = _ASHA._replace(available=0, owed=owed, debts=debts)
        changes = _does(Changes(_VOUCHER, wallets=(wallet._replace(open_operations=1),)))
        _assert_stopped(f"wal_asha owes {owed} for {debts}", changes, wallets=(wallet,))

    def test_a_mark_on_what_has_no_place_for_one(self) -> None:
        claim = IdempotencyClaim("usr_asha:key", "fingerprint", at(100), key_hashes=("hash",))
        command = _Made(now=at(5), transaction_id="txn_1", claim=claim, changes=Changes(_VOUCHER, answer=lambda _: {}))
        _assert_stopped("vch_1 has no place for a tombstone", command)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made(_Does):
    @property
    def made_id(self) -> str:
        return self.changes.record.id


class TestIdsOfEntries:
    """A command that waited long brings an id of an hour whose sums may be closed."""

    _WINDOW = IdWindow.around(Prefix.ENTRY, at(60), before=timedelta(minutes=1), after=timedelta(minutes=1))

    @pytest.mark.parametrize("minute", [5, 200])
    def test_are_renewed_out_of_their_time(self, minute: int) -> None:
        random = "a" * 20
        late = _movement(entry_id=first_id_at(Prefix.ENTRY, at(minute)) + random)
        writes, _ = _run(_does(Changes(_VOUCHER, (late,))), entry_ids=self._WINDOW)
        assert [entry.id for entry in writes.entries] == [first_id_at(Prefix.ENTRY, at(60)) + random]

    def test_stay_within_it(self) -> None:
        current = first_id_at(Prefix.ENTRY, at(60)) + "b" * 20
        writes, _ = _run(_does(Changes(_VOUCHER, (_movement(entry_id=current),))), entry_ids=self._WINDOW)
        assert [entry.id for entry in writes.entries] == [current]

    def test_of_payments_of_a_debt_are_renewed_too(self) -> None:
        owing = _ASHA._replace(available=0, owed=120, debts=("rtn_1",), open_operations=1)
        current = first_id_at(Prefix.ENTRY, at(60)) + "b" * 20
        credit = _does(Changes(_VOUCHER, (_movement(type=EntryType.CREDIT, entry_id=current),)))
        writes, _ = _run(credit, wallets=(owing,), records=(build_return(),), entry_ids=self._WINDOW)
        paid = writes.entries[1].id
        assert len(writes.entries) == 2
        assert paid.startswith(first_id_at(Prefix.ENTRY, at(60)))
        assert paid != current


class TestTheOutbox:
    _ROW = outbox_row(OutboxTopic.REWARD, "dep_1", None, at(1))

    def test_a_row_of_a_command_is_of_its_trace(self) -> None:
        traced = _does(Changes(_VOUCHER, outbox_rows=(self._ROW,)), traceparent="00-trace")
        writes, _ = _run(traced)
        assert writes.outbox_inserts == [self._ROW._replace(traceparent="00-trace")]
        writes, _ = _run(_does(Changes(_VOUCHER, outbox_rows=(self._ROW,))))
        assert writes.outbox_inserts == [self._ROW]

    def test_what_a_batch_makes_and_ends_was_never_there(self) -> None:
        makes, ends = Changes(_VOUCHER, outbox_rows=(self._ROW,)), Changes(_VOUCHER, done_outbox_ids=(self._ROW.id,))
        writes, _ = _run(_does(makes), _does(ends))
        assert (writes.outbox_inserts, writes.outbox_deletes) == ([], [])

    def test_what_a_command_ends_it_may_make_anew(self) -> None:
        later = self._ROW._replace(due_at=at(9))
        both = Changes(_VOUCHER, outbox_rows=(later,), done_outbox_ids=(self._ROW.id,))
        writes, _ = _run(_does(both))
        assert (writes.outbox_inserts, writes.outbox_deletes) == ([later], [self._ROW.id])
        writes, _ = _run(_does(Changes(_VOUCHER, outbox_rows=(self._ROW,))), _does(both))
        assert (writes.outbox_inserts, writes.outbox_deletes) == ([later], [])

    def test_keeps_others(self) -> None:
        other: OutboxRow = outbox_row(OutboxTopic.REWARD, "dep_2", None, at(1))
        makes = Changes(_VOUCHER, outbox_rows=(self._ROW, other))
        ends = Changes(_VOUCHER, done_outbox_ids=("reward:dep_3", self._ROW.id, "reward:dep_4"))
        writes, _ = _run(_does(makes), _does(ends))
        assert (writes.outbox_inserts, writes.outbox_deletes) == ([other], ["reward:dep_3", "reward:dep_4"])


class TestWhatIsWritten:
    def test_a_record_that_is_as_it_was_is_not(self) -> None:
        writes, (decided,) = _run(_does(Changes(_VOUCHER)), records=(_VOUCHER,))
        assert not writes
        assert decided == Decided(_VOUCHER, None, None, refused=False)

    def test_a_record_of_two_commands_is_once_as_the_last_left_it(self) -> None:
        first, second = _VOUCHER._replace(stock=7), _VOUCHER._replace(stock=6)
        writes, _ = _run(_does(Changes(first)), _does(Changes(second)), records=(_VOUCHER,))
        assert writes.record_updates == [(_VOUCHER, second)]
        writes, _ = _run(_does(Changes(first)), _does(Changes(second)))
        assert writes.record_inserts == [second]

    def test_a_refusal_may_leave_a_trace(self) -> None:
        error = InternalError()
        writes, (decided,) = _run(_does(Changes(_VOUCHER, error=error)))
        assert decided == Decided(_VOUCHER, None, error, refused=True)
        assert writes.record_inserts == [_VOUCHER]

    def test_wallets_are_in_the_order_of_their_ids(self) -> None:
        both = Changes(_VOUCHER, (_movement("wal_ravi"), _movement(entry_id="ent_2")))
        writes, _ = _run(_does(both))
        assert [update.after.id for update in writes.wallet_updates] == ["wal_asha", "wal_ravi"]


def test_a_record_of_another_kind_is_none() -> None:
    draft = Batch(Loaded({}, {}, {"vch_1": _VOUCHER}, {}), Policy())._state
    assert draft.record("vch_1", Voucher) == _VOUCHER
    assert draft.record("vch_1", Incident) is None
    assert draft.record("vch_2", Voucher) is None


def test_no_more_ends_than_has_begun() -> None:
    assert with_one_fewer_open(_ASHA._replace(open_operations=1), at(5)).open_operations == 0
    with pytest.raises(AssertionError, match=r"^wal_asha has nothing open that could end$"):
        with_one_fewer_open(_ASHA, at(5))


def test_an_answer_is_given_only_to_who_came_with_a_key() -> None:
    with pytest.raises(AssertionError, match=r"^it came without a key$"):
        _ = Decided(None, None, None, refused=False).given


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole(CompositeCommand):
    """Of several parts; the refusal of one is that of the whole as it is."""

    def refusal_of_whole(self, position: int, error: WalletServiceError) -> WalletServiceError:  # noqa: ARG002 the same
        return error

    def conclude(self, outcomes: Sequence[Mapping[str, Any] | WalletServiceError]) -> tuple[int, Mapping[str, Any]]:
        return 207, {"parts": len(outcomes)}


class TestHeadroom:
    """The bank has 20 left, as far as this process remembers."""

    _BANK = ("bank", "INR")

    def _batch(self, own: int = 20, **totals: int) -> Batch:
        headroom = Headroom({self._BANK: own}, dict.fromkeys([self._BANK] if totals else [], totals.get("total", 0)))
        wallets = {one.id: one for one in (_ASHA, _RAVI)}
        return Batch(Loaded({"usr_asha": 0}, wallets, {"rtn_1": build_return()}, {}, headroom=headroom), Policy())

    def _pays_out(self, amount: int, number: int = 1) -> Command:
        """What a withdrawal takes: of what is available."""
        out = _movement(type=EntryType.WITHDRAWAL, amount=amount, entry_id=f"ent_{number}")
        return _does(Changes(build_voucher(id=f"vch_{number}"), (out,)))

    def test_is_used_up_by_the_commands_of_a_batch_together(self) -> None:
        batch = self._batch()
        assert not batch.run(self._pays_out(12, 1)).refused
        refused = batch.run(self._pays_out(9, 2))
        assert refused.error is not None
        assert (refused.error.code, refused.error.facts) == ("house_funds_exhausted", {"currency": "INR"})
        assert not batch.run(self._pays_out(8, 3)).refused
        assert batch.run(self._pays_out(1, 4)).refused
        assert batch.headroom_changes == {self._BANK: -20}
        assert batch.exhausted == {self._BANK}

    def test_of_all_processes_counts_where_it_is_known(self) -> None:
        batch = self._batch(own=5, total=12)
        assert not batch.run(self._pays_out(12)).refused
        assert batch.exhausted == frozenset()

    def test_comes_back_with_what_comes_in(self) -> None:
        batch = self._batch(own=0)
        assert batch.run(self._pays_out(1, 1)).refused
        batch.run(_does(Changes(_VOUCHER, (_movement(type=EntryType.DEPOSIT, amount=3, entry_id="ent_9"),))))
        assert not batch.run(self._pays_out(3, 2)).refused
        assert batch.headroom_changes == {}

    def test_is_not_asked_for_by_what_the_bank_has_decided(self) -> None:
        batch = self._batch(own=0)
        returned = _movement(type=EntryType.DEPOSIT_RETURN, amount=7)
        assert not batch.run(_does(Changes(_VOUCHER, (returned,)))).refused
        assert batch.headroom_changes == {self._BANK: -7}
        assert batch.exhausted == frozenset()

    def test_is_less_by_what_wallets_come_to_owe(self) -> None:
        batch = self._batch()
        returned = build_return(id="rtn_2", owed=6)
        owing = _ASHA._replace(available=700, owed=6, debts=("rtn_2",), open_operations=1)
        batch.run(_does(Changes(returned, wallets=(owing,))))
        # It owed 6 for an instant and paid them: the bank has that money.
        assert batch.headroom_changes == {self._BANK: -6}

    def test_is_looked_at_by_nobody_where_it_was_not_read(self) -> None:
        writes, (decided,) = _run(self._pays_out(600))
        assert not decided.refused
        assert writes.headroom_changes == {self._BANK: -600}

    def test_is_what_the_movements_of_one_command_come_to(self) -> None:
        def both(first: int, second: int, entry_type: EntryType = EntryType.WITHDRAWAL) -> Command:
            movements = _movement(type=entry_type, amount=first), _movement(type=EntryType.WITHDRAWAL, amount=second)
            return _does(Changes(_VOUCHER, movements))

        batch = self._batch()
        assert batch.run(both(12, 9)).refused
        assert not batch.run(both(12, 8)).refused
        assert batch.headroom_changes == {self._BANK: -20}
        # Nothing is left, and what comes in with it pays it.
        assert not batch.run(both(3, 3, EntryType.DEPOSIT)).refused
        assert batch.run(both(3, 4, EntryType.DEPOSIT)).refused

    def test_lacking_refuses_nothing_that_takes_no_more_than_it_gives(self) -> None:
        batch = self._batch(own=0)
        types = EntryType.DEPOSIT, EntryType.WITHDRAWAL, EntryType.DEPOSIT_RETURN
        movements = tuple(_movement(type=one, amount=7, entry_id=f"ent_{one}") for one in types)
        assert not batch.run(_does(Changes(_VOUCHER, movements))).refused
        assert batch.headroom_changes == {self._BANK: -7}

    def test_is_no_matter_of_what_moves_between_wallets(self) -> None:
        out = _movement(counterparty="wal_ravi", type=EntryType.TRANSFER_OUT)
        into = _movement("wal_ravi", counterparty="wal_asha", type=EntryType.TRANSFER_IN)
        batch = self._batch(own=0)
        assert not batch.run(_does(Changes(_VOUCHER, (out, into)))).refused
        assert batch.headroom_changes == {}
        assert batch.writes().headroom_changes == {}

    def test_that_is_not_known_is_nothing(self) -> None:
        for policy_floor, refused in ((0, True), (-5, True)):
            policy = Policy(house_floors={self._BANK: policy_floor})
            batch = Batch(Loaded({}, {_ASHA.id: _ASHA}, {}, {}, headroom=Headroom({}, {})), policy)
            assert batch.run(self._pays_out(1)).refused is refused

    def test_of_an_account_is_asked_for_by_its_stored_floor(self) -> None:
        """The settings of a process may be older than what is stored; they count until that is read."""
        adjustments = ("house:adjustments", "INR")
        credit = _does(Changes(_VOUCHER, (_movement(type=EntryType.CREDIT, counterparty="house:adjustments"),)))

        def is_refused(floors: dict[tuple[str, str], int | None], stated: dict[tuple[str, str], int]) -> bool:
            headroom = Headroom({}, {}, floors)
            batch = Batch(Loaded({}, {_ASHA.id: _ASHA}, {}, {}, headroom=headroom), Policy(house_floors=stated))
            return batch.run(credit).refused

        assert not is_refused({}, {})
        assert is_refused({}, {adjustments: -5})
        assert is_refused({adjustments: 0}, {})
        assert not is_refused({adjustments: None}, {adjustments: -5})

    def test_that_is_lacking_in_two_currencies_is_told_of_both(self) -> None:
        dollars = _RAVI._replace(currency="EUR")
        wallets = {one.id: one for one in (_ASHA, dollars)}
        batch = Batch(Loaded({}, wallets, {}, {}, headroom=Headroom({}, {})), Policy())
        out: dict[str, Any] = {"type": EntryType.WITHDRAWAL, "amount": 1}
        movements = _movement(**out), _movement("wal_ravi", **out, entry_id="ent_2")
        decided = batch.run(_does(Changes(_VOUCHER, movements)))
        assert decided.error is not None
        assert decided.error.facts == {"currency": "EUR"}
        assert decided.error.message == "The house has not enough of EUR and INR at the moment"
        assert batch.exhausted == {self._BANK, ("bank", "EUR")}

    def test_comes_back_with_what_pays_a_debt(self) -> None:
        owing = _ASHA._replace(available=0, owed=120, debts=("rtn_1",), open_operations=1)
        batch = Batch(Loaded({}, {owing.id: owing}, {"rtn_1": build_return()}, {}), Policy())
        paid = _movement(type=EntryType.DEPOSIT, amount=50)
        batch.run(_does(Changes(_VOUCHER, (paid,))))
        # 50 come in and go to the bank at once; and the bank has taken 50 less that nobody has paid for.
        assert batch.headroom_changes == {self._BANK: 50}
        batch.run(_does(Changes(_VOUCHER, (paid._replace(amount=30, entry_id="ent_2"),))))
        assert batch.headroom_changes == {self._BANK: 80}

    def test_is_less_by_each_debt_once(self) -> None:
        wallet = _ASHA._replace(available=0, held=0)
        batch = Batch(Loaded({}, {wallet.id: wallet}, {}, {}), Policy())
        first, second = build_return(id="rtn_2", owed=6), build_return(id="rtn_3", owed=5)
        owing = wallet._replace(owed=6, debts=("rtn_2",), open_operations=1)
        batch.run(_does(Changes(first, wallets=(owing,))))
        assert batch.headroom_changes == {self._BANK: -6}
        (update,) = batch.writes().wallet_updates
        more = update.after._replace(owed=11, debts=("rtn_2", "rtn_3"))
        batch.run(_does(Changes(second, wallets=(more,))))
        assert batch.headroom_changes == {self._BANK: -11}

    def test_is_less_by_returns_that_wait_for_somebody_and_by_each_once(self) -> None:
        waiting = build_return(status=ReturnStatus.REQUIRES_REVIEW, owed=0)
        batch = Batch(Loaded({}, {_ASHA.id: _ASHA}, {}, {}), Policy())
        batch.run(_does(Changes(waiting)))
        assert batch.headroom_changes == {self._BANK: -500}
        batch.run(_does(Changes(waiting._replace(trouble="wallet_closed"))))
        assert batch.headroom_changes == {self._BANK: -500}
        # What is booked in the end moves in the wallet, and waits no more.
        booked = _movement(type=EntryType.DEPOSIT_RETURN, amount=500)
        batch.run(_does(Changes(waiting._replace(status=ReturnStatus.SUCCESS), (booked,))))
        assert batch.headroom_changes == {self._BANK: -500}

    def test_is_not_less_by_returns_of_points_or_by_those_that_waited_before(self) -> None:
        points = build_return(type=ReturnType.POINTS, status=ReturnStatus.REQUIRES_REVIEW, owed=0)
        before = build_return(status=ReturnStatus.REQUIRES_REVIEW, owed=0)
        batch = Batch(Loaded({}, {_ASHA.id: _ASHA}, {"rtn_1": before}, {}), Policy())
        batch.run(_does(Changes(points._replace(id="rtn_2"))))
        batch.run(_does(Changes(before._replace(trouble="wallet_closed"))))
        assert batch.headroom_changes == {}

    @pytest.mark.parametrize("is_all_or_nothing", [True, False])
    def test_that_a_part_of_a_whole_lacks_refuses_the_whole(self, *, is_all_or_nothing: bool) -> None:
        """It is kept under no key: what the parts before it took is forgotten too."""
        parts = [self._pays_out(12, 1), self._pays_out(9, 2)]
        whole = _Whole(now=at(5), transaction_id="txn_1", parts=parts, is_all_or_nothing=is_all_or_nothing)
        batch = self._batch()
        decided = batch.run(whole)
        assert isinstance(decided.error, HouseFundsExhausted)
        assert batch.headroom_changes == {}
        assert batch.exhausted == {self._BANK}
        assert not batch.writes()
        small = replace(whole, parts=[self._pays_out(12, 1), self._pays_out(8, 2)])
        assert batch.run(small) == Decided(None, None, None, refused=False)
        assert batch.headroom_changes == {self._BANK: -20}
        assert len(batch.writes().entries) == 2


class TestNeeds:
    def test_name_no_wallet_that_is_not_there(self) -> None:
        about: dict[str, Any] = {
            "now": at(5),
            "transaction_id": "txn_1",
            "payment_id": "wdr_1",
            "wallet_id": "wal_asha",
        }
        about |= {"release_entry_id": "ent_1"}
        assert LapsePayment(**about, to_wallet_id=None).needs == Needs(wallets=("wal_asha",), records=("wdr_1",))
        both = LapsePayment(**about, to_wallet_id="wal_ravi").needs
        assert both == Needs(wallets=("wal_asha", "wal_ravi"), records=("wdr_1",))

    def test_of_a_batch_are_those_of_all_once(self) -> None:
        one = Needs(("usr_1",), ("wal_1",), (("usr_1", "INR"),), ("dep_1",), ("wal_1",), (), ("wal_1",))
        other = Needs(("usr_2",), ("wal_2",), (("usr_1", "USD"),), ("dep_2",), ("wal_2",), (), ("wal_2",))
        merged = merged_needs([one, other, one])
        for name in ("users", "wallets", "owned_wallets", "records", "owners_of", "waiting_returns_of"):
            found = getattr(merged, name)
            assert len(found) == 2
            assert set(found) == {*getattr(one, name), *getattr(other, name)}
        assert merged_needs([]) == Needs()
