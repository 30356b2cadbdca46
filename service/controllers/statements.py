"""Statements over HTTP: a wallet's movements over a period, as JSON or as a CSV file."""

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Query as QueryParameters
from fastapi import Response
from pydantic import Field

from service.controllers.answers import json_response
from service.controllers.csv_stream import CsvStream, defuse, to_csv
from service.controllers.dependencies import OpenResources, require
from service.controllers.pagination import Query, QueryTime
from service.controllers.routing import api_router
from service.controllers.schemas import EntryView, View, problem_responses
from service.controllers.wallets import WalletId
from service.domain.clock import to_rfc3339
from service.domain.history import BalancePoint, point_after
from service.domain.money import to_decimal
from service.domain.permissions import Permission
from service.domain.statements import Movement, Statement, Tally, statement_view
from service.errors import ExportsBusy, StatementTooLong, TooManyExports, TotalOverflow
from service.services import statements
from service.services.callers import Caller
from service.services.statements import JSON_MOVEMENTS_LIMIT, StatementReading

router = api_router("Wallets")

_TIME = Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-01T00:00:00.000Z"])
_EXAMPLE_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_HASH = Field(examples=[_EXAMPLE_HASH])

# One column for everything that any record tells, so that all records have the same ones.
_COLUMNS = (
    "record", "seq", "time", "type", "direction", "category", "reference", "counterparty", "status", "currency",
    "amount_minor", "amount", "change_minor", "change", "available_minor", "available", "held_minor", "held",
    "balance_minor", "balance", "total_in_minor", "total_in", "total_out_minor", "total_out", "movements",
    "entry_id", "transaction_id", "hash",
)  # fmt: skip
_NOTHING = ("",)
_CSV_EXAMPLE = "\r\n".join(
    (
        ",".join(_COLUMNS),
        "opening,0,2026-01-01T00:00:00.000Z,,,,,,,INR,,,,,0,0.00,0,0.00,0,0.00,,,,,,,," + "0" * 64,
        (
            "movement,1,2026-01-05T10:00:00.000Z,DEPOSIT,credit,,dep_0198c0ffee0070008000000000000001,bank,success,INR,"
            "10050,100.50,10050,100.50,10050,100.50,0,0.00,10050,100.50,,,,,,ent_0198c0ffee0070008000000000000001,"
            f"txn_0198c0ffee0070008000000000000001,{_EXAMPLE_HASH}"
        ),
        (
            "closing,1,2026-02-01T00:00:00.000Z,,,,,,,INR,,,,,10050,100.50,0,0.00,10050,100.50,10050,100.50,0,0.00,1,,,"
            f"{_EXAMPLE_HASH}"
        ),
        "",
    )
)


class StatementFormat(StrEnum):
    JSON = "json"
    CSV = "csv"


class StatementQuery(Query):
    created_from: Annotated[
        QueryTime, Field(alias="from", description="At this time or later", examples=["2026-01-01T00:00:00Z"])
    ]
    created_to: Annotated[
        QueryTime, Field(alias="to", description="Before this time", examples=["2026-02-01T00:00:00Z"])
    ]
    format: Annotated[
        StatementFormat,
        Field(description=f"JSON holds up to {JSON_MOVEMENTS_LIMIT:,} movements, CSV any number", examples=["csv"]),
    ] = StatementFormat.JSON


class PointView(View):
    """After the entry number `seq`, whose hash is `hash`; `balance` is `available` and `held` together."""

    seq: int = Field(ge=0, examples=[1])
    available: int = Field(ge=0, examples=[10050])
    held: int = Field(ge=0, examples=[0])
    balance: int = Field(ge=0, examples=[10050])
    hash: str = _HASH


class MovementView(EntryView):
    """An entry, whole, and what it did to the balance."""

    change: int = Field(description="Of `balance`: 0 where money was only set aside or came back", examples=[10050])
    balance: int = Field(ge=0, description="`available_after` and `held_after` together", examples=[10050])


