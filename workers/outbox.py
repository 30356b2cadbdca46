"""The job that does what is due in the outbox."""

from typing import Any

from service.domain.dead_letters import Queue
from service.domain.outbox import OutboxRow
from service.gateways.job_queue import Job
from service.services.dead_letters import Claimed
from service.services.outbox import claim_rows, pursue_row
from service.services.settlement import Desk
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain


def outbox_drain(resources: Resources) -> Drain[OutboxRow]:
    settings = resources.settings
    desk = Desk(resources.ledger, resources.bank, resources.mailbox, settings, resources.databases.client)
    return Drain(
        Job.DRAIN_OUTBOX,
        resources.jobs,
        lambda limit: claim_rows(limit, settings),
        lambda row: pursue_row(row, desk),
        settings.worker_concurrency,
        QueueAftercare(Queue.OUTBOX, resources, lambda row: Claimed(row.id, row.attempts)),
    )


async def drain_outbox(context: dict[str, Any]) -> None:
    await context["outbox"].run()
