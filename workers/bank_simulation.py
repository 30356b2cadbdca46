"""The simulated bank at work: executes what is due, pays back, and reports by signed callbacks; in batches."""

from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog
from standardwebhooks.webhooks import Webhook

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.dead_letters import Queue
from service.gateways.bank_behaviours import Progress, next_due, progress_of
from service.gateways.bank_conditions import BankConditions
from service.gateways.callback_lines import CallbackLines, Post, Trouble
from service.repositories import bank_orders as journal
from service.services import leases
from service.services.dead_letters import Claimed
from service.services.retries import retry_delay_s
from service.settings import Settings
from service.startup import Resources
from workers.aftercare import QueueAftercare
from workers.drain import Drain

log = structlog.get_logger()

_BATCH = 128
# While one batch is reported, the next is executed.
_BATCHES_AT_ONCE = 2
_RETRY_MAX_S = 60.0

Order = dict[str, Any]


class BankWork:
    """Whatever is done here twice, since a worker died or was slow, is done once in the journal and said twice."""

    def __init__(self, settings: Settings) -> None:
        self.conditions = BankConditions(settings)
        self.lines = CallbackLines(settings.bank_callback_url)
        self._webhook = Webhook(settings.bank_webhook_secret.get_secret_value())

    async def claim(self, limit: int) -> list[list[Order]]:
        """One batch of orders, or none; a bank that is down does nothing at all."""
        if limit == 0 or await self.conditions.outage() is not None:
            return []
        orders = await journal.claim(now=await self.conditions.now(), lease_s=leases.SIMULATED_ORDERS_S, limit=_BATCH)
        return [orders] if orders else []

    async def work(self, orders: list[Order]) -> None:
        now = await self.conditions.now()
        progress = {order["_id"]: progress_of(order, now) for order in orders}
        await _move_money(progress, now)
        reach(CrashPoint.BANK_EXECUTED)
        series = [
            [self.signed(report, order.get("traceparent")) for report in progress[order["_id"]].reports]
            for order in orders
        ]
        troubles = await self.lines.post_all(series)
        reach(CrashPoint.BANK_REPORTED)
        left = [
            _left_of(order, progress[order["_id"]], told, now) for order, told in zip(orders, troubles, strict=True)
        ]
        await journal.put_back(left, orders[0]["claim"])

    def signed(self, report: dict[str, Any], traceparent: str | None = None) -> Post:
        """As Standard Webhooks 1.0.0 has it, at the receiver's time. Repeated, it keeps its id: it counts once."""
        body = orjson.dumps(report["payload"])

        def sign() -> dict[str, str]:
            now = utc_now()
            headers = {
                "content-type": "application/json",
                "webhook-id": report["webhook_id"],
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._webhook.sign(report["webhook_id"], now, body.decode()),
            }
            return headers if traceparent is None else headers | {"traceparent": traceparent}

        return Post(sign, body)

    def close(self) -> None:
        self.lines.close()


def bank_drain(resources: Resources, work: BankWork) -> Drain[list[Order]]:
    aftercare = QueueAftercare[list[Order]](
        Queue.BANK, resources, lambda orders: [Claimed(order["_id"], order["attempts"]) for order in orders]
    )
    return Drain(
        Queue.BANK, resources.jobs, work.claim, work.work, _BATCHES_AT_ONCE, aftercare, resources.clock_watch.is_wrong
    )


async def _move_money(progress: dict[str, Progress], now: datetime) -> None:
    """What is executed and paid back at once is so in this order."""
    executed = [reference for reference, due in progress.items() if due.executes]
    returned = [reference for reference, due in progress.items() if due.returns]
    if executed:
        await journal.execute_many(executed, now)
    if returned:
        await journal.return_many(returned, now)


def _left_of(order: Order, progress: Progress, troubles: list[Trouble], now: datetime) -> journal.Left:
    """What was not taken is said again later, and with it all that was to follow it."""
    unsaid = [report for report, trouble in zip(progress.reports, troubles, strict=True) if trouble is not None]
    later = [report for report in order["reports"] if report["due_at"] > now]
    due_at = next_due(order, now)
    if unsaid:
        retry_at = now + timedelta(seconds=retry_delay_s(order["attempts"] - 1, _RETRY_MAX_S))
        due_at = retry_at if due_at is None else min(due_at, retry_at)
        trouble = next(filter(None, troubles))
        log.warning("bank_simulation.callback_not_taken", reference=order["_id"], error=trouble)
    taken = [report for report in progress.reports if report not in unsaid]
    said = [str(report["webhook_id"]) for report in taken if report["payload"]["reference"] == order["_id"]]
    return journal.Left(order["_id"], said, [*unsaid, *later], due_at)
