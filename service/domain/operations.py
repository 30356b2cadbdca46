"""Deposits and withdrawals: one shape, one state machine, one view."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge


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
        }
    ),
    OperationStatus.PROCESSING: frozenset(
        {OperationStatus.SUCCESS, OperationStatus.FAILED, OperationStatus.REQUIRES_REVIEW}
    ),
    # A late answer of the bank still ends it.
    OperationStatus.REQUIRES_REVIEW: frozenset({OperationStatus.SUCCESS, OperationStatus.FAILED}),
    OperationStatus.SUCCESS: frozenset(),
    OperationStatus.FAILED: frozenset(),
    OperationStatus.CANCELED: frozenset(),
}
FINAL_STATUSES = frozenset(status for status, following in TRANSITIONS.items() if not following)


class Operation(NamedTuple):
    """A deposit or a withdrawal. `account` is the other side at the bank: its source or its destination.

    What opens `account_sealed` is in the service; whatever shows an account shows `account_masked`.
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


_MASKED_DIGITS = 4


def mask_account(account: str) -> str:
    """'bank-account-0001' → '•••• 0001'; an account of four characters or fewer shows nothing."""
    return f"•••• {account[-_MASKED_DIGITS:]}" if len(account) > _MASKED_DIGITS else "••••"


def operation_view(operation: Operation) -> dict[str, Any]:
    """The operation as the API shows it."""
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
        "created_at": to_rfc3339(operation.created_at),
        "updated_at": to_rfc3339(operation.updated_at),
    }
