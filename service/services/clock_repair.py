"""Repairs what waits for a time that the server's clock had told too early.

While the primary's clock is ahead, rows get due times by it, until every process has noticed. When the clock is right
again, they would wait for as long as it was ahead. The server's highest time is kept (services/clock_watch.py), so any
worker finds out later by how much the clock was set back, and brings those rows forward.

Safe to repeat, to run twice at once and to die in at any point: bringing a row forward only makes it due, and whatever
visits a row early leaves it as it is or postpones it. The highest time is set right last.

A row that rightly waits cannot always be told from one that waits too long: then it is visited earlier by as much as
the clock was ahead. A visit to the bank more, or a return that is looked at sooner, does no harm. Each delivery to an
endpoint is one of a few tries over three days: those are told apart by when the last try was.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, assert_never

import structlog

from service.domain.dead_letters import Queue
from service.domain.server_clock import ServerTime
from service.gateways.job_queue import JOBS, JobQueue
from service.repositories import bank_conditions, bank_orders, due_rows, duties, outbox, webhook_deliveries
from service.repositories import server_clock as clock_repository
from service.repositories.queues import HOMES
from service.services import leases
from service.services.clock_watch import ClockWatch
from service.settings import Settings

log = structlog.get_logger()

# Every process has looked at its clock again by then: every 2 s, or 4 s on a bad day. Until it has, it may write times
# that are ahead.
_SETTLING_S: Final = 10.0
_LEASE: Final = timedelta(seconds=2 * _SETTLING_S)


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
    await _bring_forward(renewed.time, settings, jobs, renewed.time.set_back_by)
    return await clock_repository.finish_repair(renewed)


async def _bring_forward(time: ServerTime, settings: Settings, jobs: JobQueue, left: timedelta = timedelta()) -> None:
    """Leaves what is due within `left`, besides what a worker may have in hand.

    What was written since the first time by a clock that is ahead is due after the latest time. What is due earlier
    was brought forward then, or waits rightly.
    """
    rows: dict[str, int] = {}
    for queue in Queue:
        lease_s = max(leases.longest_s(queue, settings), left.total_seconds())
        match queue:
            case Queue.OUTBOX:
                rows[queue.value] = await outbox.bring_forward(time, lease_s=lease_s)
            case Queue.BANK:
                offset = await bank_conditions.find_clock_offset()
                rows[queue.value] = await bank_orders.bring_forward(time.shifted(offset), lease_s=lease_s)
            case Queue.DELIVERIES:
                rows[queue.value] = await webhook_deliveries.bring_forward(time, lease_s=lease_s)
            case Queue.CALLBACKS | Queue.EVENTS:
                collection = HOMES[queue].document.get_pymongo_collection()
                rows[queue.value] = await due_rows.bring_forward(collection, time, lease_s=lease_s)
            case _:
                assert_never(queue)
        if rows[queue.value]:
            jobs.wake(JOBS[queue], due_rows.SPREAD_S)
    lease_s = max(leases.LONGEST_OF_DUTIES_S, left.total_seconds())
    rows["duties"] = await duties.bring_forward(time, lease_s=lease_s)
    log.warning("clock.rows_brought_forward", **rows)
