"""Deposits and withdrawals, one step at a time: what the bank may end, when, and what is written of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.entries import EntryType
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import BankCall, Operation, OperationStatus, OperationType, rejection
from service.domain.outbox import OutboxTopic, outbox_id
from service.domain.policy import Policy
from service.domain.sealed import Sealed
from service.domain.wallets import Movement, Wallet, new_wallet
from service.ledger.batch import Batch, Decided, Loaded
from service.ledger.commands import Changes, Command, Needs, State
from service.ledger.orders import Fail, FlagForReview, NoteAttempt, RequestDeposit, RequestWithdrawal, Settle
from tests.books import Books

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_IN_FLIGHT = timedelta(seconds=120)
_OPENING = 1_000


def _common() -> dict[str, Any]:
    return {"now": _NOW, "transaction_id": new_id(Prefix.TRANSACTION)}


def _books() -> Books:
    wallet = new_wallet("wal_ada", "usr_ada", "INR", _NOW)
    books = Books({"usr_ada": 0}, {wallet.id: wallet})
    deposit = _requested(books, RequestDeposit, _OPENING)
    _note(books, deposit)
    _say(books, deposit, Settle)
    return books


def _requested(books: Books, kind: type[RequestDeposit | RequestWithdrawal], amount: int = 100) -> Operation:
    is_deposit = issubclass(kind, RequestDeposit)
    operation_id = new_id(Prefix.DEPOSIT if is_deposit else Prefix.WITHDRAWAL)
    fields: dict[str, Any] = {
        "operation_id": operation_id,
        "user_id": "usr_ada",
        "token_version": 0,
        "amount": amount,
        "currency": "INR",
        "account_sealed": Sealed("00000000", b"sealed"),
        "account_masked": "•••• 0001",
        "category": None,
        "description": None,
        "metadata": {},
    }
    if not is_deposit:
        fields["entry_id"] = new_id(Prefix.ENTRY)
    (decided,) = books.run([kind(**fields, **_common())])
    assert not decided.refused
    return books.operations[operation_id]


def _note(books: Books, operation: Operation, **fields: Any) -> Decided:
    command = NoteAttempt(operation_id=operation.id, wallet_id=operation.wallet_id, **_common())
    (decided,) = books.run([replace(command, **fields)])
    return decided


def _say(books: Books, operation: Operation, kind: type[Settle | Fail], **fields: Any) -> Decided:
    """What the bank says, without a worker that asks before."""
    said: dict[str, Any] = {
        "operation_id": operation.id,
        "wallet_id": operation.wallet_id,
        "entry_id": new_id(Prefix.ENTRY),
        "amount": operation.amount,
        "currency": operation.currency,
        "bank_reference": "bnk_1",
    }
    if kind is Fail:
        said |= {"failure_code": "account_closed", "failure_message": "The account is closed"}
    (decided,) = books.run([kind(**(said | fields), **_common())], is_bank_asked=False)
    return decided


def _code_of(decided: Decided) -> str | None:
    return None if decided.error is None else decided.error.code


_KINDS = pytest.mark.parametrize("kind", [RequestDeposit, RequestWithdrawal])


class TestWhatWasNeverSubmitted:
    @_KINDS
    @pytest.mark.parametrize("said", [Settle, Fail])
    def test_is_ended_by_no_word_of_the_bank(self, kind: type[Any], said: type[Any]) -> None:
        books = _books()
        operation, wallet = _requested(books, kind), books.wallets["wal_ada"]
        assert _code_of(_say(books, operation, said)) == "illegal_transition"
        assert books.operations[operation.id] == operation
        assert books.wallets["wal_ada"] == wallet

    @_KINDS
    def test_is_ended_once_it_was_submitted(self, kind: type[Any]) -> None:
        for said, status in ((Settle, OperationStatus.SUCCESS), (Fail, OperationStatus.FAILED)):
            books = _books()
            operation = _requested(books, kind)
            _note(books, operation)
            assert not _say(books, operation, said).refused
            assert books.operations[operation.id].status is status


class TestAFailure:
    def test_waits_while_another_try_may_still_arrive(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        decided = _say(books, operation, Fail, amount=None, currency=None, in_flight=_IN_FLIGHT)
        assert not decided.refused
        assert books.operations[operation.id].status is OperationStatus.PROCESSING
        assert books.wallets["wal_ada"].held == 100

    def test_counts_once_every_try_was_refused_or_is_too_old(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        _note(books, operation, call=BankCall.FIND, last_outcome=rejection("account_closed"), answered_at=_NOW)
        _say(books, operation, Fail, amount=None, currency=None, in_flight=_IN_FLIGHT)
        assert books.operations[operation.id].status is OperationStatus.FAILED
        assert books.wallets["wal_ada"].held == 0

    @pytest.mark.parametrize(("age", "status"), [(119, OperationStatus.PROCESSING), (120, OperationStatus.FAILED)])
    def test_counts_from_the_very_moment_that_a_try_is_too_old(self, age: int, status: OperationStatus) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation, now=_NOW - timedelta(seconds=age))
        _say(books, operation, Fail, amount=None, currency=None, in_flight=_IN_FLIGHT)
        assert books.operations[operation.id].status is status

    def test_gives_back_what_a_withdrawal_set_aside(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        _say(books, operation, Fail)
        wallet = books.wallets["wal_ada"]
        assert (wallet.available, wallet.held, wallet.open_operations) == (_OPENING, 0, 0)
        assert books.entries["wal_ada"][-1].type is EntryType.WITHDRAWAL_REFUND

    def test_of_a_deposit_leaves_nothing_open(self) -> None:
        books = _books()
        operation = _requested(books, RequestDeposit)
        assert books.wallets["wal_ada"].open_operations == 1
        _note(books, operation)
        _say(books, operation, Fail)
        wallet = books.wallets["wal_ada"]
        assert (wallet.available, wallet.open_operations, wallet.seq) == (_OPENING, 0, 1)

    def test_says_why(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        _say(books, operation, Fail)
        failed = books.operations[operation.id]
        assert (failed.failure_code, failed.failure_message) == ("account_closed", "The account is closed")
        assert failed.bank_reference == "bnk_1"


class TestTheSameEndAgain:
    @_KINDS
    @pytest.mark.parametrize("said", [Settle, Fail])
    def test_under_another_reference_is_a_contradiction(self, kind: type[Any], said: type[Any]) -> None:
        books = _books()
        operation = _requested(books, kind)
        _note(books, operation)
        _say(books, operation, said)
        ended = books.operations[operation.id]
        assert _code_of(_say(books, operation, said, bank_reference="bnk_2")) == "illegal_transition"
        assert books.operations[operation.id] == ended

    @pytest.mark.parametrize("said", [Settle, Fail])
    @pytest.mark.parametrize("reference", ["bnk_1", None])
    def test_under_the_same_or_no_reference_changes_nothing(self, said: type[Any], reference: str | None) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        _say(books, operation, said)
        ended, wallet = books.operations[operation.id], books.wallets["wal_ada"]
        assert not _say(books, operation, said, bank_reference=reference).refused
        assert (books.operations[operation.id], books.wallets["wal_ada"]) == (ended, wallet)


class TestAnAttempt:
    def test_to_submit_is_counted_and_one_to_ask_is_not(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        _note(books, operation)
        _note(books, operation, call=BankCall.FIND)
        noted = books.operations[operation.id]
        assert noted.attempts == 2
        assert noted.status is OperationStatus.PROCESSING
        assert [attempt.call for attempt in noted.attempt_log] == [BankCall.SUBMIT, BankCall.SUBMIT, BankCall.FIND]

    def test_ends_the_one_before_it(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        _note(books, operation, last_outcome="no answer")
        first, second = books.operations[operation.id].attempt_log
        assert (first.outcome, second.outcome) == ("no answer", None)

    @pytest.mark.parametrize("said", [Settle, Fail])
    def test_is_refused_after_the_end(self, said: type[Any]) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        _say(books, operation, said)
        assert _code_of(_note(books, operation)) == "illegal_transition"


class TestTheBankReference:
    @_KINDS
    def test_is_kept_from_the_first_word_on(self, kind: type[Any]) -> None:
        books = _books()
        operation = _requested(books, kind)
        _note(books, operation)
        _say(books, operation, Settle)
        assert books.operations[operation.id].bank_reference == "bnk_1"

    def test_is_not_forgotten_where_a_later_word_names_none(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        # Of another amount: it is left to a person, with the reference under which the bank spoke.
        _say(books, operation, Settle, amount=99, bank_reference="bnk_7")
        assert books.operations[operation.id].status is OperationStatus.REQUIRES_REVIEW
        _say(books, operation, Settle, bank_reference=None)
        settled = books.operations[operation.id]
        assert (settled.status, settled.bank_reference) == (OperationStatus.SUCCESS, "bnk_7")


class TestTheOutbox:
    @_KINDS
    def test_has_a_row_for_the_bank_until_the_operation_ends(self, kind: type[Any]) -> None:
        books = _books()
        operation = _requested(books, kind)
        row_id = outbox_id(OutboxTopic.BANK_ORDER, operation.id)
        row = books.outbox[row_id]
        assert (row.subject_id, row.topic, row.due_at) == (operation.id, OutboxTopic.BANK_ORDER, operation.created_at)
        _note(books, operation)
        assert row_id in books.outbox
        _say(books, operation, Settle)
        assert row_id not in books.outbox

    def test_has_none_for_what_a_person_has_to_look_at(self) -> None:
        books = _books()
        operation = _requested(books, RequestWithdrawal)
        _note(books, operation)
        flag = FlagForReview(
            operation_id=operation.id,
            wallet_id=operation.wallet_id,
            failure_code="bank_outcome_unknown",
            failure_message="No answer",
            last_outcome="silence",
            **_common(),
        )
        books.run([flag], is_bank_asked=False)
        reviewed = books.operations[operation.id]
        assert reviewed.status is OperationStatus.REQUIRES_REVIEW
        assert (reviewed.failure_code, reviewed.failure_message) == ("bank_outcome_unknown", "No answer")
        assert reviewed.attempt_log[-1].outcome == "silence"
        assert outbox_id(OutboxTopic.BANK_ORDER, operation.id) not in books.outbox


class _Unbalanced(Command):
    """A rule with a defect: what leaves one wallet does not arrive at the other."""

    __slots__ = ()

    @property
    def needs(self) -> Needs:
        return Needs(wallets=("wal_ada", "wal_bo"))

    def decide(self, state: State) -> Changes:
        movements = [
            Movement(
                wallet_id=wallet_id,
                type=entry_type,
                amount=amount,
                status="success",
                reference="trf_1",
                transaction_id=self.transaction_id,
                counterparty=other,
                entry_id=new_id(Prefix.ENTRY),
                at=self.now,
            )
            for wallet_id, entry_type, amount, other in (
                ("wal_ada", EntryType.TRANSFER_OUT, 100, "wal_bo"),
                ("wal_bo", EntryType.TRANSFER_IN, 99, "wal_ada"),
            )
        ]
        wallet = state.wallet("wal_ada")
        assert wallet is not None
        operation = _requested(_books(), RequestDeposit)
        return Changes(operation, tuple(movements))


class TestTheKernel:
    def test_lets_nothing_be_lost_between_two_wallets(self) -> None:
        wallets: dict[str, Wallet] = {
            name: new_wallet(name, f"usr_{name}", "INR", _NOW)._replace(available=500) for name in ("wal_ada", "wal_bo")
        }
        batch = Batch(Loaded({}, wallets, {}, {}), Policy())
        with pytest.raises(AssertionError, match="what moves between wallets"):
            batch.run(_Unbalanced(**_common()))
        assert not batch.writes()


def test_types_of_operations_are_those_of_their_prefixes() -> None:
    books = _books()
    assert _requested(books, RequestDeposit).type is OperationType.DEPOSIT
    assert _requested(books, RequestWithdrawal).type is OperationType.WITHDRAWAL
