"""The drain that sends events to endpoints."""

from service.domain.dead_letters import Queue
from service.domain.webhook_deliveries import WebhookDelivery
from service.services.dead_letters import Claimed
from service.services.webhook_deliveries import Courier
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain


def deliveries_drain(resources: Resources) -> Drain[WebhookDelivery]:
    courier = Courier(resources.databases.client, resources.webhook_client, resources.jobs, resources.settings)
    return Drain(
        Queue.DELIVERIES,
        resources.jobs,
        courier.claim,
        courier.deliver,
        resources.settings.webhook_concurrency,
        QueueAftercare(Queue.DELIVERIES, resources, lambda row: [Claimed(row.id, row.attempts)]),
    )
