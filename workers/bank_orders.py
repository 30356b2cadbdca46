"""The job that takes due orders to the bank."""

from typing import Any

from service.domain.outbox import OutboxRow
from service.gateways.job_queue import Job
from service.services.settlement import Desk, claim_orders, pursue_order
from service.startup import Resources
from workers.drain import Drain


def orders_drain(resources: Resources) -> Drain[OutboxRow]:
    settings = resources.settings
    desk = Desk(resources.ledger, resources.bank, settings)
    return Drain(
        Job.SUBMIT_ORDERS,
        resources.jobs,
        lambda limit: claim_orders(limit, settings),
        lambda row: pursue_order(row, desk),
        settings.worker_concurrency,
    )


async def submit_orders(context: dict[str, Any]) -> None:
    await context["orders"].run()
