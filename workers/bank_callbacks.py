"""The job that applies what the bank reported."""

from typing import Any

from service.gateways.job_queue import Job
from service.services.bank_callbacks import apply_callback, claim_callbacks
from service.startup import Resources
from workers.drain import Drain


def callbacks_drain(resources: Resources) -> Drain[dict[str, Any]]:
    return Drain(
        Job.APPLY_CALLBACKS,
        resources.jobs,
        claim_callbacks,
        lambda row: apply_callback(row, resources.ledger),
        resources.settings.worker_concurrency,
    )


async def apply_callbacks(context: dict[str, Any]) -> None:
    await context["callbacks"].run()
