"""The job that takes due orders to the bank."""

from typing import Any

from service.gateways.job_queue import Job
from service.services.settlement import pursue_due_orders
from workers.drain import drain


async def submit_orders(context: dict[str, Any]) -> None:
    await drain(lambda: pursue_due_orders(context["desk"]), Job.SUBMIT_ORDERS, context["resources"].jobs)
