"""Closes hours by itself: stored sums of what was booked on each account (services/account_sums.py)."""

import random
from typing import NoReturn

from service.services.account_sums import close_hours
from service.startup import Resources
from workers.repeating import repeat

# An hour closes a quarter of an hour after it has ended: a minute more or less is nothing.
_INTERVAL_S = 90.0
# Between two rounds of one that is days behind.
_CATCHING_UP_S = 1.0


async def close_hours_for_ever(resources: Resources) -> NoReturn:
    async def close() -> float | None:
        is_done = await close_hours(resources.databases.client)
        # Workers that started together come one after the other, so that the later ones find the work done.
        return None if is_done else _CATCHING_UP_S * random.uniform(0.5, 1.5)  # noqa: S311 no secret

    await repeat("account_sums", close, _INTERVAL_S)
