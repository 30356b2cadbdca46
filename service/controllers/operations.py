"""What deposits and withdrawals have in common over HTTP."""

import math
from datetime import datetime
from typing import Any, Final

from fastapi import Response
from pydantic import Field

from service.controllers.answers import json_response, respond
from service.controllers.fields import Amount, Currency, NotedRequest
from service.controllers.pagination import CategoryFilter, CreatedFrom, CreatedTo, PageQuery, open_page, page_of
from service.controllers.schemas import View, problem_responses
from service.domain.idempotency import Answer
from service.domain.operations import Operation, OperationStatus, OperationType, operation_view
from service.errors import (
    AccountDeactivated,
    BalanceOverflow,
    CurrencyNotOffered,
    HouseFundsExhausted,
    InsufficientFunds,
    LedgerBusy,
    LimitExceeded,
    NoWalletInCurrency,
    RateUnavailable,
    WalletClosed,
    WalletFrozen,
    WalletOwes,
)
from service.services import operations
from service.services.callers import Caller
from service.services.operations import RecordFilter
from service.startup import Resources


class OrderRequest(NotedRequest):
    amount: Amount
    currency: Currency


class OperationView(View):
    """A deposit or a withdrawal as it stands."""

    id: str = Field(examples=["wdr_0198c0ffee0070008000000000000001"])
    type: OperationType = Field(examples=["withdrawal"])
    status: OperationStatus = Field(examples=["pending"])
    amount: int = Field(ge=1, examples=[10000])
    currency: str = Field(examples=["INR"])
    wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    category: str | None
    description: str | None
    metadata: dict[str, str]
    failure_code: str | None
    failure_message: str | None
    bank_reference: str | None
    return_id: str | None = Field(description="Of the return, where the bank sent the money back after the success")
    returned_at: datetime | None
    expected_by: datetime | None = Field(
        description="When the bank is to have done it; null until it was submitted there",
        examples=["2026-02-24T12:35:56.789Z"],
    )
    created_at: datetime
    updated_at: datetime


class DepositView(OperationView):
    source: str = Field(examples=["•••• 0001"])


class WithdrawalView(OperationView):
    destination: str = Field(examples=["•••• 0001"])


class OperationsQuery(PageQuery):
    status: OperationStatus | None = None
    currency: Currency | None = None
    category: CategoryFilter = None
    created_from: CreatedFrom = None
    created_to: CreatedTo = None

    @property
    def wanted(self) -> RecordFilter:
        return RecordFilter(self.status, self.currency, self.category, self.created_from, self.created_to)


# What any order for money may be refused with.
ORDER_ERRORS = (
    AccountDeactivated,
    InsufficientFunds,
    WalletOwes,
    WalletFrozen,
    WalletClosed,
    LimitExceeded,
    RateUnavailable,
    LedgerBusy,
)
_DEPOSIT_ERRORS = (*ORDER_ERRORS, CurrencyNotOffered, BalanceOverflow, NoWalletInCurrency)
ORDER_PROBLEMS = problem_responses(*_DEPOSIT_ERRORS)
WITHDRAWAL_PROBLEMS = problem_responses(*_DEPOSIT_ERRORS, HouseFundsExhausted)


_ACCEPTED: Final = 202
# Beside what is declared of the answer itself.
ACCEPTED_HEADERS: Final[dict[int | str, dict[str, Any]]] = {
    _ACCEPTED: {
        "headers": {
            "Retry-After": {
                "description": "Only while the bank is known to be down: it waits as `pending`, and in so many seconds "
                "it is worth asking how it stands.",
                "schema": {"type": "integer", "minimum": 1},
                "example": 5,
            }
        }
    }
}


async def list_page(
    operation_type: OperationType, query: OperationsQuery, user: Caller, resources: Resources
) -> Response:
    page = open_page(query, resources.settings, f"{operation_type}s", user.user_id, str)
    found = await operations.list_operations(
        operation_type, user.user_id, query.wanted, before_id=page.position, limit=page.limit_and_one
    )
    return page_of(found, page, lambda operation: operation.id, operation_view)


def respond_order(answer: Answer, resources: Resources) -> Response:
    """As `respond`; what was accepted for a bank that is down says when it is worth asking about."""
    response = respond(answer)
    wait_s = resources.breaker.retry_after_s()
    if wait_s and answer.status_code == _ACCEPTED:
        response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response


def shape(operation: Operation) -> Response:
    return json_response(operation_view(operation))
