"""Deposits and withdrawals: asked for by a person, executed by the bank, ended by what it reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from service.domain.entries import EntryType
from service.domain.incidents import Said, was_never_submitted
from service.domain.operations import (
    ACCEPTED,
    BLOCK_MESSAGES,
    NOT_HEARD_OF,
    TRANSITIONS,
    BankCall,
    BlockReason,
    Operation,
    OperationStatus,
    OperationType,
    begin_attempt,
    end_attempt,
    may_be_under_way,
    operation_view,
)
from service.domain.outbox import bank_order_id, submission_of
from service.domain.records import Record
from service.domain.returns import Return
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.errors import (
    BalanceOverflow,
    IllegalTransition,
    NotFound,
    NoWalletInCurrency,
    WalletClosed,
    WalletServiceError,
)
from service.ledger.approvals import approval_rows, challenge_for
from service.ledger.commands import Changes, Command, Needs, PersonalCommand, State
from service.ledger.reservations import WITHDRAWAL, Step, capture, release, reserve
from service.ledger.rewards import reward_rows
from service.ledger.rules import (
    BANK,
    fits,
    movement_of,
    require_offered,
    require_open,
    require_payable,
    require_requester,
    time_of,
    with_one_fewer_open,
    with_one_more_open,
)
from service.ledger.user_counts import charge_for_user

_HTTP_ACCEPTED = 202


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOperation(PersonalCommand):
    """A person asks for money to come in or to go out."""

    operation_id: str
    amount: int
    currency: str
    account_sealed: Sealed
    account_masked: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), owned_wallets=((self.user_id, self.currency),))

    @property
    def made_id(self) -> str:
        return self.operation_id

    def answer_made(self, made: Sequence[Record], state: State) -> tuple[int, Mapping[str, Any]]:  # noqa: ARG002 it shows no wallet
        (operation,) = made
        assert isinstance(operation, Operation), "the same request makes the same kind of record"
        return _HTTP_ACCEPTED, operation_view(operation)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDeposit(RequestOperation):
    """Nothing moves before the bank has collected the money."""

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        wallet = _wallet_of(self, state)
        require_offered(wallet.currency, state.policy)
        require_open(wallet, Freeze.IN)
        if not fits(wallet, self.amount):
            raise BalanceOverflow
        at = time_of(self.now, wallet)
        deposit = _new_operation(self, wallet, OperationType.DEPOSIT, OperationStatus.PENDING, at)
        return Changes(
            deposit,
            wallets=(with_one_more_open(wallet, at),),
            outbox_rows=(submission_of(deposit),),
            answer=lambda _: operation_view(deposit),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestWithdrawal(RequestOperation):
    """Sets the amount aside; with a challenge, the bank hears of it only once that is answered.

    `make_challenge` makes one where it is found here that the day's sum asks for it.
    """

    entry_id: str
    challenge: Challenge | None = None
    make_challenge: Callable[[], Challenge] | None = None

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        wallet = _wallet_of(self, state)
        at = time_of(self.now, wallet)
        require_payable(wallet, self.amount, at, state)
        counted = charge_for_user(wallet, self.amount, at, state)
        challenge = challenge_for(self, wallet, at, state)
        status = OperationStatus.PENDING if challenge is None else OperationStatus.REQUIRES_APPROVAL
        withdrawal = _new_operation(self, wallet, OperationType.WITHDRAWAL, status, at)._replace(
            challenge=challenge, counted=counted
        )
        rows = (submission_of(withdrawal),) if challenge is None else approval_rows(withdrawal, challenge)
        step = reserve(WITHDRAWAL, wallet, withdrawal, counterparty=BANK, command=self, entry_id=self.entry_id)
        return Changes(
            withdrawal,
            (step.movement,),
            wallets=(step.wallet,),
            outbox_rows=rows,
            answer=lambda _: operation_view(withdrawal),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOperation(Command):
    """Anything about an operation that exists. Its id and wallet never change, so they can be named."""

    operation_id: str
    wallet_id: str

    @property
    def needs(self) -> Needs:
        return Needs(wallets=(self.wallet_id,), records=(self.operation_id,))

    def decide(self, state: State) -> Changes:
        operation = state.record(self.operation_id, Operation)
        wallet = state.wallet(self.wallet_id)
        if operation is None or wallet is None:
            raise NotFound
        return self.decide_on(operation, wallet, state)

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAttempt(OnOperation):
    """We are about to talk to the bank: from here on an outcome may exist that we do not know.

    `last_outcome` is what is known of how the call before this one ended; with `answered_at`, the submission that
    began then. `expected_by` is when the outcome of an order submitted now is due; one that is set already stays.
    """

    call: BankCall = BankCall.SUBMIT
    last_outcome: str | None = None
    answered_at: datetime | None = None
    expected_by: datetime | None = None
    # For how long an order that was sent before may still reach the bank. By default for ever: it is never blocked.
    in_flight: timedelta = timedelta.max

    @property
    def needs(self) -> Needs:
        owners_of = (self.wallet_id,) if self.call is BankCall.SUBMIT else ()
        return Needs(wallets=(self.wallet_id,), records=(self.operation_id,), owners_of=owners_of)

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        """Notes the attempt before the call, so that a crash in between leaves a trace.

        A withdrawal that may not be submitted any more is blocked instead. Raises MayBeUnderWay where an order of
        ours may still reach the bank, so that nobody can say yet that the bank does not have it.
        """
        if operation.status not in (OperationStatus.PENDING, OperationStatus.PROCESSING):
            raise illegal(operation, OperationStatus.PROCESSING)
        if self.call is BankCall.SUBMIT and operation.type is OperationType.WITHDRAWAL:
            reasons = uncovered_blocks(operation, wallet, state)
            if reasons:
                return self._block(operation, reasons[0])
        return Changes(
            operation._replace(
                status=OperationStatus.PROCESSING,
                attempts=operation.attempts + int(self.call is BankCall.SUBMIT),
                attempt_log=begin_attempt(
                    operation, self.call, self.now, self.last_outcome or NOT_HEARD_OF, self.answered_at
                ),
                expected_by=operation.expected_by or self.expected_by,
                accepted_at=operation.accepted_at or (self.now if self.last_outcome == ACCEPTED else None),
                updated_at=self.now,
            )
        )

    def _block(self, operation: Operation, reason: BlockReason) -> Changes:
        """Moves no money: it stays held until an admin releases or cancels the withdrawal."""
        # The bank has accepted the order before and now does not know it: the bank has to explain that first.
        if operation.accepted_at is not None or may_be_under_way(operation, self.now, self.in_flight):
            raise MayBeUnderWay
        blocked = operation._replace(
            status=OperationStatus.BLOCKED,
            failure_code=reason.value,
            failure_message=BLOCK_MESSAGES[reason],
            attempt_log=end_attempt(operation, self.now, self.last_outcome or NOT_HEARD_OF),
            updated_at=self.now,
        )
        return Changes(blocked, done_outbox_ids=(bank_order_id(operation.id),))


class MayBeUnderWay(WalletServiceError):
    """An earlier order may still reach the bank, so ask it again later. For settlement alone: no client sees it."""

    code = "may_be_under_way"


def standing_blocks(wallet: Wallet, state: State) -> dict[BlockReason, str | None]:
    """Says why the wallet's withdrawals may not be submitted now, and the audit event with which each block came.

    The command has to name the wallet in `owners_of`.
    """
    blocks: dict[BlockReason, str | None] = {}
    if state.token_version(wallet.user_id) is None:
        blocks[BlockReason.USER_DEACTIVATED] = state.deactivation_event_id(wallet.user_id)
    if not wallet.lets(Freeze.OUT):
        blocks[BlockReason.WALLET_FROZEN] = wallet.freeze_event_id
    if wallet.owed:
        blocks[BlockReason.WALLET_OWES] = None
    return blocks


def uncovered_blocks(operation: Operation, wallet: Wallet, state: State) -> list[BlockReason]:
    """Returns the reasons against submitting the withdrawal that its release does not override."""
    release, blocks = operation.release, standing_blocks(wallet, state)
    return [one for one, event_id in blocks.items() if release is None or not release.covers(one, event_id)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(OnOperation):
    """The bank executed the order. `received_at` is when a callback that says so came in, None for an answer."""

    entry_id: str
    amount: int
    currency: str
    bank_reference: str | None
    received_at: datetime | None = None

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        is_ours = (self.amount, self.currency) == (operation.amount, operation.currency)
        if self._is_said_after_the_return(operation):
            raise illegal(operation, "settled once more")
        if operation.status is OperationStatus.SUCCESS and is_ours and may_mean_the_same(operation, self):
            return Changes(operation, done_outbox_ids=(bank_order_id(operation.id),))
        if OperationStatus.SUCCESS not in TRANSITIONS[operation.status] or was_never_submitted(operation):
            raise illegal(operation, OperationStatus.SUCCESS)
        if not is_ours:
            return _review_amount(operation, self)
        # The money has arrived: it also lands on a frozen wallet, where it stays as frozen as the rest.
        trouble = refuse_arrival(operation, wallet)
        if trouble is not None:
            return _review(operation, self.now, trouble.code, trouble.title, self.bank_reference)
        return settled_by(operation, wallet, self, self.entry_id, self.bank_reference, state)

    def _is_said_after_the_return(self, operation: Operation) -> bool:
        """Tells whether the bank reports a new settlement of money that had come back, as when a dispute was won.

        Goes by when the callback came in: after a crash, one from before the return may be applied once more.
        """
        returned_at, received_at = operation.returned_at, self.received_at
        return returned_at is not None and received_at is not None and received_at > returned_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(OnOperation):
    """The bank refused the order for good. What it says of the amount is None where it never took the order.

    `in_flight`, of an order that it never took: for how long another one may still reach it. That is judged here and
    not before, since another worker may have begun one while this waited.
    """

    entry_id: str
    amount: int | None
    currency: str | None
    bank_reference: str | None
    failure_code: str
    failure_message: str
    in_flight: timedelta | None = None

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:  # noqa: ARG002 as its neighbours
        is_ours = self.amount is None or (self.amount, self.currency) == (operation.amount, operation.currency)
        # A withdrawal that was submitted, blocked and then canceled counts as failed too.
        is_canceled = operation.status is OperationStatus.CANCELED and not was_never_submitted(operation)
        is_undone = operation.status is OperationStatus.FAILED or is_canceled
        if is_undone and is_ours and may_mean_the_same(operation, self):
            return Changes(operation, done_outbox_ids=(bank_order_id(operation.id),))
        if OperationStatus.FAILED not in TRANSITIONS[operation.status] or was_never_submitted(operation):
            raise illegal(operation, OperationStatus.FAILED)
        if not is_ours:
            return _review_amount(operation, self)
        if self.in_flight is not None and may_be_under_way(operation, self.now, self.in_flight):
            return Changes(operation)
        failed = ended_as(operation, OperationStatus.FAILED, self.now, self.bank_reference)._replace(
            failure_code=self.failure_code, failure_message=self.failure_message
        )
        return undone(failed, wallet, self, self.entry_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagForReview(OnOperation):
    """The bank and we disagree, or it never answered: a person has to look, and the funds stay where they are."""

    failure_code: str
    failure_message: str
    last_outcome: str | None = None

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:  # noqa: ARG002 no money is moved
        if operation.status is OperationStatus.REQUIRES_REVIEW:
            return Changes(operation, done_outbox_ids=(bank_order_id(operation.id),))
        # A blocked one is with a person already: a visit that began before it was blocked has nothing to add.
        is_blocked = operation.status is OperationStatus.BLOCKED
        if is_blocked or OperationStatus.REQUIRES_REVIEW not in TRANSITIONS[operation.status]:
            raise illegal(operation, OperationStatus.REQUIRES_REVIEW)
        known = operation
        if self.last_outcome is not None:
            known = operation._replace(attempt_log=end_attempt(operation, self.now, self.last_outcome))
        return _review(known, self.now, self.failure_code, self.failure_message, None)


def _wallet_of(command: RequestOperation, state: State) -> Wallet:
    wallet = state.wallet_in(command.user_id, command.currency)
    if wallet is None:
        raise NoWalletInCurrency(currency=command.currency)
    return wallet


def settled_by(
    operation: Operation, wallet: Wallet, command: Command, entry_id: str, bank_reference: str | None, state: State
) -> Changes:
    """The operation has succeeded: what a withdrawal set aside leaves, what a deposit collected arrives."""
    settled = ended_as(operation, OperationStatus.SUCCESS, command.now, bank_reference)
    match operation.type:
        case OperationType.WITHDRAWAL:
            step = capture(
                WITHDRAWAL, wallet, settled, settled.amount, counterparty=BANK, command=command, entry_id=entry_id
            )
        case OperationType.DEPOSIT:
            arrival = movement_of(
                EntryType.DEPOSIT,
                wallet,
                settled.amount,
                settled,
                counterparty=BANK,
                command=command,
                entry_id=entry_id,
            )
            step = Step(with_one_fewer_open(wallet, time_of(command.now, wallet)), arrival)
        case _:
            assert_never(operation.type)
    return Changes(
        settled,
        (step.movement,),
        wallets=(step.wallet,),
        outbox_rows=reward_rows(settled, state),
        done_outbox_ids=(bank_order_id(operation.id),),
    )


def undone(failed: Operation, wallet: Wallet, command: Command, entry_id: str) -> Changes:
    """The operation has come to nothing: what a withdrawal set aside comes back."""
    done = (bank_order_id(failed.id),)
    match failed.type:
        case OperationType.WITHDRAWAL:
            step = release(WITHDRAWAL, wallet, failed, counterparty=BANK, command=command, entry_id=entry_id)
            return Changes(failed, (step.movement,), wallets=(step.wallet,), done_outbox_ids=done)
        case OperationType.DEPOSIT:
            after = with_one_fewer_open(wallet, time_of(command.now, wallet))
            return Changes(failed, wallets=(after,), done_outbox_ids=done)
        case _:
            assert_never(failed.type)


def may_mean_the_same(known: Operation | Return, said: Settle | Fail | Said) -> bool:
    """Tells whether the bank means what it meant before, as far as it named it either time."""
    return None in (known.bank_reference, said.bank_reference) or known.bank_reference == said.bank_reference


def refuse_arrival(operation: Operation, wallet: Wallet) -> WalletServiceError | None:
    """Says why a deposit cannot be booked; None where it can, as any withdrawal can."""
    if operation.type is OperationType.WITHDRAWAL:
        return None
    if wallet.status is WalletStatus.CLOSED:
        return WalletClosed(wallet_id=wallet.id)
    return None if fits(wallet, operation.amount) else BalanceOverflow()


def _review_amount(operation: Operation, command: Settle | Fail) -> Changes:
    said = f"The bank speaks of {command.amount} {command.currency}"
    return _review(operation, command.now, "amount_mismatch", said, command.bank_reference)


def _review(operation: Operation, now: datetime, code: str, message: str, bank_reference: str | None) -> Changes:
    """Moves no money: what is held stays held until a person or the bank's late word decides."""
    reviewed = ended_as(operation, OperationStatus.REQUIRES_REVIEW, now, bank_reference)._replace(
        attempt_log=end_attempt(operation, now, code),
        proposal=operation.proposal,
        failure_code=code,
        failure_message=message,
    )
    return Changes(reviewed, done_outbox_ids=(bank_order_id(operation.id),))


