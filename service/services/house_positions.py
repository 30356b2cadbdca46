"""Floors of the bank's and the house's accounts: stated at start, compared with the books, and corrected by hand.

The portions of an account (domain/house_positions.py) have to add up to what its position is in the books, less what is
reserved and owed, less its floor.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pymongo
import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from service.database import Client, read_in_snapshot, run_in_transaction
from service.domain.accounts import BETWEEN_WALLETS, AccountSum, SystemAccount, add_up
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.house_positions import POOL, AccountCurrency, Floors, Portion, floor_of, total_headroom
from service.domain.identifiers import Prefix, new_id
from service.ledger.committer import is_duplicate
from service.repositories import account_sums as sums_repository
from service.repositories import audit_events as audit_repository
from service.repositories import house_positions as position_repository

log = structlog.get_logger()

# For all reads of the books together: shorter than a server keeps the moment that they are read at (read_in_snapshot).
# Two of them have no index and read every withdrawal and every wallet. They run at the first start with older books and
# in correct-positions alone, and an index would cost each withdrawal two writes for ever.
_BOOKS_LIMIT_S = 240.0
# For each portion. Its process has it for milliseconds, or for a transaction's lifetime where it has died.
_OUTDATING_LIMIT_S = 60.0
# Each process that starts beside this one can be first once. The pause grows with each attempt, to a minute in all.
_ATTEMPTS = 30
_PAUSE_S = 0.14
_NOT_TAKEN = (
    f"a row of house_positions was not changed in {_ATTEMPTS} attempts: "
    "look for a pool whose _id is not account/currency/pool"
)


# Who changes floors: whoever has changed the settings.
_BY_SETTINGS = "settings"


class FloorsNotAppliedError(Exception):
    """A pool's row cannot be changed, perhaps since it was written by hand."""


class Correction(NamedTuple):
    """By how much the portions of an account differed from the books."""

    account: str
    currency: str
    headroom_before: int
    headroom_after: int


class _BooksAndPortions(NamedTuple):
    """Of one moment: what each account has beyond what is promised, and all portions."""

    positions: Mapping[AccountCurrency, int]
    portions: list[Portion]


async def apply_floors(client: Client, floors: Floors) -> None:
    """Makes the stated floors hold. Safe to repeat, also by ten processes at once: each change is made once.

    Where there is no portion yet, at the first start with books of an earlier release, the books tell what there is.
    Before any command is taken, or a process could spend what is not there. Raises FloorsNotAppliedError.
    """
    attempts = 1
    while not await _apply_once(client, floors):
        if attempts == _ATTEMPTS:
            raise FloorsNotAppliedError(_NOT_TAKEN)
        log.info("house_positions.others_were_first", attempt=attempts)
        await asyncio.sleep(_PAUSE_S * attempts)
        attempts += 1
    await outdate_portions()


async def _apply_once(client: Client, floors: Floors) -> bool:
    """False where somebody else has changed something meanwhile."""
    pools = {pool.pair: pool for pool in await position_repository.find_pools()}
    new = {pair: -floor for pair, floor in floors.items() if pair not in pools}
    if not pools:
        log.info("house_positions.reads_books", limit_s=_BOOKS_LIMIT_S)
        seen = await read_in_snapshot(client, _read_books_and_portions)
        pairs = {*seen.positions, *floors}
        new = {pair: seen.positions.get(pair, 0) - (floor_of(pair, floors) or 0) for pair in pairs}
    is_done = not new or await _insert(client, new, floors)
    for pair, pool in pools.items():
        floor = floor_of(pair, floors)
        if floor != pool.floor:
            change = (pool.floor or 0) - (floor or 0)
            details = {"was_floor": pool.floor, "floor": floor}
            event = _event(pair, AuditAction.HOUSE_FLOOR_CHANGED, _BY_SETTINGS, None, details)
            is_done = await _change(client, pool, floor, change, event) and is_done
    return is_done


async def outdate_portions() -> None:
    """Makes processes reload the portions of each pool that was changed since they last did. One query where none is.

    Until then a process goes by what it remembers, as if its payments had come before the change. Whoever changes a
    pool calls this next, and workers repeat it for a process that died in between. Safe to run twice at once.
    """
    for portion, floor_version in await position_repository.find_outdated():
        with pymongo.timeout(_OUTDATING_LIMIT_S):
            await position_repository.outdate(portion, floor_version)
        log.info("house_positions.outdated", portion=portion.id, floor_version=floor_version)


