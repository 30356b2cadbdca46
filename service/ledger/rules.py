"""The rules of the ledger: pure functions from state and command to changes or a refusal.

No I/O, no clock, no randomness: the whole set runs without a database, and `decide` is the way in.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, assert_never

from service.domain.entries import EntryType
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.operations import (
    FINAL_STATUSES,
    TRANSITIONS,
    Operation,
    OperationStatus,
    OperationType,
)
from service.domain.outbox import OutboxRow, OutboxTopic
from service.domain.wallets import Movement, Wallet, WalletStatus
from service.errors import (
    AccountDeactivated,
    BalanceOverflow,
    IllegalTransition,
    InsufficientFunds,
    NotFound,
    NoWalletInCurrency,
    Unauthenticated,
    WalletClosed,
    WalletFrozen,
    WalletServiceError,
)
from service.ledger.commands import (
    BeginProcessing,
    Command,
    Fail,
    FlagForReview,
    OnOperation,
    RequestDeposit,
    RequestOperation,
    RequestWithdrawal,
    Settle,
)

_BANK = "bank"


class State(Protocol):
    """What a rule may look at: the documents that its command names, as they stand after the commands before it.

    `token_version` is None for a user who is not there or may not act.
    """

    def token_version(self, user_id: str) -> int | None: ...
    def wallet(self, wallet_id: str) -> Wallet | None: ...
    def wallet_in(self, user_id: str, currency: str) -> Wallet | None: ...
    def operation(self, operation_id: str) -> Operation | None: ...


@dataclass(frozen=True, slots=True)
class Changes:
    """All that a command does. `operation` is how it stands afterwards, also where nothing changed."""

    operation: Operation
    movements: tuple[Movement, ...] = ()
    outbox_row: OutboxRow | None = None
    done_outbox_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    error: WalletServiceError


def decide(state: State, command: Command) -> Changes | Refusal:
    match command:
        case RequestWithdrawal():
            return _decide_withdrawal(state, command)
        case RequestDeposit():
            return _decide_deposit(state, command)
        case OnOperation():
            return _decide_on_operation(state, command)
        case _:
            raise TypeError(f"no rule for {type(command).__name__}")


def _decide_withdrawal(state: State, command: RequestWithdrawal) -> Changes | Refusal:
    wallet = _usable_wallet(state, command)
    if isinstance(wallet, Refusal):
        return wallet
    if wallet.available < command.amount:
        return Refusal(
            InsufficientFunds(
                f"{command.amount} was asked for and {wallet.available} is available",
                available=wallet.available,
                requested=command.amount,
                currency=command.currency,
            )
        )
    operation = _new_operation(command, wallet, OperationType.WITHDRAWAL)
    held = _movement(EntryType.WITHDRAWAL, operation, command, command.entry_id)
    return Changes(operation, (held,), outbox_row=_submission(operation))


def _decide_deposit(state: State, command: RequestDeposit) -> Changes | Refusal:
    wallet = _usable_wallet(state, command)
    if isinstance(wallet, Refusal):
        return wallet
    if wallet.available + wallet.held + command.amount > MAX_AMOUNT_MINOR:
        return Refusal(BalanceOverflow())
    operation = _new_operation(command, wallet, OperationType.DEPOSIT)
    return Changes(operation, outbox_row=_submission(operation))


def _usable_wallet(state: State, command: RequestOperation) -> Wallet | Refusal:
    token_version = state.token_version(command.user_id)
    if token_version is None:
        return Refusal(AccountDeactivated())
    if command.token_version not in (None, token_version):
        return Refusal(Unauthenticated("The access token is no longer valid"))
    wallet = state.wallet_in(command.user_id, command.currency)
    if wallet is None:
        return Refusal(NoWalletInCurrency(currency=command.currency))
    match wallet.status:
        case WalletStatus.ACTIVE:
            return wallet
        case WalletStatus.FROZEN:
            return Refusal(WalletFrozen(wallet_id=wallet.id))
        case WalletStatus.CLOSED:
            return Refusal(WalletClosed(wallet_id=wallet.id))
        case _:
            assert_never(wallet.status)


def _decide_on_operation(state: State, command: OnOperation) -> Changes | Refusal:
    operation = state.operation(command.operation_id)
    wallet = state.wallet(command.wallet_id)
    if operation is None or wallet is None:
        return Refusal(NotFound())
    match command:
        case BeginProcessing():
            return _decide_begin_processing(operation, command)
        case Settle():
            return _decide_settlement(operation, wallet, command)
        case Fail():
            return _decide_failure(operation, command)
        case FlagForReview():
            return _decide_review(operation, command)
        case _:
            raise TypeError(f"no rule for {type(command).__name__}")


def _decide_begin_processing(operation: Operation, command: BeginProcessing) -> Changes | Refusal:
    """Counts the attempt before the call, so that a crash in between leaves a trace."""
    if operation.status in FINAL_STATUSES or operation.status is OperationStatus.REQUIRES_REVIEW:
        return Refusal(_illegal(operation, OperationStatus.PROCESSING))
    begun = operation._replace(
        status=OperationStatus.PROCESSING, attempts=operation.attempts + 1, updated_at=command.now
    )
    return Changes(begun)


def _decide_settlement(operation: Operation, wallet: Wallet, command: Settle) -> Changes | Refusal:
    is_ours = (command.amount, command.currency) == (operation.amount, operation.currency)
    if operation.status is OperationStatus.SUCCESS and is_ours:
        return Changes(operation, done_outbox_id=operation.id)
    if OperationStatus.SUCCESS not in TRANSITIONS[operation.status]:
        return Refusal(_illegal(operation, OperationStatus.SUCCESS))
    if not is_ours:
        return _review_amount(operation, command)
    settled = _ended(operation, OperationStatus.SUCCESS, command.now, command.bank_reference)
    match operation.type:
        case OperationType.WITHDRAWAL:
            movement = _movement(EntryType.WITHDRAWAL_SETTLEMENT, settled, command, command.entry_id)
        case OperationType.DEPOSIT:
            # The money has arrived: it also lands on a frozen wallet, where it stays as frozen as the rest.
            if wallet.status is WalletStatus.CLOSED:
                return _review(
                    operation, command.now, "wallet_closed", "Paid in to a closed wallet", command.bank_reference
                )
            if wallet.available + wallet.held + operation.amount > MAX_AMOUNT_MINOR:
                return _review(
                    operation, command.now, "balance_overflow", "Does not fit the wallet", command.bank_reference
                )
            movement = _movement(EntryType.DEPOSIT, settled, command, command.entry_id)
        case _:
            assert_never(operation.type)
    return Changes(settled, (movement,), done_outbox_id=operation.id)


def _decide_failure(operation: Operation, command: Fail) -> Changes | Refusal:
    is_ours = command.amount is None or (command.amount, command.currency) == (operation.amount, operation.currency)
    if operation.status is OperationStatus.FAILED and is_ours:
        return Changes(operation, done_outbox_id=operation.id)
    if OperationStatus.FAILED not in TRANSITIONS[operation.status]:
        return Refusal(_illegal(operation, OperationStatus.FAILED))
    if not is_ours:
        return _review_amount(operation, command)
    failed = _ended(operation, OperationStatus.FAILED, command.now, command.bank_reference)._replace(
        failure_code=command.failure_code, failure_message=command.failure_message
    )
    match operation.type:
        case OperationType.WITHDRAWAL:
            refund = _movement(EntryType.WITHDRAWAL_REFUND, failed, command, command.entry_id)
            return Changes(failed, (refund,), done_outbox_id=operation.id)
        case OperationType.DEPOSIT:
            return Changes(failed, done_outbox_id=operation.id)
        case _:
            assert_never(operation.type)


def _decide_review(operation: Operation, command: FlagForReview) -> Changes | Refusal:
    if operation.status is OperationStatus.REQUIRES_REVIEW:
        return Changes(operation, done_outbox_id=operation.id)
    if OperationStatus.REQUIRES_REVIEW not in TRANSITIONS[operation.status]:
        return Refusal(_illegal(operation, OperationStatus.REQUIRES_REVIEW))
    return _review(operation, command.now, command.failure_code, command.failure_message, None)


def _review_amount(operation: Operation, command: Settle | Fail) -> Changes:
    said = f"The bank speaks of {command.amount} {command.currency}"
    return _review(operation, command.now, "amount_mismatch", said, command.bank_reference)


def _review(operation: Operation, now: datetime, code: str, message: str, bank_reference: str | None) -> Changes:
    """Moves no money: what is held stays held until a person or the bank's late word decides."""
    reviewed = _ended(operation, OperationStatus.REQUIRES_REVIEW, now, bank_reference)._replace(
        failure_code=code, failure_message=message
    )
    return Changes(reviewed, done_outbox_id=operation.id)


