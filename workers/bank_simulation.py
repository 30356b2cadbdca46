"""The simulated bank at work: executes the orders that are due and reports each by a signed callback."""

from typing import Any

import httpx
import orjson
import structlog
from standardwebhooks.webhooks import Webhook

from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.gateways.bank import BankState
from service.gateways.job_queue import Job
from service.gateways.simulated_bank import report_of
from service.repositories import bank_orders as journal
from service.services.dead_letters import Claimed
from service.settings import Settings
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain

log = structlog.get_logger()

# Longer than executing and reporting ever take: a bank that dies in between comes back to the order.
_LEASE_S = 15.0
_RETRY_FIRST_S = 1.0
_RETRY_MAX_S = 60.0
_DOUBLINGS = 10


def bank_drain(resources: Resources, http: httpx.AsyncClient) -> Drain[dict[str, Any]]:
    settings = resources.settings
    return Drain(
        Job.RUN_BANK,
        resources.jobs,
        lambda limit: journal.claim(now=utc_now(), lease_s=_LEASE_S, limit=limit),
        lambda order: _execute_and_report(order, http, settings),
        settings.worker_concurrency,
        QueueAftercare(Queue.BANK, resources, lambda row: Claimed(row["_id"], row["attempts"])),
    )


async def run_bank(context: dict[str, Any]) -> None:
    await context["bank"].run()


async def _execute_and_report(order: dict[str, Any], http: httpx.AsyncClient, settings: Settings) -> None:
    executed = await journal.execute(order, utc_now())
    try:
        response = await http.post(settings.bank_callback_url, **signed_callback(executed, settings))
        response.raise_for_status()
    except httpx.HTTPError as error:
        delay_s = min(_RETRY_MAX_S, _RETRY_FIRST_S * 2 ** min(order["attempts"], _DOUBLINGS))
        log.warning("bank_simulation.callback_not_taken", reference=order["_id"], error=repr(error))
        await journal.report_later(order["_id"], utc_now(), delay_s)
    else:
        await journal.mark_reported(order["_id"])


def signed_callback(order: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Body and headers as Standard Webhooks 1.0.0 has them. A repeated report keeps its id, so that it counts once."""
    report = report_of(order)
    assert report.state is not BankState.ACCEPTED, "only what has ended is reported"  # noqa: S101 the simulation's own rule
    payload = {
        "type": "payment.settled",
        "reference": report.reference,
        "status": report.state,
        "amount": report.amount,
        "currency": report.currency,
        "bank_reference": report.bank_reference,
        "failure_code": report.failure_code,
        "failure_message": report.failure_message,
    }
    body = orjson.dumps(payload)
    callback_id = f"msg_{report.reference}"
    now = utc_now()
    signature = Webhook(settings.bank_webhook_secret.get_secret_value()).sign(callback_id, now, body.decode())
    headers = {
        "content-type": "application/json",
        "webhook-id": callback_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    return {"content": body, "headers": headers}
