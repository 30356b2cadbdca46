"""Deposits and withdrawals: one shape, one state machine, one view."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, assert_never

from service.domain.clock import to_rfc3339
from service.domain.idempotency import Tombstone
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge
from service.domain.user_limits import LimitCharge


class OperationType(StrEnum):
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"


class OperationStatus(StrEnum):
    REQUIRES_APPROVAL = "requires_approval"
    PENDING = "pending"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"
    REQUIRES_REVIEW = "requires_review"
    # A withdrawal that the bank does not have, of a wallet or a user that may not pay out any more.
    BLOCKED = "blocked"


TRANSITIONS: dict[OperationStatus, frozenset[OperationStatus]] = {
    OperationStatus.REQUIRES_APPROVAL: frozenset({OperationStatus.PENDING, OperationStatus.CANCELED}),
    # The bank's word may overtake our own note that we asked it.
    OperationStatus.PENDING: frozenset(
        {
            OperationStatus.PROCESSING,
            OperationStatus.SUCCESS,
            OperationStatus.FAILED,
            OperationStatus.CANCELED,
            OperationStatus.REQUIRES_REVIEW,
            OperationStatus.BLOCKED,
        }
    ),
    OperationStatus.PROCESSING: frozenset(
        {OperationStatus.SUCCESS, OperationStatus.FAILED, OperationStatus.REQUIRES_REVIEW, OperationStatus.BLOCKED}
    ),
    # An admin releases or cancels it. The bank's late word still ends one that had been submitted before.
    OperationStatus.BLOCKED: frozenset(
        {
            OperationStatus.PENDING,
            OperationStatus.CANCELED,
            OperationStatus.SUCCESS,
            OperationStatus.FAILED,
            OperationStatus.REQUIRES_REVIEW,
        }
    ),
    # A late answer of the bank still ends it, and so does a person, who may also have the bank asked again.
    OperationStatus.REQUIRES_REVIEW: frozenset(
        {OperationStatus.SUCCESS, OperationStatus.FAILED, OperationStatus.PROCESSING}
    ),
    OperationStatus.SUCCESS: frozenset(),
    OperationStatus.FAILED: frozenset(),
    OperationStatus.CANCELED: frozenset(),
}
FINAL_STATUSES = frozenset(status for status, following in TRANSITIONS.items() if not following)


class BankCall(StrEnum):
    SUBMIT = "submit"
    FIND = "find"


class Attempt(NamedTuple):
    """A call to the bank, noted before it is made. How it ended stands there once something else is written."""

    at: datetime
    call: BankCall
    outcome: str | None = None
    ended_at: datetime | None = None


class Verdict(StrEnum):
    """What people say of an operation in review."""

    SETTLE = "settle"
    FAIL = "fail"


class Proposal(NamedTuple):
    """What one admin wants to become of an operation in review, while it takes another one to agree."""

    verdict: Verdict
    by: str
    reason: str
    at: datetime


class BlockReason(StrEnum):
    """Why a withdrawal is not submitted; its `failure_code` while it is blocked."""

    WALLET_FROZEN = "wallet_frozen"
    USER_DEACTIVATED = "user_deactivated"
    WALLET_OWES = "wallet_owes"


BLOCK_MESSAGES = {
    BlockReason.WALLET_FROZEN: "The wallet was frozen before the bank got the order",
    BlockReason.USER_DEACTIVATED: "The user was deactivated before the bank got the order",
    BlockReason.WALLET_OWES: "The bank took a deposit back before it got the order",
}


class Release(NamedTuple):
    """An admin's release of a blocked withdrawal to the bank, with the blocks that it overrides.

    It overrides the freeze and the deactivation that stood at that time, which their audit events name, and no later
    ones.
    """

    by: str
    reason: str
    at: datetime
    despite_freeze: bool
    despite_deactivation: bool
    # None where nothing was frozen, or where an earlier version froze it.
    freeze_event_id: str | None = None
    # None where the user was active, or where an earlier version deactivated them.
    deactivation_event_id: str | None = None

    def covers(self, reason: BlockReason, event_id: str | None) -> bool:
        """Tells whether the withdrawal goes out all the same; the block that stands now came with this audit event."""
        match reason:
            case BlockReason.WALLET_FROZEN:
                return self.despite_freeze and self.freeze_event_id == event_id
            case BlockReason.USER_DEACTIVATED:
                return self.despite_deactivation and self.deactivation_event_id == event_id
            case BlockReason.WALLET_OWES:
                return False
            case _:
                assert_never(reason)


class Operation(NamedTuple):
    """A deposit or a withdrawal. `account` is the other side at the bank: its source or its destination.

    What opens `account_sealed` is in the service; whatever shows an account shows `account_masked`. `attempts` counts
    how often it was submitted, `attempt_log` has the last calls of any kind, and the last order that was not refused.
    """

    id: str
    type: OperationType
    user_id: str
    wallet_id: str
    amount: int
    currency: str
    status: OperationStatus
    account_sealed: Sealed
    account_masked: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    failure_code: str | None
    failure_message: str | None
    bank_reference: str | None
    attempts: int
    request_id: str | None
    created_at: datetime
    updated_at: datetime
    challenge: Challenge | None = None
    version: int = 0
    attempt_log: tuple[Attempt, ...] = ()
    proposal: Proposal | None = None
    # Of money that the bank sent back after a success: when it said so, whatever became of it in the wallet.
    return_id: str | None = None
    returned_at: datetime | None = None
    # By when the bank is to have done it, since it was first submitted; None before that, and of older operations.
    expected_by: datetime | None = None
    # When it was first known that the bank has the order, and has not carried it out yet.
    accepted_at: datetime | None = None
    tombstone: Tombstone | None = None
    # Of a withdrawal that had been blocked: the last time that an admin released it.
    release: Release | None = None
    # For the limits of its owner over all wallets. A deposit does not count.
    counted: LimitCharge | None = None
    # A wrong code was sent for it: where it comes to nothing, the limits get its amount back, but not its count.
    keeps_count: bool = False


# With back-off to 10 min the last three hours: who looks into it wants those, and the document stays small.
ATTEMPTS_KEPT = 20


def begin_attempt(
    operation: Operation, call: BankCall, now: datetime, last_outcome: str, answered_at: datetime | None = None
) -> tuple[Attempt, ...]:
    """Returns the log with one more call. Of a call that nothing was heard of, `last_outcome` is what is known.

    `answered_at` is when the submission began that `last_outcome` answers: another worker's call may be the last one.
    """
    before = operation.attempt_log
    if answered_at is not None:
        before = _answered(before, answered_at, now, last_outcome)
        last_outcome = NOT_HEARD_OF
    return _kept((*end_attempt(operation._replace(attempt_log=before), now, last_outcome), Attempt(now, call)))


def _answered(log: tuple[Attempt, ...], begun_at: datetime, now: datetime, outcome: str) -> tuple[Attempt, ...]:
    """Where two began at the same moment nobody can tell which of them it was, so that neither is."""
    places = [place for place, attempt in enumerate(log) if attempt.at == begun_at and attempt.call is BankCall.SUBMIT]
    if len(places) != 1:
        return log
    (place,) = places
    return (*log[:place], log[place]._replace(outcome=outcome, ended_at=now), *log[place + 1 :])


def _kept(log: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """The last calls; before them the last order that may still be on its way, as later ones may yet be refused."""
    if len(log) <= ATTEMPTS_KEPT:
        return log
    begin = len(log) - ATTEMPTS_KEPT + 1
    earlier = [attempt for attempt in log[:begin] if _is_unrefused(attempt)]
    return (*(earlier or log[:begin])[-1:], *log[begin:])


def end_attempt(operation: Operation, now: datetime, outcome: str) -> tuple[Attempt, ...]:
    """Returns the log with the outcome of its last call, unless that is known."""
    if not operation.attempt_log or operation.attempt_log[-1].outcome is not None:
        return operation.attempt_log
    *before, last = operation.attempt_log
    return (*before, last._replace(outcome=outcome, ended_at=now))


_REJECTED = "rejected"
# What the bank says of an order that it has and has not carried out yet.
ACCEPTED = "accepted"
# A time-out, a 5xx, a broken connection, a worker that died, or an order that was taken and not yet carried out.
NOT_HEARD_OF = "unknown"


def rejection(code: str) -> str:
    """Returns the outcome of a submission that the bank answered with a refusal: that one will never be executed."""
    return f"{_REJECTED}: {code}"


def may_be_under_way(operation: Operation, now: datetime, in_flight: timedelta) -> bool:
    """Tells whether an order that was sent, and not answered by a refusal, may still reach the bank."""
    return any(now - attempt.at < in_flight and _is_unrefused(attempt) for attempt in operation.attempt_log)


def _is_unrefused(attempt: Attempt) -> bool:
    return attempt.call is BankCall.SUBMIT and not (attempt.outcome or "").startswith(f"{_REJECTED}: ")


_MASKED_DIGITS = 4


def mask_account(account: str) -> str:
    """'bank-account-0001' → '•••• 0001'; an account of four characters or fewer shows nothing."""
    return f"•••• {account[-_MASKED_DIGITS:]}" if len(account) > _MASKED_DIGITS else "••••"


def operation_view(operation: Operation) -> dict[str, Any]:
    """Returns the operation as the API shows it."""
    account_field = "source" if operation.type is OperationType.DEPOSIT else "destination"
    return {
        "id": operation.id,
        "type": operation.type,
        "status": operation.status,
        "amount": operation.amount,
        "currency": operation.currency,
        "wallet_id": operation.wallet_id,
        account_field: operation.account_masked,
        "category": operation.category,
        "description": operation.description,
        "metadata": operation.metadata,
        "failure_code": operation.failure_code,
        "failure_message": operation.failure_message,
        "bank_reference": operation.bank_reference,
        "return_id": operation.return_id,
        "returned_at": None if operation.returned_at is None else to_rfc3339(operation.returned_at),
        "expected_by": None if operation.expected_by is None else to_rfc3339(operation.expected_by),
        "created_at": to_rfc3339(operation.created_at),
        "updated_at": to_rfc3339(operation.updated_at),
    }


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    """Returns the attempt as admins see it."""
    return {
        "at": to_rfc3339(attempt.at),
        "call": attempt.call,
        "outcome": attempt.outcome,
        "ended_at": None if attempt.ended_at is None else to_rfc3339(attempt.ended_at),
    }


def release_view(release: Release | None) -> dict[str, Any] | None:
    """As admins see it."""
    if release is None:
        return None
    return {
        "by": release.by,
        "reason": release.reason,
        "at": to_rfc3339(release.at),
        "despite_freeze": release.despite_freeze,
        "despite_deactivation": release.despite_deactivation,
    }


def proposal_view(proposal: Proposal | None) -> dict[str, Any] | None:
    return None if proposal is None else proposal._asdict() | {"at": to_rfc3339(proposal.at)}
