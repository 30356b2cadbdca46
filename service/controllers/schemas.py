"""What answers look like, for OpenAPI: the routes build them by hand, the tests compare the two."""

from collections import defaultdict
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from service.domain.entries import Direction, EntryType
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.wallets import Freeze, WalletStatus
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    ClockOff,
    LedgerBusy,
    TooManyPending,
    WalletServiceError,
    problem_document,
)

_Row = TypeVar("_Row")
TIME = Field(json_schema_extra={"format": "date-time"}, examples=["2026-02-24T12:34:56.789Z"])
# The name of the schema that all errors refer to.
PROBLEM = "Problem"


class InSchema:
    """Keywords for the JSON schema of a type whose own validator pydantic cannot look into."""

    def __init__(self, **keywords: str | int | dict[str, Any] | list[dict[str, Any]]) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(core_schema) | self._keywords


def _sum_schema(pattern: str, **bounds: int) -> InSchema:
    digits = {"type": "string", "pattern": pattern}
    return InSchema(anyOf=[{"type": "integer", "format": "int64", "maximum": MAX_AMOUNT_MINOR, **bounds}, digits])


# What is added up over many wallets or entries: beyond 2^53 - 1, either way, a string of its digits (exact_json.py).
Sum = Annotated[int | str, _sum_schema("^-?[0-9]+$", minimum=-MAX_AMOUNT_MINOR)]
PositiveSum = Annotated[int | str, _sum_schema("^[0-9]+$", minimum=0)]


class View(BaseModel):
    """Base of every answer. More members may come with time."""

    # Nothing is made of it before somebody asks for the document.
    model_config = ConfigDict(frozen=True, defer_build=True)


class UserView(View):
    id: str = Field(examples=["usr_0198c0ffee0070008000000000000001"])
    email: str
    first_name: str
    last_name: str
    roles: list[str]
    is_active: bool
    is_email_verified: bool = Field(description="Until it is, nobody can pay this address, and it gets no notices")
    created_at: str = TIME


class WalletView(View):
    """Amounts in minor units; `balance` is `available` and `held` together."""

    id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    user_id: str
    currency: str = Field(examples=["INR"])
    available: int = Field(ge=0)
    held: int = Field(ge=0)
    balance: int = Field(ge=0)
    owed: int = Field(ge=0, description="What deposits that were taken back still lack; what comes in pays it first")
    status: WalletStatus
    frozen: Freeze | None = Field(description="Which way a frozen wallet is shut: in, out or both")
    seq: int = Field(ge=0, description="Number of entries so far")
    created_at: str = TIME
    updated_at: str = TIME


class BalanceAtView(View):
    """After the last entry up to `at`, which is number `seq`; zeros where there was none yet."""

    at: str = TIME
    seq: int = Field(ge=0, examples=[12])
    available: int = Field(ge=0, examples=[9000])
    held: int = Field(ge=0, examples=[1000])
    balance: int = Field(ge=0, examples=[10000])


class WalletAtView(BalanceAtView):
    """What was in a wallet at a time in the past."""

    id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    user_id: str = Field(examples=["usr_0198c0ffee0070008000000000000001"])
    currency: str = Field(examples=["INR"])


class EntryView(View):
    """One movement of one wallet. `hash` seals it and, by `prev_hash`, all entries before it."""

    id: str = Field(examples=["ent_0198c0ffee0070008000000000000001"])
    wallet_id: str
    user_id: str
    seq: int = Field(ge=1)
    type: EntryType
    direction: Direction
    amount: int = Field(ge=1)
    currency: str
    available_before: int = Field(ge=0)
    available_after: int = Field(ge=0)
    held_before: int = Field(ge=0)
    held_after: int = Field(ge=0)
    status: str
    reference: str = Field(description="The operation that it belongs to")
    transaction_id: str
    counterparty: str = Field(description="The other side: a wallet, `bank`, or an account of the house")
    category: str | None
    created_at: str = TIME
    prev_hash: str
    hash: str


class BalanceView(View):
    wallet_id: str
    currency: str
    available: int = Field(ge=0)
    held: int = Field(ge=0)
    balance: int = Field(ge=0)
    owed: int = Field(ge=0, description="No part of the balance: what comes in pays it first")


class BalancesView(View):
    user_id: str
    balances: list[BalanceView]


class UserBalanceAtView(BalanceAtView):
    wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    currency: str = Field(examples=["INR"])


class BalancesAtView(View):
    """What was in all wallets that a user has by now, at a time in the past."""

    user_id: str = Field(examples=["usr_0198c0ffee0070008000000000000001"])
    at: str = TIME
    balances: list[UserBalanceAtView]


class PageView(View, Generic[_Row]):
    data: list[_Row]
    has_more: bool
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one")


class ProblemField(View):
    pointer: str = Field(description="JSON pointer into the body, or with the part's name in front: /query/limit")
    code: str
    message: str


class Problem(View):
    """RFC 9457 problem details. `error` is the code that clients go by; facts about it may follow."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    error: str
    message: str
    request_id: str | None
    errors: list[ProblemField] | None = None
    retry_after: int | None = None


def problem_responses(*errors: type[WalletServiceError] | WalletServiceError) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: the errors that it can answer with, by status, an example of each."""
    by_status: dict[int | str, list[WalletServiceError]] = defaultdict(list)
    # Every route of the ledger can also answer with a full share of its queue, or a wrong clock.
    for error in (*errors, TooManyPending, ClockOff) if LedgerBusy in errors else errors:
        by_status[error.http_status].append(error if isinstance(error, WalletServiceError) else error())
    return {status: _response(of_status) for status, of_status in by_status.items()}


def _response(errors: list[WalletServiceError]) -> dict[str, Any]:
    examples = {
        error.code: {"summary": error.title, "value": problem_document(error, "5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a")}
        for error in errors
    }
    return {
        "description": ", or: ".join(error.title for error in errors),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{PROBLEM}"}, "examples": examples}},
    }
