"""What is seen of every call of the bank, whichever bank it is: how it ended and how long it took."""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import date
from time import perf_counter
from typing import TypeVar

from service.gateways.bank import (
    Bank,
    BankOrder,
    BankOutcomeUnknown,
    BankRejected,
    BankReport,
    BankUnavailable,
    StatementLine,
)
from service.metrics import bank_called
from service.tracing import Span, span

Answer = TypeVar("Answer")


class ObservedBank:
    """Closest to the bank: what a breaker keeps from it is no call."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def submit(self, order: BankOrder) -> BankReport:
        return await _observed("submit", order.reference, self._bank.submit(order))

    async def find(self, reference: str) -> BankReport | None:
        return await _observed("find", reference, self._bank.find(reference))

    async def statement(self, day: date) -> Sequence[StatementLine]:
        return await _observed("statement", None, self._bank.statement(day))


async def _observed(call: str, reference: str | None, asked: Awaitable[Answer]) -> Answer:
    attributes = {} if reference is None else {"wallet.operation_id": reference}
    with span(f"bank.{call}", attributes, "client") as traced:
        return await _counted(call, asked, traced)


async def _counted(call: str, asked: Awaitable[Answer], traced: Span) -> Answer:
    started = perf_counter()
    # Whatever it raises besides its own errors is a defect of the gateway's.
    outcome = "failed"
    try:
        answer = await asked
        outcome = "answered"
    except BankRejected:
        outcome = "rejected"
        raise
    except BankOutcomeUnknown:
        outcome = "unknown"
        raise
    except BankUnavailable:
        outcome = "not_asked"
        raise
    except asyncio.CancelledError:
        # Whoever asked has waited for as long as they wanted to.
        outcome = "given_up"
        raise
    else:
        return answer
    finally:
        bank_called(call, outcome, perf_counter() - started)
        traced.note({"wallet.outcome": outcome})
