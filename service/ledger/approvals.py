"""Approval by a one-time code: a payment that waits for it is confirmed, canceled, or lapses; its funds are held."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, assert_never

from service.domain.accounts import SystemAccount
from service.domain.incidents import was_never_submitted
from service.domain.operations import Operation, OperationStatus, operation_view
from service.domain.outbox import OutboxRow, OutboxTopic, bank_order_id, outbox_id, outbox_row, submission_of
from service.domain.step_up import Challenge, CodeOutcome, check_code
from service.domain.transfers import Transfer, receipt_view
from service.domain.wallets import Freeze, Wallet
from service.errors import ApprovalLapsed, IllegalTransition, InvalidCode, NotFound, TooManyTries, WalletServiceError
from service.ledger.commands import Changes, Command, Needs, PersonalCommand, State
from service.ledger.payments import pay, require_recipient
from service.ledger.reservations import HOLD, WITHDRAWAL, release
from service.ledger.rewards import reward_rows
from service.ledger.rules import (
    passes_step_up_sum,
    require_open,
    require_requester,
    time_of,
    time_of_both,
    with_one_fewer_open,
)

Payment = Operation | Transfer

_OK = 200


class _Payable(Protocol):
    @property
    def amount(self) -> int: ...
    @property
    def challenge(self) -> Challenge | None: ...
    @property
    def make_challenge(self) -> Callable[[], Challenge] | None: ...


def challenge_for(command: _Payable, wallet: Wallet, at: datetime, state: State) -> Challenge | None:
    """Returns what has to be answered before the payment goes on: for its amount, or for the sum of the day."""
    if command.challenge is None and command.make_challenge is not None:
        return command.make_challenge() if passes_step_up_sum(wallet, command.amount, at, state) else None
    return command.challenge


def approval_rows(payment: Payment, challenge: Challenge) -> tuple[OutboxRow, ...]:
    """The code has to be sent, and the funds come back when nobody answers."""
    return (
        outbox_row(OutboxTopic.APPROVAL_CODE, payment.id, payment.request_id, payment.created_at),
        outbox_row(OutboxTopic.EXPIRY, payment.id, payment.request_id, payment.created_at, challenge.expires_at),
    )


def _answered_rows(payment: Payment) -> tuple[str, ...]:
    return outbox_id(OutboxTopic.APPROVAL_CODE, payment.id), outbox_id(OutboxTopic.EXPIRY, payment.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOwnPayment(PersonalCommand):
    """Whoever asked for a payment says something about it. Its id and wallets never change, so they can be named."""

    payment_id: str
    wallet_id: str
    to_wallet_id: str | None
    release_entry_id: str

    @property
    def needs(self) -> Needs:
        return _needs_of(self)._replace(users=(self.user_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        payment, wallet = _find_payment(self, state)
        if payment.user_id != self.user_id:
            raise NotFound(f"There is no payment {self.payment_id}")
        return self.decide_on(payment, wallet, state)

    def decide_on(self, payment: Payment, wallet: Wallet, state: State) -> Changes:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPayment(OnOwnPayment):
    """With the code, as its hash; `is_verified` where a second factor was checked and used up already."""

    code_hash: str
    is_verified: bool
    out_entry_id: str
    in_entry_id: str

    def decide_on(self, payment: Payment, wallet: Wallet, state: State) -> Changes:
        if payment.status is not OperationStatus.REQUIRES_APPROVAL or payment.challenge is None:
            raise _illegal(payment, "confirmed")
        code_hash = payment.challenge.code_hash if self.is_verified else self.code_hash
        outcome, tries_left = check_code(payment.challenge, code_hash, self.now)
        match outcome:
            case CodeOutcome.ACCEPTED:
                return self._confirm(payment, wallet, state)
            case CodeOutcome.WRONG:
                challenge = payment.challenge._replace(tries_left=tries_left)
                tried = payment._replace(challenge=challenge, keeps_count=True)
                return Changes(tried, error=InvalidCode(tries_left=tries_left))
            case CodeOutcome.EXHAUSTED:
                return _give_back(payment, wallet, self, "too_many_tries", TooManyTries())
            case CodeOutcome.EXPIRED:
                return _give_back(payment, wallet, self, "approval_lapsed", ApprovalLapsed())
            case _:
                assert_never(outcome)

    def _confirm(self, payment: Payment, wallet: Wallet, state: State) -> Changes:
        """Once only: a payment that has gone on can't be confirmed again."""
        require_open(wallet, Freeze.OUT)
        if isinstance(payment, Operation):
            approved = payment._replace(
                status=OperationStatus.PENDING, challenge=None, keeps_count=False, updated_at=self.now
            )
            return Changes(
                approved,
                outbox_rows=(submission_of(approved),),
                done_outbox_ids=_answered_rows(payment),
                answer=lambda _: operation_view(approved),
            )
        recipient = require_recipient(state.wallet(payment.to_wallet_id), payment.amount, payment.currency)
        at = time_of_both(self.now, wallet, recipient, state)
        paid = payment._replace(
            status=OperationStatus.SUCCESS,
            challenge=None,
            keeps_count=False,
            transaction_id=self.transaction_id,
            updated_at=at,
        )
        # The funds come back for an instant and leave as those of any transfer; what counted for the limits stays.
        released = release(
            HOLD, wallet, paid, counterparty=recipient.id, command=self, entry_id=self.release_entry_id
        ).movement
        moves = pay(paid, wallet, recipient, self, self.out_entry_id, self.in_entry_id)
        return Changes(
            paid,
            (released, *moves),
            wallets=(with_one_fewer_open(wallet, at),),
            outbox_rows=reward_rows(paid, state),
            done_outbox_ids=_answered_rows(payment),
            answer=lambda after: receipt_view(paid, after.wallet(paid.wallet_id), after.wallet(paid.to_wallet_id)),
            status_code=_OK,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelPayment(OnOwnPayment):
    """While nobody else has heard of it: a race with the worker has one winner, whoever commits first."""

    def decide_on(self, payment: Payment, wallet: Wallet, state: State) -> Changes:  # noqa: ARG002 as its neighbours
        waiting = {OperationStatus.REQUIRES_APPROVAL}
        # A released withdrawal is pending too, but may have been submitted before it was blocked.
        if payment.id.startswith("wdr_") and isinstance(payment, Operation) and was_never_submitted(payment):
            waiting |= {OperationStatus.PENDING, OperationStatus.BLOCKED}
        if payment.status not in waiting:
            raise _illegal(payment, "canceled")
        return _give_back(payment, wallet, self, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LapsePayment(Command):
    """Nobody answered in time. What was answered meanwhile only loses its reminder."""

    payment_id: str
    wallet_id: str
    to_wallet_id: str | None
    release_entry_id: str

    @property
    def needs(self) -> Needs:
        return _needs_of(self)

    def decide(self, state: State) -> Changes:
        payment, wallet = _find_payment(self, state)
        if payment.status is not OperationStatus.REQUIRES_APPROVAL or payment.challenge is None:
            return Changes(payment, done_outbox_ids=_answered_rows(payment))
        if self.now < payment.challenge.expires_at:
            raise _illegal(payment, "lapsed before its time")
        return _give_back(payment, wallet, self, "approval_lapsed", None)


def _needs_of(command: OnOwnPayment | LapsePayment) -> Needs:
    recipient = () if command.to_wallet_id is None else (command.to_wallet_id,)
    return Needs(wallets=(command.wallet_id, *recipient), records=(command.payment_id,))


def _give_back(
    payment: Payment,
    wallet: Wallet,
    command: OnOwnPayment | LapsePayment,
    code: str | None,
    error: WalletServiceError | None,
) -> Changes:
    """The end without a payment: what was held comes back, with its share of the limits.

    After a wrong code the count stays. Else whoever guesses codes could ask for one payment after the other.
    """
    message = None if error is None else error.title
    keeps_count = payment.keeps_count or isinstance(error, TooManyTries)
    canceled = payment._replace(
        status=OperationStatus.CANCELED,
        failure_code=code,
        failure_message=message or ("The approval was not given in time" if code else None),
        challenge=None,
        keeps_count=keeps_count,
        updated_at=time_of(command.now, wallet),
    )
    kind = WITHDRAWAL if isinstance(payment, Operation) else HOLD
    other_side = SystemAccount.BANK if isinstance(payment, Operation) else payment.to_wallet_id
    step = release(
        kind,
        wallet,
        canceled,
        counterparty=other_side,
        command=command,
        entry_id=command.release_entry_id,
        keeps_count=keeps_count,
    )
    return Changes(
        canceled,
        (step.movement,),
        wallets=(step.wallet,),
        done_outbox_ids=(*_answered_rows(payment), bank_order_id(payment.id)),
        answer=lambda after: _view(canceled, after),
        status_code=_OK,
        error=error,
    )


def _view(payment: Payment, state: State) -> dict[str, object]:
    if isinstance(payment, Operation):
        return operation_view(payment)
    return receipt_view(payment, state.wallet(payment.wallet_id), state.wallet(payment.to_wallet_id))


def _find_payment(command: OnOwnPayment | LapsePayment, state: State) -> tuple[Payment, Wallet]:
    payment = state.record(command.payment_id, Operation) or state.record(command.payment_id, Transfer)
    wallet = state.wallet(command.wallet_id)
    if payment is None or wallet is None:
        raise NotFound(f"There is no payment {command.payment_id}")
    return payment, wallet


def _illegal(payment: Payment, wanted: str) -> IllegalTransition:
    return IllegalTransition(f"{payment.id} is {payment.status} and cannot be {wanted}", status_now=payment.status)
