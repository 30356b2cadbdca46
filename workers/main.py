"""arq's settings: which jobs there are, and what a worker opens and closes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, ClassVar, cast

import structlog
import uvloop
from arq.connections import RedisSettings
from arq.typing import WorkerCoroutine
from arq.worker import Function, func

from service.gateways.job_queue import Job, deserialize_job, redis_settings, serialize_job
from service.log import set_up_logging
from service.settings import get_settings
from service.startup import open_resources
from workers.account_sums import close_hours_for_ever
from workers.bank_callbacks import apply_callbacks, callbacks_drain
from workers.bank_simulation import BankWork, bank_drain, run_bank
from workers.checkpoints import take_checkpoints_for_ever
from workers.events import dispatch_events, events_drain
from workers.outbox import drain_outbox, orders_drain, outbox_drain
from workers.reconciliation import reconcile_for_ever
from workers.replay import replay_for_ever
from workers.sweep import sweep_for_ever
from workers.webhook_deliveries import deliver_webhooks, deliveries_drain

log = structlog.get_logger()

# Half of what a worker does is reading and writing sockets. Here, because arq makes the loop as soon as it has read
# the settings below.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

Task = Callable[[dict[str, Any]], Awaitable[None]]

_DRAINS = ("callbacks", "orders", "outbox", "events", "deliveries", "bank")

# Twice the time in which a job starts rounds of work (workers/drain.py).
_JOB_TIMEOUT_S = 60
_SHUTDOWN_S = 15
# Up to a second apart, so about ten minutes: a Redis that restarts or moves must not end the workers.
_REDIS_RETRIES = 600


async def _on_startup(context: dict[str, Any]) -> None:
    settings = get_settings()
    set_up_logging(settings)
    stack = AsyncExitStack()
    resources = await stack.enter_async_context(open_resources(settings))
    bank_work = BankWork(settings)
    stack.callback(bank_work.close)
    context["stack"] = stack
    context["resources"] = resources
    context["orders"] = orders_drain(resources)
    context["outbox"] = outbox_drain(resources)
    context["callbacks"] = callbacks_drain(resources)
    context["bank"] = bank_drain(resources, bank_work)
    context["events"] = events_drain(resources)
    context["deliveries"] = deliveries_drain(resources)
    drains = [context[name] for name in _DRAINS]
    context["sweep"] = asyncio.create_task(sweep_for_ever(drains, settings.worker_sweep_s), name="sweep")
    context["account_sums"] = asyncio.create_task(close_hours_for_ever(resources), name="account_sums")
    context["checkpoints"] = asyncio.create_task(take_checkpoints_for_ever(resources), name="checkpoints")
    context["replay"] = asyncio.create_task(replay_for_ever(resources), name="replay")
    context["reconciliation"] = asyncio.create_task(reconcile_for_ever(resources), name="reconciliation")
    log.info("worker.started")


async def _on_shutdown(context: dict[str, Any]) -> None:
    log.info("worker.stopping")
    context["sweep"].cancel()
    context["account_sums"].cancel()
    context["checkpoints"].cancel()
    context["replay"].cancel()
    context["reconciliation"].cancel()
    await asyncio.gather(*(context[drain].close() for drain in _DRAINS))
    await context["stack"].aclose()


async def _on_job_start(context: dict[str, Any]) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(job_id=context["job_id"])


def _job(name: Job, task: Task) -> Function:
    """One try: the next nudge or the sweep is the retry, and a kept result would block the job's id."""
    return func(cast(WorkerCoroutine, task), name=name, max_tries=1, keep_result=0)


class WorkerSettings:
    """`arq workers.main.WorkerSettings`. Jobs only say that there is work; what and how much stands in MongoDB."""

    functions: ClassVar = [
        _job(Job.DRAIN_OUTBOX, drain_outbox),
        _job(Job.APPLY_CALLBACKS, apply_callbacks),
        _job(Job.RUN_BANK, run_bank),
        _job(Job.DISPATCH_EVENTS, dispatch_events),
        _job(Job.DELIVER_WEBHOOKS, deliver_webhooks),
    ]
    redis_settings: ClassVar[RedisSettings] = redis_settings(get_settings(), retries=_REDIS_RETRIES)
    on_startup: ClassVar[Task] = _on_startup
    on_shutdown: ClassVar[Task] = _on_shutdown
    on_job_start: ClassVar[Task] = _on_job_start
    job_serializer = serialize_job
    job_deserializer = deserialize_job
    job_timeout = _JOB_TIMEOUT_S
    job_completion_wait = _SHUTDOWN_S
    keep_result = 0
    # arq's own half second between looks would be most of an operation's way to the bank.
    poll_delay = 0.05
    max_jobs = 32
    health_check_interval = 30
    log_results = False
