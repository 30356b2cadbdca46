"""The bank as the service sees it: a protocol of three calls. A real bank is one more class that has them."""

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple, Protocol


class OrderKind(StrEnum):
    PAYOUT = "payout"
    COLLECTION = "collection"


class BankOrder(NamedTuple):
    """What we ask for. `reference` is ours, and the bank executes it at most once, however often it is sent."""

    reference: str
    kind: OrderKind
    amount: int
    currency: str
    account: str


class BankState(StrEnum):
    ACCEPTED = "accepted"
    SUCCESS = "success"
    FAILED = "failed"


class BankReport(NamedTuple):
    """What the bank says of an order, in an answer or in a callback. `kind` and `account` are None where it does not
    say them.
    """

    reference: str
    state: BankState
    amount: int
    currency: str
    bank_reference: str | None
    failure_code: str | None
    failure_message: str | None
    kind: OrderKind | None = None
    account: str | None = None


class StatementLine(NamedTuple):
    """Money that moved at the bank: an order that it paid (`is_return` false), or one that it paid back later.

    `reference` is the one that the order came with; `amount` is what has really moved, in minor units. With `is_fee` it
    is a payout that the bank kept for itself; such a line needs no reference.
    """

    reference: str
    kind: OrderKind
    is_return: bool
    amount: int
    currency: str
    bank_reference: str
    booked_at: datetime
    is_fee: bool = False


class BankRejected(Exception):
    """The bank refuses the order as such (4xx): it will never be executed."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


class BankOutcomeUnknown(Exception):
    """A timeout, a 5xx, a broken connection: the order may or may not have been executed."""


class BankUnavailable(Exception):
    """The bank was not asked at all, since it is known to be down: nothing can have happened."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"not asked; worth a try in {retry_after_s:.1f} s")


class Bank(Protocol):
    async def submit(self, order: BankOrder) -> BankReport:
        """Hands in an order, or the same again. Raises BankRejected or BankOutcomeUnknown."""
        ...

    async def find(self, reference: str) -> BankReport | None:
        """What the bank knows of a reference; None where it never got it. Raises BankOutcomeUnknown."""
        ...

    async def statement(self, day: date) -> Sequence[StatementLine]:
        """All that moved on that day (UTC), in the order of booking. Raises BankOutcomeUnknown."""
        ...
