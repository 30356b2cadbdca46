"""Dead letters: rows of a queue that no try has brought to an end, put aside for a person."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339


class Queue(StrEnum):
    """What the workers work down."""

    OUTBOX = "outbox"
    # What the bank reported.
    CALLBACKS = "callbacks"
    # What owners are told, until it is dispatched.
    EVENTS = "events"
    # Events on their way to endpoints.
    DELIVERIES = "deliveries"
    # The simulated bank's own orders.
    BANK = "bank"


# What a row of a queue carries of its failures, and of the dead letter that keeps it out of its queue.
FAILURE_FIELDS = ("failures", "first_failed_at", "dead_letter_id")


class DeadLetterState(StrEnum):
    DEAD = "dead"
    # Back in its queue. Where it fails again, it becomes another dead letter.
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetter(NamedTuple):
    """`attempts` counts how often the row was taken, `failures` how often its work raised.

    `row` is what the queue had, where it had nothing but that; a row that stays where it is, because it is a record
    too, is only out of its queue. Neither is shown to anybody.
    """

    id: str
    queue: Queue
    row_id: str
    subject_id: str
    topic: str | None
    error_type: str
    message: str
    attempts: int
    failures: int
    request_id: str | None
    first_failed_at: datetime
    last_failed_at: datetime
    row: Mapping[str, Any]
    state: DeadLetterState = DeadLetterState.DEAD
    # Who replayed or discarded it, when and why.
    ended_by: str | None = None
    ended_at: datetime | None = None
    reason: str | None = None


def dead_letter_view(letter: DeadLetter) -> dict[str, Any]:
    """Returns the dead letter as the API shows it."""
    view = letter._asdict()
    del view["row"]
    return view | {
        "first_failed_at": to_rfc3339(letter.first_failed_at),
        "last_failed_at": to_rfc3339(letter.last_failed_at),
        "ended_at": None if letter.ended_at is None else to_rfc3339(letter.ended_at),
    }
