"""The outbox: what has to happen outside, or later, after a commit; written in that commit."""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from service.domain.operations import Operation


class OutboxTopic(StrEnum):
    # To be taken to the bank, until it has ended.
    BANK_ORDER = "bank_order"
    # A one-time code, to be sent.
    APPROVAL_CODE = "approval_code"
    # Whatever holds money for a time only: to be ended when that is over.
    EXPIRY = "expiry"
    # A settled operation that may earn points.
    REWARD = "reward"
    # A token for a new password, asked for by whoever: whether there is such a person is found out here.
    PASSWORD_RESET = "password_reset"  # noqa: S105 a name
    # Somebody has registered with an address, and whoever reads its mails is asked.
    EMAIL_PROOF = "email_proof"
    # Somebody's password was changed, and they are told.
    PASSWORD_NOTICE = "password_notice"  # noqa: S105 a name
    # Somebody begins with an authenticator app: a code by which the owner of the address agrees.
    FACTOR_CODE = "factor_code"
    # Somebody's second factor was changed or a recovery code used, and they are told.
    FACTOR_NOTICE = "factor_notice"
    # Somebody's endpoint was disabled for its failures, or somebody made or changed one in their name: they are told.
    WEBHOOK_NOTICE = "webhook_notice"
    # A deposit was taken back that somebody's wallet did not cover: they are told.
    OWED_NOTICE = "owed_notice"
    # A return took money out of a hold: its recipient is told.
    HOLD_NOTICE = "hold_notice"


# What ends in a mail.
MAIL_TOPICS: Final = (
    OutboxTopic.APPROVAL_CODE,
    OutboxTopic.PASSWORD_RESET,
    OutboxTopic.EMAIL_PROOF,
    OutboxTopic.PASSWORD_NOTICE,
    OutboxTopic.FACTOR_CODE,
    OutboxTopic.FACTOR_NOTICE,
    OutboxTopic.WEBHOOK_NOTICE,
    OutboxTopic.OWED_NOTICE,
    OutboxTopic.HOLD_NOTICE,
)


class OutboxRow(NamedTuple):
    """A row is worked on when it is due; taking it moves `due_at` on, so that a dead worker's row comes back.

    `attempts` counts how often it was taken, `visits` how often that led to the other side and brought no end;
    `last_outcome` is what the last of those visits came to. `traceparent` is that of the span that called for it, where
    there is one (service/tracing.py). `claim` is that of whoever has taken it: only they may move it on or delete it by
    themselves, since a row of the same id may have been made anew meanwhile.
    """

    id: str
    topic: OutboxTopic
    subject_id: str
    attempts: int
    visits: int
    request_id: str | None
    due_at: datetime
    created_at: datetime
    last_outcome: str | None = None
    traceparent: str | None = None
    claim: str | None = None


def outbox_id(topic: OutboxTopic, subject_id: str) -> str:
    """One row for each topic and subject, so that what ends the subject can name it."""
    return f"{topic.value}:{subject_id}"


def outbox_row(
    topic: OutboxTopic, subject_id: str, request_id: str | None, created_at: datetime, due_at: datetime | None = None
) -> OutboxRow:
    """Due at once, unless it says when."""
    return OutboxRow(
        id=outbox_id(topic, subject_id),
        topic=topic,
        subject_id=subject_id,
        attempts=0,
        visits=0,
        request_id=request_id,
        due_at=due_at or created_at,
        created_at=created_at,
    )


def submission_of(operation: Operation) -> OutboxRow:
    """Returns the order to the bank, due at once; it stays in the outbox until the operation has ended."""
    return outbox_row(OutboxTopic.BANK_ORDER, operation.id, operation.request_id, operation.updated_at)


def bank_order_id(operation_id: str) -> str:
    return outbox_id(OutboxTopic.BANK_ORDER, operation_id)
