"""Named points at which a process can be told to die, as by `kill -9`: between any two steps that are not one.

`WALLET_CRASH_AT` names one of them; tests use it, and production refuses to start with it. What has to hold: whoever
dies at whichever point, another process brings the matter to the same end.
"""

import os
import sys
from enum import StrEnum
from typing import Final

# Neither Python's own codes nor those of signals.
EXIT_CODE: Final = 113


class CrashPoint(StrEnum):
    """In the order in which a payment passes them."""

    # Anything that changes a balance, in whichever process.
    LEDGER_WRITTEN = "ledger.written"
    LEDGER_COMMITTED = "ledger.committed"
    # The way of an order to the bank.
    OUTBOX_CLAIMED = "outbox.claimed"
    SUBMIT_BEGUN = "submit.begun"
    SUBMIT_ANSWERED = "submit.answered"
    # At the simulated bank, whose worker is ours.
    BANK_EXECUTED = "bank.executed"
    BANK_REPORTED = "bank.reported"
    # What the bank says, however we hear of it.
    SETTLE_REPORTED = "settle.reported"
    SETTLE_COMMITTED = "settle.committed"
    REFUND_REPORTED = "refund.reported"
    REFUND_COMMITTED = "refund.committed"
    RETURN_REPORTED = "return.reported"
    RETURN_COMMITTED = "return.committed"
    # Its callbacks.
    CALLBACK_KEPT = "callback.kept"
    CALLBACK_CLAIMED = "callback.claimed"
    CALLBACK_APPLIED = "callback.applied"
    # What its owner is told.
    EVENT_CLAIMED = "event.claimed"
    EVENT_PUBLISHED = "event.published"
    # The way of an event to somebody's endpoint.
    DELIVERY_CLAIMED = "delivery.claimed"
    DELIVERY_ANSWERED = "delivery.answered"
    # A slice of the replay: nothing is kept yet; all is, but where to go on from.
    REPLAY_READ = "replay.read"
    REPLAY_CHECKED = "replay.checked"


_armed: CrashPoint | None = None


def arm(point: CrashPoint | None) -> None:
    """From here on the process dies where it reaches that point."""
    global _armed  # noqa: PLW0603 one process, one point
    _armed = point


def reach(point: CrashPoint) -> None:
    if _armed is point:
        # No handler, no buffer, no `finally`: as if the power had gone.
        os.write(sys.stderr.fileno(), f"crash_point.reached {point.value}\n".encode())
        os._exit(EXIT_CODE)
