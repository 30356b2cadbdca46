"""The drain that applies what the bank reported."""

from typing import Any

from service.domain.dead_letters import Queue
from service.services.bank_callbacks import apply_callback, claim_callbacks
from service.services.dead_letters import Claimed
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain


def callbacks_drain(resources: Resources) -> Drain[dict[str, Any]]:
    return Drain(
        Queue.CALLBACKS,
        resources.jobs,
        claim_callbacks,
        lambda row: apply_callback(row, resources.ledger),
        resources.settings.worker_concurrency,
        QueueAftercare(Queue.CALLBACKS, resources, lambda row: [Claimed(row["_id"], row["attempts"])]),
        resources.clock_watch.is_wrong,
    )
