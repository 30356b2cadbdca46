"""What is read for Prometheus when it asks, and who may ask."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from ipaddress import ip_address
from time import monotonic
from typing import Final

import pymongo
import structlog
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from service import metrics
from service.background import end
from service.domain.clock import utc_now
from service.errors import NotFound, Unauthenticated
from service.gateways.bank_breaker import BankBreaker, BreakerState
from service.ledger.committer import Ledger
from service.metrics import Figure, Values
from service.repositories import checkpoints as checkpoint_repository
from service.repositories import figures as figure_repository
from service.repositories import house_positions as position_repository
from service.services.clock_watch import ClockWatch
from service.services.event_feed import EventFeeds, StreamKind
from service.services.integrity import find_days_watched, find_rounds
from service.services.workers import look_at_queues
from service.settings import Environment, Settings

log = structlog.get_logger()

# However many ask, and however often, MongoDB is asked once in this time.
_FRESH_S: Final = 5.0
# Prometheus itself gives up after 10 s, and then has nothing at all.
_PATIENCE_S: Final = 1.5
# How old what other processes say of their ledgers may be.
_SAMPLE_S: Final = 1.0

_Read = Callable[[], Awaitable[Mapping[Figure, Values]]]


class Scrapes:
    """One for each process: answers `GET /metrics`, whether MongoDB does or not."""

    def __init__(
        self, settings: Settings, ledger: Ledger, breaker: BankBreaker, feeds: EventFeeds, clock: ClockWatch
    ) -> None:
        self._queue_limit = settings.ledger_queue_limit
        self._breaker = breaker
        self._feeds = feeds
        self._ledger = ledger
        self._clock = clock
        # Each by itself: what one cannot read, the others still tell.
        self._reads: list[_Read] = [
            _read_queues,
            _read_breaks,
            _read_incidents,
            _read_overdue_orders,
            _read_blocked,
            _read_headroom,
            _read_integrity,
            _read_checkpoints,
            partial(_read_days, settings),
        ]
        self._reading: asyncio.Task[None] | None = None
        self._stale_at_s = 0.0
        self._sampling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Where another process may be asked for us, what we have goes to where it finds it."""
        if metrics.IS_SHARED:
            self._sampling = asyncio.create_task(self._sample_for_ever(), name="metrics")

    async def close(self) -> None:
        await end(*(task for task in (self._sampling, self._reading) if task is not None))

    async def answer(self, accept: str) -> tuple[bytes, str]:
        """Body and media type."""
        self._sample()
        await self._read_if_stale()
        # In a thread: with all routes in it that is tens of milliseconds, in which others want to be served.
        return await asyncio.to_thread(metrics.render, accept)

    def _sample(self) -> None:
        metrics.ledger_queue(self._ledger.queue_depth, self._queue_limit)
        metrics.clock(self._clock.difference_s, is_off=self._clock.is_wrong())
        for kind in StreamKind:
            metrics.event_streams(kind.value, self._feeds.counts[kind])

    async def _sample_for_ever(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(_SAMPLE_S)

    async def _read_if_stale(self) -> None:
        if self._reading is None and monotonic() >= self._stale_at_s:
            self._reading = asyncio.create_task(self._read(), name="figures")
        if self._reading is not None:
            await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        try:
            found = await asyncio.gather(*(_read_or_nothing(read) for read in self._reads))
            metrics.show({figure: values for one in (*found, self._read_breaker()) for figure, values in one.items()})
        finally:
            # One that failed is not tried again at once either.
            self._stale_at_s = monotonic() + _FRESH_S
            self._reading = None

    def _read_breaker(self) -> Mapping[Figure, Values]:
        """From memory."""
        now = self._breaker.state_now
        return {metrics.BREAKER_STATE: {(state.value,): float(state is now) for state in BreakerState}}


async def _read_or_nothing(read: _Read) -> Mapping[Figure, Values]:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            with pymongo.timeout(_PATIENCE_S):
                return await read()
    except (PyMongoError, RedisError, OSError, TimeoutError) as error:
        log.warning("metrics.not_read", error=repr(error))
        return {}


async def _read_queues() -> Mapping[Figure, Values]:
    now = utc_now()
    backlog = await look_at_queues(now)
    return {
        metrics.QUEUE_ROWS: {(queue.value,): state.due for queue, state in backlog.queues.items()},
        metrics.QUEUE_OLDEST_AGE: {(queue.value,): state.oldest_age_s(now) for queue, state in backlog.queues.items()},
        metrics.DEAD_LETTERS: {(queue.value,): backlog.dead_letters.get(queue, 0) for queue in backlog.queues},
    }


async def _read_breaks() -> Mapping[Figure, Values]:
    kinds = await figure_repository.count_open_breaks()
    return {metrics.RECONCILIATION_BREAKS: {(kind,): count for kind, count in kinds.items()}}


async def _read_incidents() -> Mapping[Figure, Values]:
    return {metrics.INCIDENTS_OPEN: {(): await figure_repository.count_open_incidents()}}


async def _read_overdue_orders() -> Mapping[Figure, Values]:
    now = utc_now()
    overdue = await figure_repository.find_overdue_orders(now)
    age_s = 0.0 if overdue.oldest is None else (now - overdue.oldest).total_seconds()
    return {metrics.BANK_ORDERS_OVERDUE: {(): overdue.number}, metrics.BANK_ORDER_OVERDUE_AGE: {(): age_s}}


async def _read_blocked() -> Mapping[Figure, Values]:
    return {metrics.BLOCKED_WITHDRAWALS: {(): await figure_repository.count_blocked_withdrawals()}}


async def _read_headroom() -> Mapping[Figure, Values]:
    """Of accounts that have a floor; the others have nothing that could run out."""
    portions = await position_repository.find_all()
    guarded: dict[tuple[str, ...], float] = {portion.pair: 0.0 for portion in portions if portion.floor is not None}
    for portion in portions:
        if portion.pair in guarded:
            guarded[portion.pair] += portion.headroom
    return {metrics.HOUSE_HEADROOM: guarded}


async def _read_integrity() -> Mapping[Figure, Values]:
    age_s = (await find_rounds()).age_s
    return {} if age_s is None else {metrics.INTEGRITY_AGE: {(): age_s}}


async def _read_checkpoints() -> Mapping[Figure, Values]:
    latest, refused = await checkpoint_repository.find_latest(), await checkpoint_repository.count_refused()
    age: Values = {} if latest is None else {(): (utc_now() - latest.created_at).total_seconds()}
    return {metrics.CHECKPOINT_AGE: age, metrics.CHECKPOINTS_REFUSED: {(): refused}}


async def _read_days(settings: Settings) -> Mapping[Figure, Values]:
    watched = await find_days_watched(settings)
    return {
        metrics.RECONCILIATION_DAY_AGE: {(days_ago,): age_s for days_ago, age_s in watched.ages_s.items()},
        metrics.RECONCILIATION_DAYS_OVERDUE: {(): watched.overdue},
        metrics.RECONCILIATION_LINES_SET_ASIDE: {(): watched.set_aside},
    }


def let_in_to_metrics(peer: str, headers: Mapping[str, str], settings: Settings) -> None:
    """Whoever has the token; where none is set, who asks on this machine and for nobody else. In production only the
    token counts: a proxy on this machine need not say that it asks for somebody.

    Raises Unauthenticated, or NotFound where nobody from elsewhere is meant to know of it.
    """
    if settings.metrics_token is not None:
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        token = settings.metrics_token.get_secret_value()
        if scheme.lower() != "bearer" or not hmac.compare_digest(sent.encode(), token.encode()):
            raise Unauthenticated("Metrics need WALLET_METRICS_TOKEN as a bearer token")
    elif (
        settings.env is Environment.PRODUCTION or not _is_loopback(peer) or any(name in headers for name in _FORWARDED)
    ):
        raise NotFound


# A proxy on this machine hands on what comes from everywhere.
_FORWARDED: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host")


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
