"""arq's settings: which jobs there are, and what a worker opens and closes."""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, ClassVar, cast

import structlog
import uvloop
from arq.connections import RedisSettings
from arq.typing import WorkerCoroutine
from arq.worker import Function, func

from service.background import end
from service.domain.dead_letters import Queue
from service.gateways.job_queue import JOBS, deserialize_job, redis_settings, serialize_job
from service.log import set_up_logging
from service.settings import get_settings
from service.startup import open_resources, tracing_of
from workers.account_sums import close_hours_for_ever
from workers.bank_callbacks import callbacks_drain
from workers.bank_simulation import BankWork, bank_drain
from workers.checkpoints import take_checkpoints_for_ever
from workers.clock_repair import repair_for_ever
from workers.drain import run_drains
from workers.ending import Ending
from workers.events import events_drain
from workers.house_positions import outdate_portions_for_ever
from workers.metrics import serve_metrics
from workers.outbox import mails_drain, orders_drain, outbox_drain
from workers.outliving_redis import outlive_redis
from workers.presence import Presence, tell_status_for_ever
from workers.reconciliation import reconcile_for_ever
from workers.replay import replay_for_ever
from workers.sweep import sweep_for_ever
from workers.webhook_deliveries import deliveries_drain

log = structlog.get_logger()

# Half of what a worker does is reading and writing sockets. Here, because arq makes the loop as soon as it has read
# the settings below.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
outlive_redis()

Task = Callable[[dict[str, Any]], Awaitable[None]]

# Twice the time in which a job starts rounds of work (workers/drain.py).
_JOB_TIMEOUT_S = 60
# Of transactions that are under way.
_TASKS_END_S = 2.0
# Up to a second apart, so about ten minutes: a Redis that restarts or moves must not end the workers.
_REDIS_RETRIES = 600
# `arq --check` reads these settings too, and is to say within seconds that Redis is away.
_IS_CHECK = "--check" in sys.argv


async def _on_startup(context: dict[str, Any]) -> None:
    settings = get_settings()
    set_up_logging(settings)
    # At once: where something of the following is refused, arq calls what closes the rest.
    context["stack"] = stack = AsyncExitStack()
    await stack.enter_async_context(tracing_of(settings, "wallet-worker"))
    resources = await stack.enter_async_context(open_resources(settings))
    await stack.enter_async_context(serve_metrics(resources))
    bank_work = BankWork(settings)
    stack.callback(bank_work.close)
    context["resources"] = resources
    context["drains"] = drains = (
        callbacks_drain(resources),
        orders_drain(resources),
        mails_drain(resources),
        outbox_drain(resources),
        events_drain(resources),
        deliveries_drain(resources),
        bank_drain(resources, bank_work),
    )
    context["presence"] = presence = Presence(drains, resources.clock_watch)
    endless = {
        "sweep": sweep_for_ever(drains, settings.worker_sweep_s),
        "account_sums": close_hours_for_ever(resources),
        "checkpoints": take_checkpoints_for_ever(resources),
        "replay": replay_for_ever(resources),
        "reconciliation": reconcile_for_ever(resources),
        "clock_repair": repair_for_ever(resources),
        "house_positions": outdate_portions_for_ever(resources),
        "presence": presence.beat_for_ever(),
        "status": tell_status_for_ever(presence, resources),
    }
    context["tasks"] = [asyncio.create_task(work, name=name) for name, work in endless.items()]
    context["ending"] = Ending(partial(_close, context))
    log.info("worker.started")


async def _close(context: dict[str, Any]) -> None:
    log.info("worker.stopping", in_hand=sum(drain.in_hand for drain in context["drains"]))
    grace_s = context["resources"].settings.worker_grace_s
    await asyncio.gather(*(drain.close(grace_s) for drain in context["drains"]))
    # Only now: whatever has taken rows has given them back itself.
    with suppress(TimeoutError):
        await asyncio.wait_for(end(*context["tasks"]), _TASKS_END_S)
    try:
        await context["presence"].leave()
    except Exception as error:  # noqa: BLE001 it is missed soon enough
        log.warning("worker.not_told", error=repr(error))
    await context["stack"].aclose()
    log.info("worker.stopped")


async def _on_shutdown(context: dict[str, Any]) -> None:
    """Where arq ends by itself, and where it was told to while it began; else it is done already."""
    if "ending" in context:
        await context["ending"].closed()
    elif "stack" in context:
        await context["stack"].aclose()


async def _on_job_start(context: dict[str, Any]) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(job_id=context["job_id"])


def _job(queue: Queue) -> Function:
    """One try: the next nudge or the sweep is the retry, and a kept result would block the job's id."""

    async def work_down(context: dict[str, Any]) -> None:
        await run_drains([drain for drain in context["drains"] if drain.queue is queue], JOBS[queue])

    return func(cast(WorkerCoroutine, work_down), name=JOBS[queue], max_tries=1, keep_result=0)


class WorkerSettings:
    """`arq workers.main.WorkerSettings`. Jobs only say that there is work; what and how much stands in MongoDB."""

    functions: ClassVar = [_job(queue) for queue in Queue]
    redis_settings: ClassVar[RedisSettings] = redis_settings(get_settings(), retries=0 if _IS_CHECK else _REDIS_RETRIES)
    on_startup: ClassVar[Task] = _on_startup
    on_shutdown: ClassVar[Task] = _on_shutdown
    on_job_start: ClassVar[Task] = _on_job_start
    job_serializer = serialize_job
    job_deserializer = deserialize_job
    job_timeout = _JOB_TIMEOUT_S
    keep_result = 0
    # arq's own half second between looks would be most of an operation's way to the bank.
    poll_delay = 0.05
    max_jobs = 32
    # The key is gone a second after the next one was due: who asks less often than that is told the truth.
    health_check_interval = 10
    # Of several workers each container asks after its own; arq's one key for all would be kept fresh by any of them.
    health_check_key = f"arq:queue:health-check:{socket.gethostname()}"
    log_results = False
