"""On paper: what has to become of an order, by the rules alone.

- What has ended never changes again. Whatever contradicts it is an incident, and moves no money.
- Nothing is known of an order before it was brought there: who speaks of it then speaks of something else.
- No answer is no outcome. Money that is set aside stays so until the bank has said what became of it.
- Another amount than ours is for a person to look at; the bank's later word about ours still ends it.
- A return takes what the wallet has. What is missing is owed, and whatever comes in pays it.
- What has come back and is settled once more is a dispute that was won: an incident, and people credit it.
- The bank's own journal moves money once for each reference, whatever is said.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from service.domain.operations import OperationType
from service.gateways.bank_behaviours import Behaviour
from tests.bank.scenarios import Block, Callback, Conduct, Moment, Outage, Purse, Scenario


class Truth(StrEnum):
    """What the bank does with the order in the end."""

    PAID = "paid"
    DECLINED = "declined"
    NEVER_HAD = "never had it"


class Answers(StrEnum):
    """What we get for bringing it there."""

    ACCEPTED = "accepted"
    PAID = "paid"
    REFUSED = "refused"
    NOTHING = "nothing"


class Manner(NamedTuple):
    truth: Truth = Truth.PAID
    answers: Answers = Answers.ACCEPTED
    # The bank has done it before it answers.
    is_at_once: bool = False
    # Its own reports: those that come at their time, and those that come when it is late or days have gone by.
    reports: tuple[str, ...] = ("truth",)
    late_reports: tuple[str, ...] = ()
    comes_back: bool = False


_DECLINED = Manner(Truth.DECLINED)
_NEVER = Manner(Truth.NEVER_HAD, Answers.NOTHING, reports=())

# Written down once more, from what CREDENTIALS.md says of each.
MANNERS: dict[Conduct, Manner] = {
    Behaviour.SUCCESS: Manner(),
    Behaviour.DECLINE: _DECLINED,
    Behaviour.INSUFFICIENT_FUNDS: _DECLINED,
    Behaviour.INVALID_ACCOUNT: Manner(Truth.NEVER_HAD, Answers.REFUSED, reports=()),
    Behaviour.UNAVAILABLE: _NEVER,
    Behaviour.TIMEOUT: _NEVER,
    Behaviour.TIMEOUT_AFTER_ACCEPTING: Manner(answers=Answers.NOTHING),
    Behaviour.PAID_500: Manner(answers=Answers.NOTHING, is_at_once=True),
    Behaviour.SILENT: Manner(reports=()),
    Behaviour.SILENT_DECLINE: Manner(Truth.DECLINED, reports=()),
    Behaviour.CALLBACK_FIRST: Manner(answers=Answers.PAID, is_at_once=True),
    Behaviour.DUPLICATE: Manner(reports=("truth", "truth")),
    Behaviour.DUPLICATE_ANEW: Manner(reports=("truth", "truth")),
    Behaviour.LATE: Manner(reports=(), late_reports=("truth",)),
    Behaviour.SUCCESS_THEN_FAILED: Manner(late_reports=("opposite",)),
    Behaviour.FAILED_THEN_SUCCESS: Manner(Truth.DECLINED, late_reports=("opposite",)),
    Behaviour.OTHER_AMOUNT: Manner(reports=("other amount",)),
    Behaviour.UNKNOWN_REFERENCE: Manner(reports=("other reference", "truth")),
    Behaviour.RETURNED: Manner(late_reports=("return",), comes_back=True),
    Behaviour.OUT_OF_ORDER: Manner(reports=("return",), late_reports=("truth",), comes_back=True),
    Outage.REFUSING: Manner(),
    Outage.HANGING: Manner(),
}
_OPEN = ("pending", "processing")
_ENTRIES = {
    OperationType.WITHDRAWAL: {
        "success": ("WITHDRAWAL", "WITHDRAWAL_SETTLEMENT"),
        "failed": ("WITHDRAWAL", "WITHDRAWAL_REFUND"),
        "canceled": ("WITHDRAWAL", "WITHDRAWAL_REFUND"),
        "requires_review": ("WITHDRAWAL",),
        "blocked": ("WITHDRAWAL",),
    },
    OperationType.DEPOSIT: {
        "success": ("DEPOSIT",),
        "failed": (),
        "requires_review": (),
    },
}
_RETURNED = {OperationType.WITHDRAWAL: ("WITHDRAWAL_RETURN",), OperationType.DEPOSIT: ("DEPOSIT_RETURN",)}
# Of a return that the wallet cannot cover: its status in the end, and in how many parts it was collected.
_COLLECTED = {Purse.SPENT: ("owed", 0), Purse.PARTLY_SPENT: ("owed", 1), Purse.REFILLED: ("success", 2)}


class Ending(NamedTuple):
    """What can be seen of an order in the end: here, and in the bank's journal."""

    status: str
    entries: tuple[str, ...]
    incidents: tuple[str, ...]
    # Of its return; None where it has none.
    return_status: str | None
    # How the order ended in the journal; None where it was never taken.
    at_the_bank: str | None
    paid: int
    came_back: int

    @property
    def breaches(self) -> tuple[str, ...]:
        """What check-ledger has to say. It has nothing to say of what people see to already."""
        if self.incidents or self.status == "requires_review":
            return ()
        found = []
        if self.status == "success" and not self.paid:
            found.append("payment_missing")
        if self.status == "failed" and self.paid:
            found.append("payment_surplus")
        if self.at_the_bank not in (None, self.status):
            found.append("order_state")
        return tuple(found)