def _ended(operation: Operation, status: OperationStatus, now: datetime, bank_reference: str | None) -> Operation:
    return operation._replace(
        status=status,
        bank_reference=bank_reference or operation.bank_reference,
        failure_code=None,
        failure_message=None,
        updated_at=now,
    )


def _illegal(operation: Operation, wanted: OperationStatus) -> IllegalTransition:
    return IllegalTransition(
        f"{operation.id} is {operation.status} and cannot become {wanted}", status_now=operation.status
    )


def _new_operation(command: RequestOperation, wallet: Wallet, operation_type: OperationType) -> Operation:
    return Operation(
        id=command.operation_id,
        type=operation_type,
        user_id=command.user_id,
        wallet_id=wallet.id,
        amount=command.amount,
        currency=command.currency,
        status=OperationStatus.PENDING,
        account=command.account,
        category=command.category,
        description=command.description,
        metadata=command.metadata,
        failure_code=None,
        failure_message=None,
        bank_reference=None,
        attempts=0,
        request_id=command.request_id,
        created_at=command.now,
        updated_at=command.now,
    )


def _movement(entry_type: EntryType, operation: Operation, command: Command, entry_id: str) -> Movement:
    return Movement(
        wallet_id=operation.wallet_id,
        type=entry_type,
        amount=operation.amount,
        status=operation.status,
        reference=operation.id,
        transaction_id=command.transaction_id,
        counterparty=_BANK,
        entry_id=entry_id,
        at=command.now,
        category=operation.category,
    )


def _submission(operation: Operation) -> OutboxRow:
    """The order to the bank, due at once; it stays in the outbox until the operation has ended."""
    return OutboxRow(
        id=operation.id,
        topic=OutboxTopic.BANK_ORDER,
        subject_type=operation.type,
        wallet_id=operation.wallet_id,
        attempts=0,
        visits=0,
        request_id=operation.request_id,
        due_at=operation.created_at,
        created_at=operation.created_at,
    )
