"""The job that applies what the bank reported."""

from typing import Any

from service.gateways.job_queue import Job
from service.services.bank_callbacks import apply_due_callbacks
from workers.drain import drain


async def apply_callbacks(context: dict[str, Any]) -> None:
    resources = context["resources"]
    await drain(lambda: apply_due_callbacks(resources.ledger), Job.APPLY_CALLBACKS, resources.jobs)