@dataclass
class _Order:
    """As it stands here. Incidents by the words that were said: said once more, they are the same incident."""

    status: str = "pending"
    is_brought: bool = False
    incidents: dict[str, str] = field(default_factory=dict)
    is_returned: bool = False
    return_waits: bool = False
    # Its owner had spent the money before it was returned.
    is_spent: bool = False

    def hear(self, said: str, *, is_ours: bool = True, words: str = "") -> None:
        """`words` tells apart what says the same otherwise."""
        words = f"{said} {is_ours} {words}"
        if not self.is_brought:
            self.incidents.setdefault(words, "never_submitted")
        elif self.is_returned and said == "success":
            # It had come back; that it is there again is no repetition.
            self.incidents.setdefault(words, "settled_after_return")
        elif self.status == said:
            if not is_ours:
                self.incidents.setdefault(words, "other_amount")
        elif self.status in ("success", "failed"):
            kind = "success_after_failure" if said == "success" else "failure_after_success"
            self.incidents.setdefault(words, kind)
        else:
            self.status = said if is_ours else "requires_review"

    def hear_of_return(self) -> None:
        if self.status == "success":
            self.is_returned = True
        elif self.status == "failed":
            self.incidents.setdefault("return", "return_of_unsettled")
        else:
            self.return_waits = True

    def book_what_waits(self) -> None:
        """Between two moments."""
        self.is_returned = self.is_returned or (self.return_waits and self.status == "success")

    def wait_no_longer(self) -> None:
        """What came too early is looked at once more in the end."""
        if self.return_waits and self.status == "success":
            self.is_returned = True
        elif self.return_waits:
            self.incidents.setdefault("return", "return_of_unsettled")

    def spend(self, purse: Purse) -> None:
        self.is_spent = purse is not Purse.KEPT and self.status == "success" and not self.is_returned

    def end_of_return(self, kind: OperationType, purse: Purse) -> tuple[str | None, tuple[str, ...]]:
        """The status of its return, and the entries for what was collected."""
        if not self.is_returned:
            return None, ()
        if not self.is_spent:
            return "success", _RETURNED[kind]
        status, parts = _COLLECTED[purse]
        self.incidents["return"] = "return_not_booked"
        return status, _RETURNED[kind] * parts


