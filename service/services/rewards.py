"""Points: crediting what settled operations have earned, and what one has earned so far."""

from datetime import datetime, timedelta

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError, ExecutionTimeout

from service.database import Client, run_in_transaction
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.money import POINTS
from service.domain.operations import Operation
from service.domain.outbox import OutboxRow
from service.domain.records import Record
from service.domain.rewards import (
    EarningBounds,
    EarningEvent,
    EarningRoom,
    Reward,
    RewardStatus,
    Settled,
    event_of,
    net_new_amount,
)
from service.domain.transfers import Transfer
from service.domain.wallets import new_wallet
from service.errors import NoWalletInCurrency
from service.ledger.committer import Ledger
from service.ledger.rewards import EarnPoints, RoomMoved
from service.repositories import outbox as outbox_repository
from service.repositories import records as record_repository
from service.repositories import rewards as reward_repository
from service.repositories import transaction_logs as log_repository
from service.repositories import user_limits as user_limits_repository
from service.repositories import wallets as wallet_repository
from service.repositories.records import RecordFilter
from service.repositories.transaction_logs import SumsByType

log = structlog.get_logger()

_KINDS: dict[str, type[Settled]] = {
    Prefix.DEPOSIT: Operation,
    Prefix.WITHDRAWAL: Operation,
    Prefix.TRANSFER: Transfer,
}
# A row whose operation is not there is for a person to look at: it stays, and is quiet.
_COME_BACK_S = 600.0
_DAY = timedelta(days=1)
# The delay before a reward is tried again whose user's points have moved.
_TURN_S = 0.2


class TooManyEntries(Exception):
    """The entries of a window are not summed within the time limit: no outage, so the row's attempts count."""


async def earn_points(row: OutboxRow, ledger: Ledger, client: Client) -> None:
    """Credits what the operation earned, once; safe to repeat at any point, and by several workers at once.

    The row is deleted in the transaction that credits the points. The wallet for them is opened with the first ones.
    """
    kind = _KINDS.get(row.subject_id.partition("_")[0])
    settled = None if kind is None else await record_repository.find(row.subject_id, kind)
    if settled is None:
        log.error("outbox.without_operation", operation_id=row.subject_id)
        await outbox_repository.postpone(row, utc_now() + timedelta(seconds=_COME_BACK_S))
        return
    due_at = settled.updated_at + ledger.policy.earning_bounds.pending
    if due_at > utc_now():
        # A clock that was ahead, or a shorter time before, has brought the row here early.
        await outbox_repository.put_back(row, due_at)
        return
    try:
        try:
            record = await _earn(settled, row, ledger)
        except NoWalletInCurrency:
            await ensure_points_wallet(client, settled.user_id)
            record = await _earn(settled, row, ledger)
    except RoomMoved:
        log.info("reward.waits_for_others", operation_id=settled.id)
        await outbox_repository.put_back(row, utc_now() + timedelta(seconds=_TURN_S))
        return
    if not isinstance(record, Reward):
        log.info("reward.nothing_earned", operation_id=settled.id)
    elif record.status is RewardStatus.LAPSED:
        log.warning("reward.lapsed", reward_id=record.id, user_id=record.user_id, points=record.points)
    else:
        log.info("reward.credited", reward_id=record.id, user_id=record.user_id, points=record.points)


async def _earn(settled: Settled, row: OutboxRow, ledger: Ledger) -> Record | None:
    """Raises NoWalletInCurrency, and RoomMoved where other points of the user move at this moment."""
    room = await _read_room(settled, ledger.policy.earning_bounds)
    command = EarnPoints(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=row.request_id,
        operation_id=settled.id,
        user_id=settled.user_id,
        entry_id=new_id(Prefix.ENTRY),
        room=room,
    )
    return (await ledger.execute(command)).record


async def _read_room(settled: Settled, bounds: EarningBounds) -> EarningRoom:
    """Reads the sequence number of the points first, so that the command notices what moves after it."""
    points = await wallet_repository.find_in_currency(settled.user_id, POINTS)
    now = utc_now()
    since = min(settled.updated_at, now) - bounds.window
    counted, points_today = await reward_repository.sum_counted(
        settled.user_id, settled.currency, since=since, points_since=now - _DAY
    )
    amount = settled.amount
    if event_of(settled) is EarningEvent.DEPOSIT:
        # What moves while points wait has nothing to do with what earned them.
        sums = await _sum_entries(settled.wallet_id, since, max(settled.updated_at, now - bounds.pending))
        amount = net_new_amount(sums.amounts, sums.balance_before, counted)
    return EarningRoom(0 if points is None else points.seq, amount, max(0, bounds.points_per_day - points_today))


async def _sum_entries(wallet_id: str, since: datetime, until: datetime) -> SumsByType:
    """Raises TooManyEntries: a wallet that has too many for the time limit has them next time too."""
    try:
        return await log_repository.sum_by_type(wallet_id, since, until)
    except ExecutionTimeout as error:
        raise TooManyEntries(f"{wallet_id} has too many entries since {since:%Y-%m-%d} to be summed") from error


async def ensure_points_wallet(client: Client, user_id: str) -> None:
    """The user's wallet for points, opened where it is missing."""
    opened_at = utc_now()

    async def insert_missing(session: AsyncClientSession) -> None:
        if not await wallet_repository.find_named([], [(user_id, POINTS)], session=session):
            user_limits = await user_limits_repository.read_for_new_wallet(user_id, opened_at, session=session)
            wallet = new_wallet(
                new_id(Prefix.WALLET),
                user_id,
                POINTS,
                opened_at,
                user_limits.time_zone,
                counts_for_owner=user_limits.has_counters,
            )
            await wallet_repository.insert(wallet, session=session)
            log.info("wallet.opening", wallet_id=wallet.id, user_id=user_id, currency=POINTS)

    try:
        await run_in_transaction(client, insert_missing)
    except DuplicateKeyError:
        # Another worker, or the user, was faster: all that is wanted is that there is one.
        log.info("wallet.is_there", user_id=user_id, currency=POINTS)


async def list_rewards(user_id: str, *, before_id: str | None, limit: int) -> list[Reward]:
    """Lists those of a user, by the age of the operations that earned them, newest first."""
    return await record_repository.find_of_user(
        Prefix.REWARD, Reward, user_id, RecordFilter(), before_id=before_id, limit=limit
    )