class StatementView(View):
    """`opening.balance + total_in - total_out = closing.balance`. Movements oldest first, amounts in minor units."""

    wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    currency: str = Field(examples=["INR"])
    created_from: str = Field(
        alias="from", json_schema_extra={"format": "date-time"}, examples=["2026-01-01T00:00:00.000Z"]
    )
    created_to: str = Field(
        alias="to", json_schema_extra={"format": "date-time"}, examples=["2026-02-01T00:00:00.000Z"]
    )
    opening: PointView
    closing: PointView
    total_in: int = Field(ge=0, examples=[10050])
    total_out: int = Field(ge=0, examples=[0])
    movements: int = Field(ge=0, examples=[1])
    rows: list[MovementView]


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}, "example": _CSV_EXAMPLE}}},
    **problem_responses(StatementTooLong, TotalOverflow, TooManyExports, ExportsBusy),
}


@router.get(
    "/wallets/{wallet_id}/statement",
    response_model=StatementView,
    responses=_RESPONSES,
    summary="A wallet's statement for a period, as JSON or CSV",
)
async def get_statement(
    wallet_id: WalletId,
    query: Annotated[StatementQuery, QueryParameters()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
    resources: OpenResources,
) -> Response:
    """Opening balance, every movement with the balance after it, closing balance, totals.

    `balance` is `available` and `held` together: money that is set aside still is one's own, and leaves with the
    entry that pays it out. A statement whose end has not passed yet, or only some seconds ago, may grow.

    CSV is RFC 4180 in UTF-8, with each amount in minor units and as a decimal. Text that a spreadsheet would take for
    a formula has an apostrophe in front. The first record is `opening`, the last one `closing`: **a file without
    `closing` is not complete**. Where reading fails midway, the connection is broken off and `closing` never comes.
    Each process makes one file at a time for each user.
    """
    statement = await statements.open_statement(wallet_id, user.user_id, query.created_from, query.created_to)
    if query.format is StatementFormat.JSON:
        return json_response(statement_view(*await statements.read_whole(statement)))
    resources.exports.begin(user.user_id)
    reading = StatementReading(statement)

    async def end() -> None:
        resources.exports.end(user.user_id)
        await reading.close()

    filename = f"statement_{wallet_id}_{query.created_from:%Y%m%d}_{query.created_to:%Y%m%d}.csv"
    return CsvStream(_csv_of(reading), filename, end)


async def _csv_of(reading: StatementReading) -> AsyncIterator[bytes]:
    statement = reading.tally.statement
    opening = _frame("opening", to_rfc3339(statement.created_from), statement.opening, statement.currency, _NOTHING * 5)
    yield to_csv((_COLUMNS, opening))
    async for movements in reading.batches():
        yield to_csv([_movement(movement) for movement in movements])
    yield to_csv([_closing(statement, reading.tally)])


def _closing(statement: Statement, tally: Tally) -> Sequence[str | int]:
    currency = statement.currency
    totals = (*_amounts(currency, tally.total_in, tally.total_out), statement.movements)
    return _frame("closing", to_rfc3339(statement.created_to), statement.closing, currency, totals)


def _frame(
    record: str, time: str, point: BalancePoint, currency: str, totals: Sequence[str | int]
) -> Sequence[str | int]:
    balances = _amounts(currency, point.available, point.held, point.balance)
    nothing = _NOTHING
    return (record, point.seq, time, *nothing * 6, currency, *nothing * 4, *balances, *totals, *nothing * 2, point.hash)


def _movement(movement: Movement) -> Sequence[str | int]:
    entry, change = movement
    point = point_after(entry)
    return (
        "movement",
        entry.seq,
        to_rfc3339(entry.created_at),
        entry.type,
        entry.direction,
        defuse(entry.category or ""),
        defuse(entry.reference),
        defuse(entry.counterparty),
        defuse(entry.status),
        entry.currency,
        *_amounts(entry.currency, entry.amount, change, point.available, point.held, point.balance),
        *_NOTHING * 5,
        entry.id,
        entry.transaction_id,
        entry.hash,
    )


def _amounts(currency: str, *amounts_minor: int) -> list[str | int]:
    """Each in minor units and as a decimal."""
    return [part for amount in amounts_minor for part in (amount, to_decimal(amount, currency))]
