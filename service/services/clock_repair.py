"""Repairs what waits for a time that the server's clock had told too early.

While the primary's clock is ahead, rows get due times by it, until every process has noticed. When the clock is right
again, they would wait for as long as it was ahead. The server's highest time is kept (services/clock_watch.py), so any
worker finds out later by how much the clock was set back, and brings those rows forward.

Safe to repeat, to run twice at once and to die in at any point: bringing a row forward only makes it due, and whatever
visits a row early leaves it as it is or postpones it. The highest time is set right last.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog

from service.domain.dead_letters import Queue
from service.domain.server_clock import ServerTime
from service.gateways.job_queue import JOBS, JobQueue
from service.repositories import bank_conditions, bank_orders, due_rows, duties, outbox
from service.repositories import server_clock as clock_repository
from service.repositories.queues import HOMES
from service.services.clock_watch import ClockWatch
from service.settings import Settings

log = structlog.get_logger()

# Every process has looked at its clock again by then: every 2 s, or 4 s on a bad day. Until it has, it may write times
# that are ahead.
_SETTLING_S: Final = 10.0
_LEASE: Final = timedelta(seconds=2 * _SETTLING_S)
# Of the leases that settings do not make longer: the simulated bank's orders and the duties have this one.
_LONGEST_LEASE_S: Final = 30.0
# Beside the sending itself, a delivery is taken for so long.
_DELIVERY_MARGIN_S: Final = 15.0


async def _settle() -> None:
    await asyncio.sleep(_SETTLING_S)


async def repair_if_set_back(
    watch: ClockWatch, settings: Settings, jobs: JobQueue, settle: Callable[[], Awaitable[object]] = _settle
) -> bool:
    """Makes due soon what waits for times that the server's clock was ahead by. For a worker to call often.

    True where it has done so. It works while this process's own clock agrees with the server's. `settle` waits until
    every process goes by the present time.
    """
    if watch.is_wrong() or not watch.was_set_back:
        return False
    repair = await clock_repository.claim_repair(timedelta(seconds=watch.bound_s), _LEASE)
    if repair is None:
        return False
    log.warning("clock.was_set_back", by_s=round(repair.time.set_back_by.total_seconds(), 1))
    await _bring_forward(repair.time, settings, jobs)
    await settle()
    renewed = await clock_repository.renew_repair(repair, _LEASE)
    if renewed is None:
        return False
    await _bring_forward(renewed.time, settings, jobs)
    return await clock_repository.finish_repair(renewed)


async def _bring_forward(time: ServerTime, settings: Settings, jobs: JobQueue) -> None:
    lease_s = longest_lease_s(settings)
    rows: dict[str, int] = {}
    for queue in Queue:
        match queue:
            case Queue.OUTBOX:
                rows[queue.value] = await outbox.bring_forward(time, lease_s=lease_s)
            case Queue.BANK:
                offset = await bank_conditions.find_clock_offset()
                rows[queue.value] = await bank_orders.bring_forward(time.shifted(offset), lease_s=lease_s)
            case _:
                collection = HOMES[queue].document.get_pymongo_collection()
                rows[queue.value] = await due_rows.bring_forward(collection, time, lease_s=lease_s)
        if rows[queue.value]:
            jobs.wake(JOBS[queue], due_rows.SPREAD_S)
    rows["duties"] = await duties.bring_forward(time, lease_s=lease_s)
    log.warning("clock.rows_brought_forward", **rows)


def longest_lease_s(settings: Settings) -> float:
    """A worker may hold a row that is due within this time. Such rows are left as they are."""
    return max(_LONGEST_LEASE_S, settings.bank_recheck_s, settings.webhook_timeout_s + _DELIVERY_MARGIN_S)
