"""Closing hours: what was booked on each account is summed up hour by hour, so that nobody has to start from zero."""

from datetime import datetime, timedelta
from functools import partial

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, read_in_snapshot
from service.domain.accounts import HOUR, StoredSums, add_up, closed_through, hour_of
from service.domain.clock import to_rfc3339, utc_now
from service.domain.identifiers import made_at
from service.repositories import account_sums as sums_repository

log = structlog.get_logger()

# A day in each round: who shuts a worker down or reads its log need not wait for a week to be caught up with.
_HOURS_IN_ROUND = 24
# At 3 µs an entry, ten times what an hour at full speed brings; the server keeps a snapshot for 300 s.
SUMMING_LIMIT_S = 240.0


async def close_hours(client: Client, now: datetime, patience_s: float) -> bool:
    """Stores the sums of hours that have ended for good; hours without entries are passed over in one step.

    True where all of them are closed, False where another round should look for more. Several workers may do it at
    once: each stored document is right by itself, and an hour's id can be had once.
    """
    end = closed_through(now, timedelta(seconds=patience_s))
    for _ in range(_HOURS_IN_ROUND):
        following = await read_in_snapshot(client, partial(_sum_next_hour, end))
        if following is None:
            return True
        if await sums_repository.insert_once(following, utc_now()):
            left_h = (end - following.through) // HOUR
            log.info("account_sums.hour_closed", through=to_rfc3339(following.through), hours_left=left_h)
    return False


async def _sum_next_hour(end: datetime, session: AsyncClientSession) -> StoredSums | None:
    """The sums up to the end of the next hour that has entries; None where they reach to `end` already."""
    last = await sums_repository.find_last(session=session)
    reached = None if last is None else last.through
    if reached is not None and reached >= end:
        return None
    first_id = await sums_repository.find_first_entry(reached, end, session=session)
    first_at = None if first_id is None else made_at(first_id)
    # Without an entry, or with one whose id tells no time, there is no hour to go by.
    through = end if first_at is None else min(end, hour_of(first_at) + HOUR)
    booked = await sums_repository.sum_entries(reached, through, session=session, limit_s=SUMMING_LIMIT_S)
    return StoredSums(through, tuple(add_up([*(() if last is None else last.sums), *booked])))
