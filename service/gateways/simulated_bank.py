"""A bank to develop and test against: slow, now and then failing, as nasty as it is told to be.

An order is noted in the bank's own journal at once, with all that will come of it, and executed and reported later by
`workers/bank_simulation.py`. Accounts whose names end in a behaviour's name meet that behaviour; all others follow the
rates in the settings.
"""

import asyncio
import random
from datetime import date
from typing import Any

from service.gateways.bank import (
    BankOrder,
    BankOutcomeUnknown,
    BankRejected,
    BankReport,
    BankState,
    OrderKind,
    StatementLine,
)
from service.gateways.bank_behaviours import CONDUCTS, Answer, Behaviour, Conduct, Habits, journal_row
from service.gateways.bank_conditions import BankConditions
from service.gateways.job_queue import Job, JobQueue
from service.repositories import bank_orders as journal
from service.settings import Settings
from service.tracing import current_traceparent

_REPORT_LOOK_S = 0.02


class SimulatedBank:
    def __init__(self, settings: Settings, jobs: JobQueue) -> None:
        self._settings = settings
        self._jobs = jobs
        self._habits = Habits(settings)
        self.conditions = BankConditions(settings)

    async def submit(self, order: BankOrder) -> BankReport:
        await self._require_up()
        behaviour = self._habits.behaviour(order.account)
        conduct = CONDUCTS[behaviour]
        if conduct.is_taken:
            row = await self._accept(order, behaviour)
            known = await journal.take_once(row)
        else:
            known = await journal.count_submission(order.reference)
        if known is not None:
            return _again(order, known)
        if conduct.is_taken:
            row = await self._begin(row, conduct)
        match conduct.answer:
            case Answer.REPORT:
                return report_of(row)
            case Answer.REPORT_LAST:
                return report_of(await self._reported(row))
            case Answer.REJECTION:
                raise BankRejected("invalid_account", "The bank does not know this account")
            case Answer.ERROR:
                raise BankOutcomeUnknown("503 from the bank" if not conduct.is_taken else "500 from the bank")
            case Answer.NOTHING:
                await asyncio.sleep(self._timeout_s)
                raise BankOutcomeUnknown("no answer from the bank in time")

    async def find(self, reference: str) -> BankReport | None:
        await self._require_up()
        row = await journal.find(reference)
        return None if row is None else report_of(row)

    async def statement(self, day: date) -> list[StatementLine]:
        await self._require_up()
        return [
            StatementLine(
                reference=row["_id"],
                kind=OrderKind(row["kind"]),
                is_return=is_return,
                amount=int(moved["amount"]),
                currency=row["currency"],
                bank_reference=moved["bank_reference"],
                booked_at=moved["at"],
            )
            for row, moved, is_return in await journal.find_moved(day)
        ]

    async def _require_up(self) -> None:
        outage = await self.conditions.outage()
        if outage is None:
            return
        if outage.hangs:
            # Longer than anybody waits.
            await asyncio.sleep(self._settings.bank_timeout_s * 2)
        raise BankOutcomeUnknown("503 from the bank: it is down")

    @property
    def _timeout_s(self) -> float:
        """As long as a client would wait, but no longer than the bank's own slowest answer."""
        return min(self._settings.bank_timeout_s, self._settings.bank_delay_max_s)

    async def _accept(self, order: BankOrder, behaviour: Behaviour) -> dict[str, Any]:
        delay_s = random.uniform(self._settings.bank_delay_min_s, self._settings.bank_delay_max_s)  # noqa: S311 no secret
        row = journal_row(order, behaviour, await self.conditions.now(), delay_s, self._settings)
        if (traceparent := current_traceparent()) is not None:
            # As a header of a request would have it; its callbacks bring it back.
            row["traceparent"] = traceparent
        return row

    async def _begin(self, row: dict[str, Any], conduct: Conduct) -> dict[str, Any]:
        """What is executed at once is so before anybody is answered; all else is the worker's."""
        now = await self.conditions.now()
        self._jobs.wake(Job.RUN_BANK, max(0.0, (row["execute_at"] - now).total_seconds()))
        if not conduct.is_executed_at_once:
            return row
        await journal.execute_many([row["_id"]], now)
        return await journal.get(row["_id"])

    async def _reported(self, row: dict[str, Any]) -> dict[str, Any]:
        """The order once its callbacks have gone out, or half of the client's patience later."""
        for _ in range(int(self._timeout_s / 2 / _REPORT_LOOK_S)):
            if not row["reports"]:
                break
            await asyncio.sleep(_REPORT_LOOK_S)
            row = await journal.get(row["_id"])
        return row


def _again(order: BankOrder, row: dict[str, Any]) -> BankReport:
    if (row["amount"], row["currency"], row["account"]) != (order.amount, order.currency, order.account):
        raise BankRejected("reference_reused", "The reference belongs to another order")
    return report_of(row)


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
        kind=OrderKind(row["kind"]),
        account=row["account"],
    )
