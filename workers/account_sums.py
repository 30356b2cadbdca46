"""The task that closes hours: stored sums of what was booked on each account (services/account_sums.py).

Like the sweep it is no job of arq's: it needs neither Redis nor a nudge, only the time.
"""

import asyncio
import random
from typing import NoReturn

import structlog

from service.domain.clock import utc_now
from service.services.account_sums import close_hours
from service.startup import Resources

log = structlog.get_logger()

# An hour closes a quarter of an hour after it has ended: a minute more or less is nothing.
_INTERVAL_S = 60.0
# Between two rounds of one that is days behind.
_CATCHING_UP_S = 1.0


async def close_hours_for_ever(resources: Resources) -> NoReturn:
    structlog.contextvars.bind_contextvars(job_id="account_sums")
    while True:
        is_done = True
        try:
            is_done = await close_hours(resources.databases.client, utc_now(), resources.settings.ledger_patience_s)
        except Exception as error:  # noqa: BLE001 whatever it is, the next round tries again
            log.error("account_sums.failed", error=repr(error))  # noqa: TRY400 an outage needs no traceback each minute
        pause_s = _INTERVAL_S if is_done else _CATCHING_UP_S
        # Workers that started together come one after the other, so that the later ones find the work done.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 no secret