def ending_of(scenario: Scenario) -> Ending:
    manner, order = MANNERS[scenario.conduct], _Order()
    is_taken = manner.truth is not Truth.NEVER_HAD
    truth = "success" if manner.truth is Truth.PAID else "failed"
    _arrive(scenario, Moment.BEFORE_THE_ORDER, truth, order)
    if scenario.block is Block.CANCELED:
        # It is never brought there, so that there is no answer that anything could come before.
        order.status, is_taken = "canceled", False
    else:
        _bring(scenario, manner, order)
    _arrive(scenario, Moment.AFTER_THE_ANSWER, truth, order)
    is_at_the_bank = is_taken and not isinstance(scenario.conduct, Outage)
    if scenario.block is Block.AFTER_AN_ORDER and order.status in _OPEN and not is_at_the_bank:
        order.status, is_taken = "blocked", False
    if isinstance(scenario.conduct, Outage) and order.status not in _OPEN:
        # Ended by a callback before the bank was up again: it is never brought there.
        is_taken = False
    if order.status in _OPEN and manner.is_at_once:
        order.hear(truth, words="bnk")
    _arrive(scenario, Moment.BEFORE_ITS_REPORTS, truth, order)
    for report in manner.reports if is_taken else ():
        _report(report, truth, order)
    order.book_what_waits()
    _arrive(scenario, Moment.AFTER_ITS_REPORTS, truth, order)
    if order.status in _OPEN:
        # It is asked for the last time. Who never had the order is as silent as before.
        if not is_taken:
            order.status = "requires_review"
        else:
            order.hear(truth, words="bnk")
    order.spend(scenario.purse)
    for report in manner.late_reports if is_taken else ():
        _report(report, truth, order)
    order.book_what_waits()
    _arrive(scenario, Moment.AT_THE_END, truth, order)
    order.wait_no_longer()
    return_status, collections = order.end_of_return(scenario.kind, scenario.purse)
    entries = Counter((*_ENTRIES[scenario.kind][order.status], *collections))
    return Ending(
        order.status,
        tuple(sorted(entries.elements())),
        tuple(sorted(order.incidents.values())),
        return_status,
        at_the_bank=truth if is_taken else None,
        paid=int(is_taken and manner.truth is Truth.PAID),
        came_back=int(is_taken and manner.comes_back),
    )


def _bring(scenario: Scenario, manner: Manner, order: _Order) -> None:
    order.status, order.is_brought = "processing", True
    truth = "success" if manner.truth is Truth.PAID else "failed"
    _arrive(scenario, Moment.BEFORE_THE_ANSWER, truth, order)
    if manner.answers is Answers.REFUSED and order.status != "requires_review":
        # Where a person has to look already, it is one more thing to look at.
        order.hear("failed", words="refused")
    elif manner.answers is Answers.PAID:
        order.hear("success", words="bnk")


def _report(report: str, truth: str, order: _Order) -> None:
    opposite = "failed" if truth == "success" else "success"
    match report:
        case "truth":
            order.hear(truth, words="bnk")
        case "opposite":
            order.hear(opposite, words="bnk")
        case "other amount":
            order.hear(truth, is_ours=False, words="bnk")
        case "return":
            order.hear_of_return()
        case "other reference":
            # Of nobody's order, and so no matter of this one.
            pass


def _arrive(scenario: Scenario, moment: Moment, truth: str, order: _Order) -> None:
    # A duplicate of nothing is a success, the first of its kind.
    last = Callback.SUCCESS
    for arrival in scenario.arrivals:
        if arrival.callback is not Callback.DUPLICATE:
            last = arrival.callback
        if arrival.moment is moment:
            match last:
                case Callback.SUCCESS:
                    order.hear("success")
                case Callback.FAILED:
                    order.hear("failed")
                case Callback.WRONG_AMOUNT:
                    order.hear("success", is_ours=False)
                case Callback.LATE:
                    order.hear(truth)
                case _:
                    pass
    order.book_what_waits()
