"""The rules against a model: random commands in random batches, compared step by step with plain arithmetic."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.idempotency import IdempotencyClaim
from service.domain.operations import FINAL_STATUSES, Operation, OperationStatus, OperationType
from service.domain.outbox import OutboxTopic, outbox_id
from service.domain.sealed import Sealed
from service.domain.wallets import WalletStatus, new_wallet
from service.ledger.commands import Command
from service.ledger.orders import (
    Fail,
    FlagForReview,
    NoteAttempt,
    RequestDeposit,
    RequestWithdrawal,
    Settle,
)
from tests.books import Books, assert_chain

_NOW = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
_USERS = ("usr_a", "usr_b", "usr_inactive")
_CURRENCIES = ("INR", "USD")
_AMOUNTS = st.one_of(st.integers(1, 50), st.integers(1, 50), st.integers(1, 2**53 - 1))


def make_books() -> Books:
    wallets = {
        f"wal_{user}_{currency}": new_wallet(f"wal_{user}_{currency}", user, currency, _NOW)
        for user in _USERS
        for currency in _CURRENCIES
        if (user, currency) != ("usr_b", "USD")
    }
    return Books({"usr_a": 0, "usr_b": 0}, wallets)


class Model:
    """Plain arithmetic, written without looking at the rules."""

    def __init__(self) -> None:
        self.available: dict[tuple[str, str], int] = {
            (user, currency): 0
            for user in ("usr_a", "usr_b")
            for currency in _CURRENCIES
            if (user, currency) != ("usr_b", "USD")
        }
        self.held: dict[tuple[str, str], int] = dict.fromkeys(self.available, 0)
        self.paid_in = dict.fromkeys(_CURRENCIES, 0)
        self.paid_out = dict.fromkeys(_CURRENCIES, 0)
        self.open: dict[str, tuple[str, tuple[str, str], int]] = {}

    def request(self, kind: str, operation_id: str, owner: tuple[str, str], amount: int) -> bool:
        if owner not in self.available:
            return False
        if kind == "withdrawal":
            if self.available[owner] < amount:
                return False
            self.available[owner] -= amount
            self.held[owner] += amount
        elif self.available[owner] + self.held[owner] + amount > 2**53 - 1:
            return False
        self.open[operation_id] = (kind, owner, amount)
        return True

    def end(self, operation_id: str, *, is_success: bool) -> None:
        kind, owner, amount = self.open[operation_id]
        if kind == "deposit":
            if is_success and self.available[owner] + self.held[owner] + amount > 2**53 - 1:
                return  # does not fit any more: a person has to look
            if is_success:
                self.available[owner] += amount
                self.paid_in[owner[1]] += amount
        else:
            self.held[owner] -= amount
            if is_success:
                self.paid_out[owner[1]] += amount
            else:
                self.available[owner] += amount
        del self.open[operation_id]


_WORDS = ("settle", "fail", "begin", "review", "settle_wrong_amount", "fail_wrong_amount", "repeat")
_STEPS = st.one_of(
    st.tuples(
        st.sampled_from(("deposit", "withdrawal")),
        st.sampled_from(_USERS),
        st.sampled_from((*_CURRENCIES, "JPY")),
        _AMOUNTS,
    ),
    st.tuples(
        st.sampled_from(_WORDS),
        st.integers(0, 8),
    ),
)
_numbers = count()


def _request(kind: str, user: str, currency: str, amount: int) -> RequestDeposit | RequestWithdrawal:
    number = next(_numbers)
    common: dict[str, Any] = {
        "now": _NOW + timedelta(milliseconds=number),
        "transaction_id": f"txn_{number}",
        "request_id": f"req_{number}",
        "claim": IdempotencyClaim(f"{user}:key-{number}", f"fingerprint-{number}", _NOW),
        "user_id": user,
        "token_version": 0,
        "amount": amount,
        "currency": currency,
        "account_sealed": Sealed("00000000", b"sealed"),
        "account_masked": "•••• 0001",
        "category": None,
        "description": None,
        "metadata": {},
    }
    if kind == "deposit":
        return RequestDeposit(operation_id=f"dep_{number}", **common)
    return RequestWithdrawal(operation_id=f"wdr_{number}", entry_id=f"ent_{number}", **common)


def _about(operation: Operation, step: str) -> Command:
    number = next(_numbers)
    common: dict[str, Any] = {
        "now": _NOW + timedelta(milliseconds=number),
        "transaction_id": f"txn_{number}",
        "operation_id": operation.id,
        "wallet_id": operation.wallet_id,
    }
    match step:
        case "begin":
            return NoteAttempt(**common)
        case "review":
            return FlagForReview(failure_code="x", failure_message="y", **common)
        case "fail" | "fail_wrong_amount":
            return Fail(
                entry_id=f"ent_{number}",
                amount=operation.amount + (step == "fail_wrong_amount"),
                currency=operation.currency,
                bank_reference=None,
                failure_code="x",
                failure_message="y",
                **common,
            )
        case _:
            amount = operation.amount + (step == "settle_wrong_amount")
            return Settle(
                entry_id=f"ent_{number}",
                amount=amount,
                currency=operation.currency,
                bank_reference="bnk",
                **common,
            )


class TestRulesAgainstAModel:
    @settings(max_examples=150, deadline=None)
    @given(
        opening=st.sampled_from((100, 2**53 - 11)),
        steps=st.lists(_STEPS, min_size=10, max_size=60),
        batch_sizes=st.lists(st.integers(1, 7), min_size=1, max_size=20),
    )
    def test_balances_agree_after_every_batch(
        self, opening: int, steps: list[tuple[Any, ...]], batch_sizes: list[int]
    ) -> None:
        books, model = make_books(), Model()
        asked: list[RequestDeposit | RequestWithdrawal] = []
        known: list[Operation] = []
        for step in (("deposit", "usr_a", "INR", opening), ("settle", 0)):
            books.run(command for command, _ in self._commands_of(step, model, known, asked))
            known = list(books.operations.values())
        position = 0
        for size in [*batch_sizes, *([7] * len(steps))]:
            commands: list[tuple[Command, bool | None]] = []
            for step in steps[position : position + size]:
                commands += self._commands_of(step, model, known, asked)
            position += size
            before = dict(books.wallets)
            decided = books.run(command for command, _ in commands)
            for one, (_, is_accepted) in zip(decided, commands, strict=True):
                if is_accepted is not None:
                    assert one.refused is not is_accepted
            if all(one.refused or (one.answer is not None and one.answer.replayed) for one in decided):
                assert books.wallets == before
            known = list(books.operations.values())
            for owner, available in model.available.items():
                wallet = books.wallets[f"wal_{owner[0]}_{owner[1]}"]
                assert (wallet.available, wallet.held) == (available, model.held[owner])
            assert_chain(books)
        for currency in _CURRENCIES:
            total = sum(w.available + w.held for w in books.wallets.values() if w.currency == currency)
            assert total == model.paid_in[currency] - model.paid_out[currency]
        for operation in books.operations.values():
            waits_for_bank = operation.status in (OperationStatus.PENDING, OperationStatus.PROCESSING)
            assert (outbox_id(OutboxTopic.BANK_ORDER, operation.id) in books.outbox) == waits_for_bank

    def _commands_of(
        self,
        step: tuple[Any, ...],
        model: Model,
        known: list[Operation],
        asked: list[RequestDeposit | RequestWithdrawal],
    ) -> list[tuple[Command, bool | None]]:
        """The step as a command and whether it has to be accepted, where the model can tell; the model moves too."""
        if step[0] in ("deposit", "withdrawal"):
            kind, user, currency, amount = step
            request = _request(kind, user, currency, int(amount))
            asked.append(request)
            return [(request, model.request(kind, request.operation_id, (user, currency), int(amount)))]
        what, index = step[0], int(step[1])
        if what == "repeat":
            return [(asked[index % len(asked)], None)] if asked else []
        if not known:
            return []
        operation = known[-1 - index % len(known)]
        if what in ("settle", "fail") and operation.id in model.open:
            model.end(operation.id, is_success=what == "settle")
        return [(_about(operation, what), None)]


class TestTheLargestBalance:
    def test_two_deposits_that_fit_alone_but_not_together_leave_the_second_to_a_person(self) -> None:
        books = make_books()
        books.run([_request("deposit", "usr_a", "INR", 2**53 - 1), _request("deposit", "usr_a", "INR", 1)])
        first, second = books.operations.values()
        books.run([_about(first, "settle"), _about(second, "settle")])
        assert books.operations[first.id].status is OperationStatus.SUCCESS
        assert books.operations[second.id].status is OperationStatus.REQUIRES_REVIEW
        assert books.wallets["wal_usr_a_INR"].available == 2**53 - 1


class TestRefusals:
    def test_a_refusal_is_answered_with_its_problem_and_writes_only_its_key(self) -> None:
        books = make_books()
        (decided,) = books.run([_request("withdrawal", "usr_a", "INR", 1)])
        assert decided.answer is not None
        assert decided.answer.status_code == 422
        assert orjson.loads(decided.answer.body)["error"] == "insufficient_funds"
        assert not books.operations
        assert not books.entries
        assert not books.outbox
        assert len(books.answers) == 1

    def test_a_refused_command_fails_no_neighbour(self) -> None:
        books = make_books()
        good, bad = _request("deposit", "usr_a", "INR", 5), _request("withdrawal", "usr_a", "INR", 5)
        accepted, refused = books.run([good, bad])
        assert accepted.answer is not None
        assert refused.answer is not None
        assert (accepted.answer.status_code, refused.answer.status_code) == (202, 422)
        assert [o.type for o in books.operations.values()] == [OperationType.DEPOSIT]

    def test_a_frozen_and_a_closed_wallet_take_no_new_operation(self) -> None:
        for status, code in ((WalletStatus.FROZEN, "wallet_frozen"), (WalletStatus.CLOSED, "wallet_closed")):
            books = make_books()
            wallet = books.wallets["wal_usr_a_INR"]
            books.wallets[wallet.id] = wallet._replace(status=status)
            for kind in ("deposit", "withdrawal"):
                (decided,) = books.run([_request(kind, "usr_a", "INR", 5)])
                assert decided.answer is not None
                assert orjson.loads(decided.answer.body)["error"] == code

    def test_an_inactive_user_is_refused_and_their_key_stays_free(self) -> None:
        books = make_books()
        (decided,) = books.run([_request("deposit", "usr_inactive", "INR", 5)])
        assert decided.error is not None
        assert decided.error.code == "account_deactivated"
        assert not books.answers

    def test_a_revoked_token_moves_no_money_and_its_key_stays_free(self) -> None:
        books = make_books()
        request = replace(_request("deposit", "usr_a", "INR", 5), token_version=1)
        (decided,) = books.run([request])
        assert decided.error is not None
        assert decided.error.code == "unauthenticated"
        assert not books.answers
        assert not books.operations


class TestOneKey:
    def test_the_second_command_of_a_batch_gets_the_answer_of_the_first(self) -> None:
        request = _request("deposit", "usr_a", "INR", 5)
        first, second = make_books().run([request, request])
        assert first.answer is not None
        assert second.answer == first.answer._replace(replayed=True)

    def test_another_request_under_the_same_key_is_refused(self) -> None:
        books = make_books()
        request = _request("deposit", "usr_a", "INR", 5)
        other = _request("deposit", "usr_a", "INR", 6)
        assert other.claim is not None
        assert request.claim is not None
        object.__setattr__(other, "claim", other.claim._replace(id=request.claim.id))
        _, reused = books.run([request, other])
        assert reused.error is not None
        assert reused.error.code == "idempotency_key_reused"
        assert len(books.operations) == 1


class TestEndings:
    def _withdrawn(self) -> tuple[Books, Operation]:
        books = make_books()
        books.run([_request("deposit", "usr_a", "INR", 10)])
        (deposit,) = books.operations.values()
        books.run([_about(deposit, "settle")])
        books.run([_request("withdrawal", "usr_a", "INR", 10)])
        (withdrawal,) = (o for o in books.operations.values() if o.type is OperationType.WITHDRAWAL)
        return books, withdrawal

    def test_an_end_is_final_whatever_the_bank_says_afterwards(self) -> None:
        for first, then in (("settle", "fail"), ("fail", "settle")):
            books, withdrawal = self._withdrawn()
            books.run([_about(withdrawal, first)])
            ended = books.operations[withdrawal.id]
            assert ended.status in FINAL_STATUSES
            (refused,) = books.run([_about(withdrawal, then)])
            assert refused.error is not None
            assert refused.error.code == "illegal_transition"
            assert books.operations[withdrawal.id] == ended
            assert_chain(books)

    def test_the_same_end_twice_moves_money_once(self) -> None:
        for end in ("settle", "fail"):
            books, withdrawal = self._withdrawn()
            books.run([_about(withdrawal, end), _about(withdrawal, end)])
            books.run([_about(withdrawal, end)])
            assert len(books.entries[withdrawal.wallet_id]) == 3

    def test_another_amount_moves_no_money_and_asks_for_a_person(self) -> None:
        for step in ("settle_wrong_amount", "fail_wrong_amount"):
            books, withdrawal = self._withdrawn()
            books.run([_about(withdrawal, step)])
            assert books.operations[withdrawal.id].status is OperationStatus.REQUIRES_REVIEW
            assert books.wallets[withdrawal.wallet_id].held == 10

    def test_another_amount_after_the_end_is_a_contradiction(self) -> None:
        for end in ("settle", "fail"):
            books, withdrawal = self._withdrawn()
            books.run([_about(withdrawal, end)])
            (refused,) = books.run([_about(withdrawal, f"{end}_wrong_amount")])
            assert refused.error is not None
            assert refused.error.code == "illegal_transition"
