"""What deposits and withdrawals have in common over HTTP: fields, answers, lists."""

import math
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from fastapi import Response
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from service.controllers.pagination import CategoryFilter, CreatedFrom, CreatedTo, PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.schemas import InSchema, View, problem_responses
from service.domain.idempotency import Answer
from service.domain.money import EXPONENTS, MAX_AMOUNT_MINOR, is_currency
from service.domain.operations import Operation, OperationStatus, OperationType, operation_view
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    AccountDeactivated,
    BalanceOverflow,
    InsufficientFunds,
    LedgerBusy,
    LimitExceeded,
    NoWalletInCurrency,
    WalletClosed,
    WalletFrozen,
)
from service.services import operations
from service.services.callers import Caller
from service.services.operations import RecordFilter
from service.startup import Resources

_FIRST_ERROR_STATUS = 400
_METADATA_LIMIT = 20


def _refuse_other_than_integer(value: Any) -> Any:  # noqa: ANN401 anything may come
    # bool is an int to Python, and pydantic's own message would not say what to send.
    if type(value) is not int or not 1 <= value <= MAX_AMOUNT_MINOR:
        raise PydanticCustomError(
            "invalid_amount",
            "Send a whole number of minor units from 1 to 9007199254740991, e.g. 10050 for 100.50",
        )
    return value


def _known_currency(code: str) -> str:
    if not is_currency(code):
        raise PydanticCustomError("unknown_currency", "Send an ISO 4217 code in capitals, e.g. INR")
    return code


def _known_currency_or_points(code: str) -> str:
    if code not in EXPONENTS:
        raise PydanticCustomError("unknown_currency", "Send an ISO 4217 code in capitals, e.g. INR, or PTS for points")
    return code


def printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("not_printable", "Control characters are not allowed")
    return text


Amount = Annotated[
    int,
    # Before the validator that it is wrapped in: after it, the limits would not stand in the document.
    Field(ge=1, le=MAX_AMOUNT_MINOR),
    BeforeValidator(_refuse_other_than_integer),
    Field(description="Minor units: 10050 is 100.50 INR", examples=[10000]),
]
Currency = Annotated[
    str,
    AfterValidator(_known_currency),
    Field(description="ISO 4217", examples=["INR"]),
    InSchema(format="iso-4217", minLength=3, maxLength=3),
]
AnyCurrency = Annotated[
    str,
    AfterValidator(_known_currency_or_points),
    Field(description="ISO 4217, or PTS for points", examples=["INR"]),
    InSchema(format="iso-4217-or-pts", minLength=3, maxLength=3),
]
Account = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@/-]{4,63}$",
        description="The account at the bank",
        examples=["bank-account-0001"],
    ),
]


def _no_operator(key: str) -> str:
    # `$ref` and `$id` would come back from the database as a reference instead of as what was sent.
    if key.startswith("$"):
        raise PydanticCustomError("reserved_key", "Keys must not begin with $")
    return key


# What isprintable() takes, as a pattern: of the separators only the plain space.
_PRINTABLE = r"[^\p{C}\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]"
_VISIBLE = r"[^\p{C}\p{Z}]"
Printable = (AfterValidator(printable), InSchema(pattern=f"^{_PRINTABLE}*$"))

_Label = Annotated[str, Field(min_length=1, max_length=64), *Printable]
_Key = Annotated[_Label, AfterValidator(_no_operator)]
_Text = Annotated[str, Field(max_length=256), *Printable]
_Metadata = Annotated[
    dict[_Key, _Text],
    Field(max_length=_METADATA_LIMIT),
    InSchema(
        propertyNames={"minLength": 1, "maxLength": 64, "pattern": f"^(?!\\$){_PRINTABLE}*$"},
        additionalProperties={"type": "string", "maxLength": 256, "pattern": f"^{_PRINTABLE}*$"},
    ),
]
PrintableAndVisible = (
    Field(pattern=r"\S"),
    AfterValidator(printable),
    InSchema(pattern=f"^{_PRINTABLE}*{_VISIBLE}{_PRINTABLE}*$"),
)
Reason = Annotated[
    str,
    Field(min_length=1, max_length=256, description="Why: it stays in the audit events"),
    *PrintableAndVisible,
]


class NotedRequest(StrictModel):
    """What people may write on whatever moves their money."""

    category: Annotated[_Label | None, Field(examples=["rent"])] = None
    description: Annotated[_Text | None, Field(examples=["October"])] = None
    metadata: Annotated[_Metadata, Field(default_factory=dict)]


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
ORDER_ERRORS = (AccountDeactivated, InsufficientFunds, WalletFrozen, WalletClosed, LimitExceeded, LedgerBusy)
ORDER_PROBLEMS = problem_responses(*ORDER_ERRORS, BalanceOverflow, NoWalletInCurrency)


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


def respond(answer: Answer) -> Response:
    """The answer to the byte, with a note where it was given before."""
    is_problem = answer.status_code >= _FIRST_ERROR_STATUS
    response = Response(
        answer.body,
        answer.status_code,
        media_type=PROBLEM_MEDIA_TYPE if is_problem else "application/json",
    )
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def respond_order(answer: Answer, resources: Resources) -> Response:
    """As `respond`; what was accepted for a bank that is down says when it is worth asking about."""
    response = respond(answer)
    wait_s = resources.breaker.retry_after_s()
    if wait_s and answer.status_code == _ACCEPTED:
        response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response


def shape(operation: Operation) -> Response:
    return Response(orjson.dumps(operation_view(operation)), media_type="application/json")
