"""Returns: money of a settled operation that the bank sent back, or took back, days later."""

from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.identifiers import Prefix

_TIME_DIGITS = 12
_FURTHER_DIGITS = 20


class ReturnType(StrEnum):
    """Of what came back: a withdrawal's money comes in again, a deposit's goes out again, and so do its points."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    POINTS = "points"


class ReturnStatus(StrEnum):
    SUCCESS = "success"
    # A deposit's: the wallet has given what it had. Whatever comes into it pays the rest.
    OWED = "owed"
    # The bank has done it and the wallet could not follow: it is closed or too full. In earlier releases also: it no
    # longer had the money.
    REQUIRES_REVIEW = "requires_review"


class Return(NamedTuple):
    """Of points, `operation_id` is the reward that gave them.

    `owed` is what the wallet still lacks of the amount, in status `owed` only. `trouble` says why it has not moved, or
    not all of it; `decided_by` is the admin who had it booked later.
    """

    id: str
    type: ReturnType
    operation_id: str
    user_id: str
    wallet_id: str
    amount: int
    currency: str
    status: ReturnStatus
    bank_reference: str | None
    return_code: str | None
    return_message: str | None
    trouble: str | None
    category: str | None
    decided_by: str | None
    decided_at: datetime | None
    transaction_id: str | None
    request_id: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 0
    owed: int = 0

    @property
    def collected(self) -> int:
        """Returns what has moved so far."""
        return 0 if self.status is ReturnStatus.REQUIRES_REVIEW else self.amount - self.owed

    @property
    def waits_to_take(self) -> bool:
        """Tells whether it waits for a person and then takes money or points: nothing leaves the wallet before that."""
        return self.type is not ReturnType.WITHDRAWAL and self.status is ReturnStatus.REQUIRES_REVIEW

    @property
    def taken_unbooked(self) -> int:
        """Returns what the bank has taken back and no wallet has given or owes: the return waits for an admin."""
        is_waiting = self.type is ReturnType.DEPOSIT and self.status is ReturnStatus.REQUIRES_REVIEW
        return self.amount if is_waiting else 0


def return_id_of(operation_id: str) -> str:
    """One operation, one return: the database itself lets no second one in."""
    return f"{Prefix.RETURN}_{operation_id.partition('_')[2]}"


def points_return_id_of(operation_id: str) -> str:
    """Of the points that a deposit had earned. It sorts by the deposit's time, as the deposit's own return does."""
    made, rest = operation_id.partition("_")[2][:_TIME_DIGITS], sha256(f"{operation_id}:points".encode()).hexdigest()
    return f"{Prefix.RETURN}_{made}{rest[:_FURTHER_DIGITS]}"


def return_view(returned: Return) -> dict[str, Any]:
    """Returns the return as admins see it."""
    view = returned._asdict() | {
        "collected": returned.collected,
        "decided_at": None if returned.decided_at is None else to_rfc3339(returned.decided_at),
        "created_at": to_rfc3339(returned.created_at),
        "updated_at": to_rfc3339(returned.updated_at),
    }
    del view["request_id"], view["version"]
    return view
