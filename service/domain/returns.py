"""Returns: money of a settled operation that the bank sent back, or took back, days later."""

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.identifiers import Prefix
from service.domain.operations import OperationType


class ReturnStatus(StrEnum):
    SUCCESS = "success"
    # The bank has done it and the wallet could not follow: it is closed, too full, or no longer has the money.
    REQUIRES_REVIEW = "requires_review"


class Return(NamedTuple):
    """`type` is that of the operation: a withdrawal's comes back in, a deposit's goes out again.

    `trouble` says why nothing has moved yet; `decided_by` is the admin who had it booked later.
    """

    id: str
    type: OperationType
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


def return_id_of(operation_id: str) -> str:
    """One operation, one return: the database itself lets no second one in."""
    return f"{Prefix.RETURN}_{operation_id.partition('_')[2]}"


def return_view(returned: Return) -> dict[str, Any]:
    """The return as admins see it."""
    view = returned._asdict() | {
        "decided_at": None if returned.decided_at is None else to_rfc3339(returned.decided_at),
        "created_at": to_rfc3339(returned.created_at),
        "updated_at": to_rfc3339(returned.updated_at),
    }
    del view["request_id"], view["version"]
    return view
