"""A bank to develop and test against: slow, now and then failing, with a journal of its own.

An order is noted in the journal at once and executed later by `workers/bank_simulation.py`, which then reports
it by a signed callback. Accounts whose names end in a word of MAGIC force an outcome; all others follow the
rates in the settings.
"""

import asyncio
import random
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from bson.int64 import Int64
from uuid_utils import uuid4

from service.domain.clock import utc_now
from service.gateways.bank import (
    BankOrder,
    BankOutcomeUnknown,
    BankRejected,
    BankReport,
    BankState,
    OrderKind,
    StatementLine,
)
from service.gateways.job_queue import Job, JobQueue
from service.repositories import bank_orders as journal
from service.settings import Settings
from service.tracing import current_traceparent


class Behaviour(StrEnum):
    """What the bank does with an order, and the ending of an account's name that forces it."""

    SUCCESS = "success"
    DECLINE = "decline"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    INVALID_ACCOUNT = "invalid-account"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    TIMEOUT_AFTER_ACCEPTING = "timeout-after"


MAGIC = {f"-{behaviour.value}": behaviour for behaviour in Behaviour}

_FAILURES = {
    Behaviour.DECLINE: ("declined", "The bank declined the order"),
    Behaviour.INSUFFICIENT_FUNDS: ("insufficient_funds", "The account at the bank does not cover the amount"),
}


class SimulatedBank:
    def __init__(self, settings: Settings, jobs: JobQueue) -> None:
        self._settings = settings
        self._jobs = jobs

    async def submit(self, order: BankOrder) -> BankReport:
        known = await journal.find(order.reference)
        if known is not None:
            return self._again(order, await journal.insert_once(known))
        behaviour = self._behaviour(order.account)
        match behaviour:
            case Behaviour.INVALID_ACCOUNT:
                raise BankRejected("invalid_account", "The bank does not know this account")
            case Behaviour.UNAVAILABLE:
                raise BankOutcomeUnknown("503 from the bank")
            case Behaviour.TIMEOUT:
                await asyncio.sleep(self._timeout_s)
                raise BankOutcomeUnknown("no answer from the bank in time")
            case _:
                row = await self._accept(order, behaviour)
        if behaviour is Behaviour.TIMEOUT_AFTER_ACCEPTING:
            await asyncio.sleep(self._timeout_s)
            raise BankOutcomeUnknown("no answer from the bank in time")
        return report_of(row)

    async def find(self, reference: str) -> BankReport | None:
        row = await journal.find(reference)
        return None if row is None else report_of(row)

    async def statement(self, day: date) -> list[StatementLine]:
        return [
            StatementLine(
                reference=row["_id"],
                kind=OrderKind(row["kind"]),
                is_return=False,
                amount=int(payment["amount"]),
                currency=row["currency"],
                bank_reference=payment["bank_reference"],
                booked_at=payment["at"],
            )
            for row, payment in await journal.find_payments(day)
        ]

    @property
    def _timeout_s(self) -> float:
        """As long as a client would wait, but no longer than the bank's own slowest answer."""
        return min(self._settings.bank_timeout_s, self._settings.bank_delay_max_s)

    def _again(self, order: BankOrder, row: dict[str, Any]) -> BankReport:
        if (row["amount"], row["currency"], row["account"]) != (order.amount, order.currency, order.account):
            raise BankRejected("reference_reused", "The reference belongs to another order")
        return report_of(row)

    async def _accept(self, order: BankOrder, behaviour: Behaviour) -> dict[str, Any]:
        delay_s = random.uniform(self._settings.bank_delay_min_s, self._settings.bank_delay_max_s)  # noqa: S311 no secret
        row = journal_row(order, behaviour, utc_now(), delay_s)
        if (traceparent := current_traceparent()) is not None:
            # As a header of a request would have it; its callback brings it back.
            row["traceparent"] = traceparent
        row = await journal.insert_once(row)
        self._jobs.wake(Job.RUN_BANK, delay_s)
        return row

    def _behaviour(self, account: str) -> Behaviour:
        for ending, behaviour in MAGIC.items():
            if account.endswith(ending):
                return behaviour
        drawn = random.random()  # noqa: S311 no secret
        if drawn < self._settings.bank_timeout_rate:
            # Half of all timeouts happen after the bank has taken the order: the dangerous half.
            return random.choice((Behaviour.TIMEOUT, Behaviour.TIMEOUT_AFTER_ACCEPTING))  # noqa: S311 no secret
        if drawn < self._settings.bank_timeout_rate + self._settings.bank_error_rate:
            return Behaviour.UNAVAILABLE
        if random.random() < self._settings.bank_success_rate:  # noqa: S311 no secret
            return Behaviour.SUCCESS
        return random.choice((Behaviour.DECLINE, Behaviour.INSUFFICIENT_FUNDS))  # noqa: S311 no secret


def journal_row(order: BankOrder, behaviour: Behaviour, now: datetime, delay_s: float) -> dict[str, Any]:
    """An accepted order, with the outcome that it will have after `delay_s`."""
    failure_code, failure_message = _FAILURES.get(behaviour, (None, None))
    return {
        "_id": order.reference,
        "kind": order.kind,
        "amount": Int64(order.amount),
        "currency": order.currency,
        "account": order.account,
        "state": BankState.ACCEPTED,
        "bank_reference": f"bnk_{uuid4().hex}",
        "outcome": BankState.SUCCESS if failure_code is None else BankState.FAILED,
        "failure_code": failure_code,
        "failure_message": failure_message,
        "payments": [],
        "submissions": 1,
        "attempts": 0,
        "created_at": now,
        "executed_at": None,
        "due_at": now + timedelta(seconds=delay_s),
    }


def report_of(row: dict[str, Any]) -> BankReport:
    """What the bank says of an order in its journal; the reason of a failure shows only once it has failed."""
    state = BankState(row["state"])
    failed = state is BankState.FAILED
    return BankReport(
        reference=row["_id"],
        state=state,
        amount=int(row["amount"]),
        currency=row["currency"],
        bank_reference=row["bank_reference"],
        failure_code=row["failure_code"] if failed else None,
        failure_message=row["failure_message"] if failed else None,
    )
