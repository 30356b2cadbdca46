"""For how long a worker takes a row of a queue, or a duty: if the worker dies, others have it after that.

Every lease stands here, so that the repair after a clock that was ahead knows the longest one of each queue.
"""

from typing import Final, assert_never

from service.domain.dead_letters import Queue
from service.settings import Settings

# Longer than applying or dispatching a batch ever takes, shorter than anyone would wait for a dead worker's share.
CALLBACKS_S: Final = 15.0
EVENTS_S: Final = 15.0
# Longer than the simulated bank takes to execute and report a batch: a bank that dies in between comes back to it.
SIMULATED_ORDERS_S: Final = 30.0
# A slice takes a tenth of a second or two on a quiet machine.
REPLAY_S: Final = 30.0
# A statement is no payment: the bank may take its time for it.
STATEMENT_LIMIT_S: Final = 120.0
# A portion takes a fraction of a second; between two, and before each statement, the lease is renewed.
RECONCILIATION_S: Final = STATEMENT_LIMIT_S + 60.0
LONGEST_OF_DUTIES_S: Final = max(REPLAY_S, RECONCILIATION_S)
# Beside sending a delivery: a few round trips to the database, on a bad day.
_NOTING_LIMIT_S: Final = 15.0


def orders_s(settings: Settings) -> float:
    """For a row of the outbox that is no mail: as long as the bank's answer is waited for."""
    return settings.bank_recheck_s


def mails_s(settings: Settings) -> float:
    """Longer than a worker waits: of a mail that is being sent nobody else sends another copy."""
    return max(settings.bank_recheck_s, 1.5 * settings.mail_patience_s)


def deliveries_s(settings: Settings) -> float:
    return settings.webhook_timeout_s + _NOTING_LIMIT_S


def longest_s(queue: Queue, settings: Settings) -> float:
    """The longest lease that a row of this queue may have."""
    match queue:
        case Queue.OUTBOX:
            return max(orders_s(settings), mails_s(settings))
        case Queue.CALLBACKS:
            return CALLBACKS_S
        case Queue.EVENTS:
            return EVENTS_S
        case Queue.DELIVERIES:
            return deliveries_s(settings)
        case Queue.BANK:
            return SIMULATED_ORDERS_S
        case _:
            assert_never(queue)