async def _insert(
    client: Client,
    headroom: Mapping[AccountCurrency, int],
    floors: Floors,
    event: AuditEvent | None = None,
    floor_version: int = 0,
) -> bool:
    """Returns False if another process inserted a pool meanwhile."""
    pools = [
        Portion(account, currency, POOL, left, floor=floor_of((account, currency), floors), floor_version=floor_version)
        for (account, currency), left in sorted(headroom.items())
    ]

    async def insert(session: AsyncClientSession) -> None:
        await position_repository.insert_pools(pools, session=session)
        if event is not None:
            await audit_repository.insert(event, session=session)

    try:
        await run_in_transaction(client, insert)
    except PyMongoError as error:
        if not is_duplicate(error):
            raise
        return False
    for pool in pools:
        log.info("house_positions.opened", pair=" ".join(pool.pair), floor=pool.floor)
    return True


async def _change(client: Client, pool: Portion, floor: int | None, change: int, event: AuditEvent) -> bool:
    """Returns False if another process changed the pool meanwhile."""

    async def make(session: AsyncClientSession) -> bool:
        is_changed = await position_repository.change_pool(pool, floor, change, session=session)
        if is_changed:
            await audit_repository.insert(event, session=session)
        return is_changed

    is_changed = await run_in_transaction(client, make)
    if is_changed:
        log.warning(event.action.value, pair=" ".join(pool.pair), floor=floor, headroom_change=change)
    return is_changed


def _event(
    pair: AccountCurrency,
    action: AuditAction,
    actor: str,
    reason: str | None,
    details: Mapping[str, str | int | bool | None],
) -> AuditEvent:
    return AuditEvent(
        id=new_id(Prefix.AUDIT_EVENT),
        at=utc_now(),
        actor_id=actor,
        action=action,
        subject_id="/".join(pair),
        reason=reason,
        details=details,
        request_id=None,
    )


async def correct_positions(client: Client, reason: str, corrected_by: str, tell: Callable[[Correction], None]) -> None:
    """Corrects the pool of each account whose portions differ from the books, and tells each correction at once.

    The ledger may run meanwhile: books and portions change together, so the difference stays what it was.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        seen = await read_in_snapshot(client, _read_books_and_portions)
        by_pair: dict[AccountCurrency, list[Portion]] = {pair: [] for pair in seen.positions}
        for portion in seen.portions:
            by_pair.setdefault(portion.pair, []).append(portion)
        is_done = True
        for pair, portions in sorted(by_pair.items()):
            pool = next((one for one in portions if one.owner == POOL), None)
            floor = None if pool is None else pool.floor
            due = seen.positions.get(pair, 0) - (floor or 0)
            found = total_headroom(portions)
            if due == found and (pool is not None or not portions):
                continue
            details = {"headroom_before": found, "headroom_after": due}
            event = _event(pair, AuditAction.HOUSE_POSITION_CORRECTED, corrected_by, reason, details)
            if pool is None:
                floor_version = 1 + max(portion.floor_version for portion in portions) if portions else 0
                is_corrected = await _insert(client, {pair: due - found}, {}, event, floor_version)
            else:
                is_corrected = await _change(client, pool, floor, due - found, event)
            is_done = is_corrected and is_done
            if is_corrected:
                tell(Correction(*pair, found, due))
        await outdate_portions()
        if is_done:
            return
        await asyncio.sleep(_PAUSE_S * attempt)
    raise FloorsNotAppliedError(_NOT_TAKEN)


async def read_positions(*, session: AsyncClientSession) -> dict[AccountCurrency, int]:
    """By account and currency: the position in the books, less what is reserved, owed, and taken back unbooked.

    The server ends what takes longer than `_BOOKS_LIMIT_S` in all.
    """
    with pymongo.timeout(_BOOKS_LIMIT_S):
        return await _read_positions(session)


async def _read_positions(session: AsyncClientSession) -> dict[AccountCurrency, int]:
    stored = await sums_repository.find_last(session=session)
    corrections = await sums_repository.find_corrections(session=session)
    reached = None if stored is None else stored.through
    since = await sums_repository.sum_entries(reached, None, session=session, limit_s=_BOOKS_LIMIT_S)
    corrected = [one for correction in corrections for one in correction.sums]
    booked = add_up([*(() if stored is None else stored.sums), *corrected, *since])
    positions = {(one.account, one.currency): _position(one) for one in booked if one.account != BETWEEN_WALLETS}
    reserved = await position_repository.sum_reserved(session=session)
    owed = await position_repository.sum_owed(session=session)
    unbooked = await position_repository.sum_unbooked(session=session)
    for promised in (reserved, owed, unbooked):
        for currency, amount in promised.items():
            pair = SystemAccount.BANK.value, currency
            positions[pair] = positions.get(pair, 0) - amount
    return positions


def _position(one: AccountSum) -> int:
    """The bank's is what wallets have let the house have there; a house account's what wallets gave to it."""
    return -one.balance if one.account == SystemAccount.BANK else one.balance


async def _read_books_and_portions(session: AsyncClientSession) -> _BooksAndPortions:
    positions = await read_positions(session=session)
    return _BooksAndPortions(positions, await position_repository.find_all(session=session))
