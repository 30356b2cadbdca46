"""Every way in which the bank may behave, times every order in which its callbacks may come: all of them, as data."""

from collections.abc import Iterator
from enum import IntEnum, StrEnum
from itertools import combinations_with_replacement, count, permutations
from typing import NamedTuple

from service.domain.operations import OperationType
from service.gateways.bank_behaviours import Behaviour


class Callback(StrEnum):
    """What may arrive besides the bank's own reports, true or not. None at all is a sequence too: the empty one."""

    SUCCESS = "success"
    FAILED = "failed"
    # The one before it twice more: under its own webhook-id, and under a new one.
    DUPLICATE = "duplicate"
    # The truth, long after everything else.
    LATE = "late"
    WRONG_AMOUNT = "wrong amount"


class Moment(IntEnum):
    """When it arrives. An order is visited three times, and the last time is the last that the bank is asked."""

    BEFORE_THE_ORDER = 0
    # The bank has the order (or has not taken it), and we have no answer yet.
    BEFORE_THE_ANSWER = 1
    AFTER_THE_ANSWER = 2
    # We have asked, and the bank executes the order just now.
    BEFORE_ITS_REPORTS = 3
    AFTER_ITS_REPORTS = 4
    # It was asked for the last time; what is late or comes back days later has been said.
    AT_THE_END = 5


class Outage(StrEnum):
    """Of a bank that is down when the order is first brought there, and up again later."""

    REFUSING = "down with 503"
    HANGING = "down without a word"


class Block(StrEnum):
    """What became of a withdrawal that must not go to the bank any more."""

    NONE = "not blocked"
    # Blocked before it is first brought there; an admin decides then.
    RELEASED = "released"
    CANCELED = "canceled"
    # After it was brought there once. Where the bank does not have it, it stays blocked.
    AFTER_AN_ORDER = "blocked after an order"


class Purse(StrEnum):
    """What becomes of a deposit's money before the bank takes it back."""

    KEPT = "kept"
    SPENT = "spent"
    PARTLY_SPENT = "partly spent"
    # Partly spent, and money comes in after the return: it pays what the wallet owes.
    REFILLED = "partly spent and refilled"


Conduct = Behaviour | Outage

# Returns that are not covered: each pair of callbacks, once.
_LONGEST_SPENT = 2
# Of the sequences up to this length each comes at every moment; longer ones take turns.
_AT_ALL_MOMENTS = 1
LONGEST = 4
KINDS = (OperationType.WITHDRAWAL, OperationType.DEPOSIT)
CONDUCTS: tuple[Conduct, ...] = (*Behaviour, *Outage)


class Arrival(NamedTuple):
    callback: Callback
    moment: Moment


class Scenario(NamedTuple):
    kind: OperationType
    conduct: Conduct
    arrivals: tuple[Arrival, ...]
    block: Block = Block.NONE
    purse: Purse = Purse.KEPT

    def __str__(self) -> str:
        told = ", ".join(f"{arrival.callback} {arrival.moment.name.lower()}" for arrival in self.arrivals)
        return f"{self.kind}, {self.conduct}, {self.block}, {self.purse}, then {told or 'nothing'}"


def scenarios_of(conduct: Conduct, longest: int = LONGEST) -> Iterator[Scenario]:
    """Permutations of the callbacks for both kinds, each at moments that never go back."""
    turn = count()
    for kind in KINDS:
        for length in range(longest + 1):
            moments = list(combinations_with_replacement(Moment, length))
            for order in permutations(Callback, length):
                # A step that has no common divisor with their number comes by all of them.
                chosen = moments if length <= _AT_ALL_MOMENTS else [moments[next(turn) * 5 % len(moments)]]
                # Some come to the same: what is late has one time only, and nothing has none.
                yield from dict.fromkeys(Scenario(kind, conduct, _arrivals(order, times)) for times in chosen)


def blocked_scenarios_of(conduct: Conduct, block: Block) -> Iterator[Scenario]:
    """Withdrawals, each with one callback at most: what the bank may say, at every moment."""
    for scenario in scenarios_of(conduct, longest=1):
        if scenario.kind is OperationType.WITHDRAWAL:
            yield scenario._replace(block=block)


def spent_scenarios_of(conduct: Conduct, purse: Purse) -> Iterator[Scenario]:
    """Deposits, each with two callbacks at most, of owners who spend what comes in."""
    for scenario in scenarios_of(conduct, _LONGEST_SPENT):
        if scenario.kind is OperationType.DEPOSIT:
            yield scenario._replace(purse=purse)


def _arrivals(order: tuple[Callback, ...], times: tuple[Moment, ...]) -> tuple[Arrival, ...]:
    arrivals: list[Arrival] = []
    for callback, moment in zip(order, times, strict=True):
        is_late = callback is Callback.LATE or (bool(arrivals) and arrivals[-1].callback is Callback.LATE)
        earliest = arrivals[-1].moment if arrivals else moment
        arrivals.append(Arrival(callback, Moment.AT_THE_END if is_late else max(moment, earliest)))
    return tuple(arrivals)
