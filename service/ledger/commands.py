"""Commands: plain data, one class for each thing that the ledger can be asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from service.domain.idempotency import IdempotencyClaim
from service.domain.operations import OperationType


class Needs(NamedTuple):
    """The documents that a command names; all of them are read before it is decided."""

    users: tuple[str, ...] = ()
    wallets: tuple[str, ...] = ()
    owned_wallets: tuple[tuple[str, str], ...] = ()  # (user id, currency)
    operations: tuple[tuple[OperationType, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Time and ids are handed in: deciding the same command on the same state gives the same result."""

    now: datetime
    transaction_id: str
    request_id: str | None = None
    claim: IdempotencyClaim | None = None

    @property
    def needs(self) -> Needs:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOperation(Command):
    """A person asks for money to come in or to go out."""

    operation_id: str
    user_id: str
    token_version: int | None  # None: not asked for by a token, as by the seed
    amount: int
    currency: str
    account: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), owned_wallets=((self.user_id, self.currency),))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDeposit(RequestOperation):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestWithdrawal(RequestOperation):
    entry_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOperation(Command):
    """Anything about an operation that exists. Its type, id and wallet never change, so they can be named."""

    operation_type: OperationType
    operation_id: str
    wallet_id: str

    @property
    def needs(self) -> Needs:
        return Needs(wallets=(self.wallet_id,), operations=((self.operation_type, self.operation_id),))


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginProcessing(OnOperation):
    """We are about to talk to the bank: from here on an outcome may exist that we do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(OnOperation):
    """The bank executed the order."""

    entry_id: str
    amount: int
    currency: str
    bank_reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(OnOperation):
    """The bank refused the order for good. What it says of the amount is None where it never took the order."""

    entry_id: str
    amount: int | None
    currency: str | None
    bank_reference: str | None
    failure_code: str
    failure_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagForReview(OnOperation):
    """The bank and we disagree, or it never answered: a person has to look, and the funds stay where they are."""

    failure_code: str
    failure_message: str
