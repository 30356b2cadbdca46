"""The job that sends events to endpoints."""

from typing import Any

from service.domain.dead_letters import Queue
from service.domain.webhook_deliveries import WebhookDelivery
from service.gateways.job_queue import Job
from service.services.dead_letters import Claimed
from service.services.webhook_deliveries import Courier
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain


def deliveries_drain(resources: Resources) -> Drain[WebhookDelivery]:
    courier = Courier(resources.databases.client, resources.webhook_client, resources.jobs, resources.settings)
    return Drain(
        Job.DELIVER_WEBHOOKS,
        resources.jobs,
        courier.claim,
        courier.deliver,
        resources.settings.webhook_concurrency,
        QueueAftercare(Queue.DELIVERIES, resources, lambda row: [Claimed(row.id, row.attempts)]),
    )


async def deliver_webhooks(context: dict[str, Any]) -> None:
    await context["deliveries"].run()
