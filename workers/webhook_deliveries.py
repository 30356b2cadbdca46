"""The job that sends events to endpoints."""

from typing import Any

from service.domain.webhook_deliveries import WebhookDelivery
from service.gateways.job_queue import Job
from service.services.webhook_deliveries import Courier
from service.startup import Resources
from workers.drain import Drain


def deliveries_drain(resources: Resources) -> Drain[WebhookDelivery]:
    courier = Courier(resources.databases.client, resources.webhook_client, resources.jobs, resources.settings)
    return Drain(
        Job.DELIVER_WEBHOOKS,
        resources.jobs,
        courier.claim,
        courier.deliver,
        resources.settings.webhook_concurrency,
    )


async def deliver_webhooks(context: dict[str, Any]) -> None:
    await context["deliveries"].run()
