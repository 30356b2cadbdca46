"""What the simulated bank may do with an order: each behaviour, and the plan that follows from it, without any I/O.

One rule holds for all: the journal, `find` and the statement tell the truth. Answers get lost, and callbacks may lie.
"""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from bson.int64 import Int64
from uuid_utils import uuid4

from service.domain.money import MAX_AMOUNT_MINOR
from service.gateways.bank import BankOrder, BankState
from service.settings import Settings


class Behaviour(StrEnum):
    """Also the ending of an account's name that forces it, and its name in WALLET_BANK_RATES."""

    SUCCESS = "success"
    DECLINE = "decline"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    INVALID_ACCOUNT = "invalid-account"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    TIMEOUT_AFTER_ACCEPTING = "timeout-after"
    PAID_500 = "paid-500"
    SILENT = "silent"
    SILENT_DECLINE = "silent-decline"
    CALLBACK_FIRST = "callback-first"
    DUPLICATE = "duplicate"
    DUPLICATE_ANEW = "duplicate-anew"
    LATE = "late"
    SUCCESS_THEN_FAILED = "success-then-failed"
    FAILED_THEN_SUCCESS = "failed-then-success"
    OTHER_AMOUNT = "other-amount"
    UNKNOWN_REFERENCE = "unknown-reference"
    RETURNED = "returned"
    OUT_OF_ORDER = "out-of-order"


class Answer(StrEnum):
    """What whoever submits an order gets."""

    REPORT = "report"
    # The same, but only once the callbacks that are due have gone out.
    REPORT_LAST = "report_last"
    REJECTION = "rejection"
    ERROR = "error"
    NOTHING = "nothing"


class Says(StrEnum):
    """What a callback claims."""

    TRUTH = "truth"
    OPPOSITE = "opposite"
    OTHER_AMOUNT = "other_amount"
    OTHER_REFERENCE = "other_reference"
    RETURN = "return"


class Word(NamedTuple):
    """A callback. `is_again`: under the webhook-id of the one before; `is_late`: WALLET_BANK_LATE_S after its time."""

    says: Says = Says.TRUTH
    is_late: bool = False
    is_again: bool = False


class Return(StrEnum):
    """When the bank pays back what it has paid."""

    LATER = "later"
    AT_ONCE = "at_once"


class Failure(NamedTuple):
    code: str
    message: str


_DECLINED: Final = Failure("declined", "The bank declined the order")
_UNCOVERED: Final = Failure("insufficient_funds", "The account at the bank does not cover the amount")


class Conduct(NamedTuple):
    """By default the order is taken, executed when its time has come and then reported, once."""

    answer: Answer = Answer.REPORT
    # What is not taken never enters the journal.
    is_taken: bool = True
    is_executed_at_once: bool = False
    failure: Failure | None = None
    returns: Return | None = None
    words: tuple[Word, ...] = (Word(),)


CONDUCTS: Final[Mapping[Behaviour, Conduct]] = {
    Behaviour.SUCCESS: Conduct(),
    Behaviour.DECLINE: Conduct(failure=_DECLINED),
    Behaviour.INSUFFICIENT_FUNDS: Conduct(failure=_UNCOVERED),
    Behaviour.INVALID_ACCOUNT: Conduct(Answer.REJECTION, is_taken=False),
    Behaviour.UNAVAILABLE: Conduct(Answer.ERROR, is_taken=False),
    Behaviour.TIMEOUT: Conduct(Answer.NOTHING, is_taken=False),
    Behaviour.TIMEOUT_AFTER_ACCEPTING: Conduct(Answer.NOTHING),
    Behaviour.PAID_500: Conduct(Answer.ERROR, is_executed_at_once=True),
    Behaviour.SILENT: Conduct(words=()),
    Behaviour.SILENT_DECLINE: Conduct(failure=_DECLINED, words=()),
    Behaviour.CALLBACK_FIRST: Conduct(Answer.REPORT_LAST, is_executed_at_once=True),
    Behaviour.DUPLICATE: Conduct(words=(Word(), Word(is_again=True))),
    Behaviour.DUPLICATE_ANEW: Conduct(words=(Word(), Word())),
    Behaviour.LATE: Conduct(words=(Word(is_late=True),)),
    Behaviour.SUCCESS_THEN_FAILED: Conduct(words=(Word(), Word(Says.OPPOSITE, is_late=True))),
    Behaviour.FAILED_THEN_SUCCESS: Conduct(failure=_DECLINED, words=(Word(), Word(Says.OPPOSITE, is_late=True))),
    Behaviour.OTHER_AMOUNT: Conduct(words=(Word(Says.OTHER_AMOUNT),)),
    Behaviour.UNKNOWN_REFERENCE: Conduct(words=(Word(Says.OTHER_REFERENCE), Word())),
    Behaviour.RETURNED: Conduct(returns=Return.LATER, words=(Word(), Word(Says.RETURN))),
    Behaviour.OUT_OF_ORDER: Conduct(returns=Return.AT_ONCE, words=(Word(Says.RETURN), Word(is_late=True))),
}

