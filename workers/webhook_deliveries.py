"""The drain that sends events to endpoints."""

from service.domain.dead_letters import Queue
from service.domain.webhook_deliveries import WebhookDelivery
from service.gateways.webhook_client import WebhookClient
from service.services.dead_letters import Claimed
from service.services.webhook_courier import Courier
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain


def deliveries_drain(resources: Resources) -> Drain[WebhookDelivery]:
    webhooks = WebhookClient(resources.webhook_addresses, resources.settings.webhook_timeout_s)
    courier = Courier(resources.databases.client, webhooks, resources.jobs, resources.settings, resources.rate_limits)
    return Drain(
        Queue.DELIVERIES,
        resources.jobs,
        courier.claim,
        courier.deliver,
        resources.settings.webhook_concurrency,
        QueueAftercare(Queue.DELIVERIES, resources, lambda row: [Claimed(row.id, row.attempts)]),
        resources.clock_watch.is_wrong,
    )
