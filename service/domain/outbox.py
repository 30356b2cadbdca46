"""The outbox: what has to happen outside after a commit, written in that commit."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from service.domain.operations import OperationType


class OutboxTopic(StrEnum):
    BANK_ORDER = "bank_order"


class OutboxRow(NamedTuple):
    """A row is worked on when it is due; taking it moves `due_at` on, so that a dead worker's row comes back.

    `attempts` counts how often it was taken, `visits` how often that led to the other side and brought no end.
    """

    id: str
    topic: OutboxTopic
    subject_type: OperationType
    wallet_id: str
    attempts: int
    visits: int
    request_id: str | None
    due_at: datetime
    created_at: datetime