# The longest first: some end like others.
_ENDINGS: Final = {f"-{one.value}": one for one in sorted(Behaviour, key=lambda one: len(one.value), reverse=True)}
_RETURN_CODE: Final = "account_closed"
_RETURN_MESSAGE: Final = "The other side's bank sent the money back"


class Habits:
    """Which behaviour an account meets that forces none: the rates in the settings. Raises ValueError for bad ones."""

    def __init__(self, settings: Settings) -> None:
        unknown = settings.bank_rates.keys() - set(Behaviour)
        if unknown:
            raise ValueError(f"WALLET_BANK_RATES: the bank knows no {', '.join(sorted(unknown))}")
        rates: dict[Behaviour, float] = {
            # Half of all timeouts happen after the bank has taken the order: the dangerous half.
            Behaviour.TIMEOUT: settings.bank_timeout_rate / 2,
            Behaviour.TIMEOUT_AFTER_ACCEPTING: settings.bank_timeout_rate / 2,
            Behaviour.UNAVAILABLE: settings.bank_error_rate,
        }
        for name, rate in settings.bank_rates.items():
            rates[Behaviour(name)] = rates.get(Behaviour(name), 0.0) + rate
        rest = 1.0 - sum(rates.values())
        if rest < 0:
            raise ValueError("WALLET_BANK_RATES, _TIMEOUT_RATE and _ERROR_RATE together are above 1")
        declined = rest * (1.0 - settings.bank_success_rate)
        for behaviour, rate in (
            (Behaviour.SUCCESS, rest - declined),
            (Behaviour.DECLINE, declined / 2),
            (Behaviour.INSUFFICIENT_FUNDS, declined / 2),
        ):
            rates[behaviour] = rates.get(behaviour, 0.0) + rate
        self._behaviours, self._weights = tuple(rates), tuple(rates.values())

    def behaviour(self, account: str) -> Behaviour:
        for ending, behaviour in _ENDINGS.items():
            if account.endswith(ending):
                return behaviour
        return random.choices(self._behaviours, self._weights)[0]  # noqa: S311 no secret


def journal_row(
    order: BankOrder, behaviour: Behaviour, now: datetime, delay_s: float, settings: Settings
) -> dict[str, Any]:
    """An order that the bank takes, with all that will come of it: `reports` is what it will say, when, under which
    webhook-id, so that whoever works on it next can go on wherever another died.
    """
    conduct = CONDUCTS[behaviour]
    failure = conduct.failure
    execute_at = now if conduct.is_executed_at_once else now + timedelta(seconds=delay_s)
    row: dict[str, Any] = {
        "_id": order.reference,
        "kind": order.kind.value,
        "amount": Int64(order.amount),
        "currency": order.currency,
        "account": order.account,
        "behaviour": behaviour.value,
        "state": BankState.ACCEPTED.value,
        "bank_reference": f"bnk_{uuid4().hex}",
        "outcome": (BankState.SUCCESS if failure is None else BankState.FAILED).value,
        "failure_code": None if failure is None else failure.code,
        "failure_message": None if failure is None else failure.message,
        # One row for each time that money moved, there and back.
        "payments": [],
        "returns": [],
        "submissions": 1,
        "attempts": 0,
        "created_at": now,
        "execute_at": execute_at,
        "executed_at": None,
        "return_at": None,
        "return_reference": None,
    }
    if conduct.returns is not None:
        later_s = settings.bank_return_after_s if conduct.returns is Return.LATER else 0.0
        row["return_at"] = execute_at + timedelta(seconds=later_s)
        row["return_reference"] = f"bnk_{uuid4().hex}"
    row["reports"] = _reports(row, conduct, settings)
    row["due_at"] = execute_at
    return row


