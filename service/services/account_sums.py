"""Closing hours: what was booked on each account is summed up hour by hour, so that nobody has to start from zero."""

from datetime import datetime
from functools import partial

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, read_in_snapshot, snapshot_time
from service.domain.accounts import (
    HOUR,
    AccountSum,
    Correction,
    StoredSums,
    add_up,
    closed_through,
    corrected_by_then,
    difference,
    hour_of,
)
from service.domain.clock import to_rfc3339, utc_now
from service.domain.identifiers import made_at
from service.repositories import account_sums as sums_repository

log = structlog.get_logger()

# A day in each round: who shuts a worker down or reads its log need not wait for a week to be caught up with.
_HOURS_IN_ROUND = 24
# At 3 µs an entry, ten times what an hour at full speed brings; the server keeps a snapshot for 300 s.
SUMMING_LIMIT_S = 240.0


async def close_hours(client: Client, now: datetime | None = None) -> bool:
    """Stores the sums of hours that have ended for good; hours without entries are passed over in one step.

    True where all of them are closed, False where another round should look for more. Several workers may do it at
    once: each stored document is right by itself, and an hour's id can be had once. Without `now`, which tests hand
    in, the time is that of the snapshot which is summed: no clock of this process takes part.
    """
    for _ in range(_HOURS_IN_ROUND):
        step = await read_in_snapshot(client, partial(_sum_next_hour, now))
        if step is None:
            return True
        following, end = step
        if await sums_repository.insert_once(following, utc_now()):
            left_h = (end - following.through) // HOUR
            log.info("account_sums.hour_closed", through=to_rfc3339(following.through), hours_left=left_h)
    return False


async def _sum_next_hour(now: datetime | None, session: AsyncClientSession) -> tuple[StoredSums, datetime] | None:
    """The sums up to the end of the next hour that has entries, and up to where hours can be closed; None where all of
    those are closed already.
    """
    last = await sums_repository.find_last(session=session)
    end = closed_through(now or snapshot_time(session))
    reached = None if last is None else last.through
    if reached is not None and reached >= end:
        return None
    first_id = await sums_repository.find_first_entry(reached, end, session=session)
    first_at = None if first_id is None else made_at(first_id)
    # Without an entry, or with one whose id tells no time, there is no hour to go by.
    through = end if first_at is None else min(end, hour_of(first_at) + HOUR)
    booked = await sums_repository.sum_entries(reached, through, session=session, limit_s=SUMMING_LIMIT_S)
    return StoredSums(through, tuple(add_up([*(() if last is None else last.sums), *booked]))), end


async def correct_sums(client: Client, reason: str, corrected_by: str) -> list[Correction]:
    """Inserts a correction for each closed hour whose stored sums differ from the entries, and returns those made.

    Safe to repeat and to run twice at once: corrections are numbered, and a number can be had once.
    """
    made: list[Correction] = []
    while True:
        found = await read_in_snapshot(client, _find_wrong_hour)
        if found is None:
            return made
        number, through, sums = found
        correction = Correction(number, through, sums, reason, corrected_by, utc_now())
        if await sums_repository.insert_correction_once(correction):
            made.append(correction)
            log.warning("account_sums.corrected", number=number, through=to_rfc3339(through), reason=reason)


async def _find_wrong_hour(session: AsyncClientSession) -> tuple[int, datetime, tuple[AccountSum, ...]] | None:
    """The first closed hour whose sums, with the corrections so far, differ from the entries, and what they lack."""
    corrections = await sums_repository.find_corrections(session=session)
    reached: datetime | None = None
    entries: list[AccountSum] = []
    for stored in await sums_repository.find_all(session=session):
        booked = await sums_repository.sum_entries(reached, stored.through, session=session, limit_s=SUMMING_LIMIT_S)
        entries = add_up([*entries, *booked])
        missing = difference(entries, [*stored.sums, *corrected_by_then(corrections, stored.through)])
        if missing:
            return len(corrections) + 1, stored.through, missing
        reached = stored.through
    return None
