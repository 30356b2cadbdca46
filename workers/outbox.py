"""The drains that do what is due in the outbox."""

from collections.abc import Callable, Sequence

from service.domain.dead_letters import Queue
from service.domain.outbox import OutboxRow, OutboxTopic
from service.services.dead_letters import Claimed
from service.services.mail_limits import MailLimits
from service.services.outbox import BANK_TOPICS, MAIL_TOPICS, OTHER_TOPICS, claim_rows, pursue_row
from service.services.settlement import Desk
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain


def orders_drain(resources: Resources) -> Drain[OutboxRow]:
    """What goes to the bank."""
    most = resources.settings.worker_concurrency
    return _drain(resources, BANK_TOPICS, lambda: resources.breaker.places(most))


def mails_drain(resources: Resources) -> Drain[OutboxRow]:
    """What ends in a mail."""
    return _drain(resources, MAIL_TOPICS, resources.settings.mail_connections)


def outbox_drain(resources: Resources) -> Drain[OutboxRow]:
    """All the rest."""
    return _drain(resources, OTHER_TOPICS, resources.settings.worker_concurrency)


def _drain(resources: Resources, topics: Sequence[OutboxTopic], hands: int | Callable[[], int]) -> Drain[OutboxRow]:
    settings = resources.settings
    desk = Desk(resources.ledger, resources.bank, resources.mailbox, settings, resources.databases.client)
    desk = desk._replace(mail_limits=MailLimits(resources.rate_limits, settings))
    return Drain(
        Queue.OUTBOX,
        resources.jobs,
        lambda limit: claim_rows(limit, settings, topics),
        lambda row: pursue_row(row, desk),
        hands,
        QueueAftercare(Queue.OUTBOX, resources, lambda row: [Claimed(row.id, row.attempts, row.claim)]),
        resources.clock_watch.is_wrong,
    )