def _reports(row: dict[str, Any], conduct: Conduct, settings: Settings) -> list[dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    for word in conduct.words:
        due_at = row["return_at"] if word.says is Says.RETURN else row["execute_at"]
        if word.is_late:
            due_at += timedelta(seconds=settings.bank_late_s)
        webhook_id = f"msg_{row['_id']}" if not reports else f"msg_{row['_id']}_{len(reports) + 1}"
        reports.append(
            {
                "webhook_id": reports[-1]["webhook_id"] if word.is_again else webhook_id,
                "due_at": due_at,
                "payload": payload_of(row, word.says),
            }
        )
    return reports


def payload_of(row: dict[str, Any], says: Says) -> dict[str, Any]:
    """The body of a callback about an order."""
    about = {"reference": row["_id"], "amount": row["amount"], "currency": row["currency"]}
    if says is Says.RETURN:
        told = {"return_code": _RETURN_CODE, "return_message": _RETURN_MESSAGE}
        return {"type": "payment.returned", **about, "bank_reference": row["return_reference"], **told}
    is_paid = (row["outcome"] == BankState.SUCCESS) is not (says is Says.OPPOSITE)
    failure = Failure(row["failure_code"], row["failure_message"]) if row["failure_code"] else _DECLINED
    payload = {
        "type": "payment.settled",
        **about,
        "status": (BankState.SUCCESS if is_paid else BankState.FAILED).value,
        "bank_reference": row["bank_reference"],
        "failure_code": None if is_paid else failure.code,
        "failure_message": None if is_paid else failure.message,
    }
    if says is Says.OTHER_AMOUNT:
        other = row["amount"] + 1 if row["amount"] < MAX_AMOUNT_MINOR else row["amount"] - 1
        payload["amount"] = Int64(other)
    if says is Says.OTHER_REFERENCE:
        prefix = row["_id"].partition("_")[0]
        payload["reference"] = f"{prefix}_{uuid4().hex}"
    return payload


def paid_row(order: BankOrder, now: datetime, settings: Settings) -> dict[str, Any]:
    """An order that was paid at once, with nothing left to report: whoever enters it tells the ledger."""
    row = journal_row(order, Behaviour.SUCCESS, now, 0.0, settings)
    del row["due_at"]
    payment = {"at": now, "amount": row["amount"], "bank_reference": row["bank_reference"]}
    return {**row, "state": row["outcome"], "executed_at": now, "payments": [payment], "reports": []}


class Progress(NamedTuple):
    """What is due of an order: to be executed, to be paid back, to be said."""

    executes: bool
    returns: bool
    reports: list[dict[str, Any]]


def progress_of(row: dict[str, Any], now: datetime) -> Progress:
    return Progress(
        executes=row["executed_at"] is None and row["execute_at"] <= now,
        returns=row["return_at"] is not None and not row["returns"] and row["return_at"] <= now,
        reports=[report for report in row["reports"] if report["due_at"] <= now],
    )


def next_due(row: dict[str, Any], now: datetime) -> datetime | None:
    """When there will be more to do, once all that `progress_of` tells is done; None where that was all."""
    times = [report["due_at"] for report in row["reports"]]
    times += [at for at in (row["execute_at"], row["return_at"]) if at is not None]
    return min((at for at in times if at > now), default=None)