def ended_as(
    operation: Operation, status: OperationStatus, now: datetime, bank_reference: str | None = None
) -> Operation:
    """With its last call to the bank, where nothing was known of that yet."""
    return operation._replace(
        status=status,
        bank_reference=bank_reference or operation.bank_reference,
        failure_code=None,
        failure_message=None,
        attempt_log=end_attempt(operation, now, status),
        proposal=None,
        updated_at=now,
    )


def illegal(operation: Operation, wanted: str) -> IllegalTransition:
    return IllegalTransition(
        f"{operation.id} is {operation.status} and cannot become {wanted}", status_now=operation.status
    )


def _new_operation(
    command: RequestOperation, wallet: Wallet, operation_type: OperationType, status: OperationStatus, at: datetime
) -> Operation:
    return Operation(
        id=command.operation_id,
        type=operation_type,
        user_id=command.user_id,
        wallet_id=wallet.id,
        amount=command.amount,
        currency=command.currency,
        status=status,
        account_sealed=command.account_sealed,
        account_masked=command.account_masked,
        category=command.category,
        description=command.description,
        metadata=command.metadata,
        failure_code=None,
        failure_message=None,
        bank_reference=None,
        attempts=0,
        request_id=command.request_id,
        created_at=at,
        updated_at=at,
    )
