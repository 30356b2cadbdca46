"""Events as they happen: one feed for each stream that is open here, by WebSocket or Server-Sent Events alike.

A feed knows of each of its user's wallets the number of the last event that it has handed out. What comes over Redis is
handed out where it is the next one; where a number is missing, the feed reads on in MongoDB instead. So nothing is
missed and nothing comes twice, whatever becomes of Redis: this process asks MongoDB for the wallets' latest numbers now
and then, and every second while Redis is away.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
import structlog
from pymongo.errors import PyMongoError

from service.background import end
from service.domain.clock import utc_now
from service.domain.events import Event, event_view
from service.errors import NotFound, PositionUnknown, TooManyStreams
from service.gateways.event_channel import Subscription
from service.repositories import events as event_repository
from service.repositories import wallets as wallet_repository
from service.repositories.events import EventFilter
from service.services.callers import Caller
from service.services.ended_tokens import EndedTokens
from service.settings import Settings

log = structlog.get_logger()

# Whoever is so many events behind does not read.
WAITING_LIMIT = 1_000
_BATCH_LIMIT = 64
_READ_AT_ONCE = 256
_TICK_S = 1.0
# With Redis there, for what got lost on its way: a publisher that died, a message that came too late.
_TICKS_BETWEEN_LOOKS = 5
_RETRY_S = 1.0
# One query for so many.
_USERS_AT_ONCE = 500
_RETRY_AFTER_S = 60
# Of `streams_limit`.
_FULL_FOR_SECONDS = 0.8


class Ending(StrEnum):
    """Why a stream ends from this side."""

    TOKEN_ENDED = "token_ended"  # noqa: S105 a name
    TOO_SLOW = "too_slow"
    RESTART = "restart"


class StreamKind(StrEnum):
    WEBSOCKET = "websocket"
    SSE = "sse"


class Told(NamedTuple):
    """An event as it is sent."""

    wallet_id: str
    sequence: int
    type: str
    payload: bytes


class Missed(NamedTuple):
    """Events that are not kept any more: those between the two numbers."""

    wallet_id: str
    after_sequence: int
    next_sequence: int


class Feed:
    """One stream's. `positions` are what was handed out, by wallet."""

    def __init__(
        self,
        kind: StreamKind,
        caller: Caller,
        expires_at: datetime,
        positions: dict[str, int],
        latest: Mapping[str, int],
    ) -> None:
        self.kind = kind
        self.caller = caller
        self.expires_at = expires_at
        self.positions = positions
        self.ending: Ending | None = None
        self.ended = asyncio.Event()
        self._arrived: deque[Told] = deque()
        # Wallets of which more is to be read, and up to which number there is something for sure.
        self._behind: dict[str, int] = {}
        self._is_catching_up = False
        self._wake = asyncio.Event()
        self.note(latest)

    def offer(self, told: Told) -> None:
        """Takes what came over Redis."""
        if self._is_catching_up or self._behind:
            # It is going to be read: a long way back must not look like a reader who is slow.
            self._fall_behind(told.wallet_id, told.sequence)
        elif len(self._arrived) >= WAITING_LIMIT:
            self.end(Ending.TOO_SLOW)
        else:
            self._arrived.append(told)
        self._wake.set()

    def note(self, latest: Mapping[str, int]) -> None:
        """The wallets' latest numbers, as MongoDB has them. A wallet that is new here begins with its first event."""
        for wallet_id, sequence in latest.items():
            if sequence > self.positions.setdefault(wallet_id, 0):
                self._fall_behind(wallet_id, sequence)
                self._wake.set()

    def _fall_behind(self, wallet_id: str, sequence: int) -> None:
        self._behind[wallet_id] = max(sequence, self._behind.get(wallet_id, 0))

    def end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self._arrived.clear()
        self.ended.set()
        self._wake.set()

    async def batches(self, heartbeat_s: float) -> AsyncGenerator[Sequence[Told | Missed], None]:
        """Yields what is to be sent, in order within each wallet; an empty one where nothing happened for so long."""
        while self.ending is None:
            if self._behind:
                wallet_id, known = self._behind.popitem()
                async with aclosing(self._read_on(wallet_id, known)) as batches:
                    async for batch in batches:
                        yield batch
            elif batch := self._take_arrived():
                yield batch
            else:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), heartbeat_s)
                except TimeoutError:
                    yield ()

    def _take_arrived(self) -> list[Told]:
        batch: list[Told] = []
        while self._arrived and len(batch) < _BATCH_LIMIT:
            told = self._arrived.popleft()
            position = self.positions.get(told.wallet_id, 0)
            if told.sequence == position + 1:
                self.positions[told.wallet_id] = told.sequence
                batch.append(told)
            elif told.sequence > position:
                self._fall_behind(told.wallet_id, told.sequence)
        return batch

    async def _read_on(self, wallet_id: str, known: int) -> AsyncGenerator[Sequence[Told | Missed], None]:
        """From MongoDB, until nothing more is there; `known` is a number that was given out for sure."""
        self._is_catching_up = True
        try:
            while (events := await self._read(wallet_id)) is not None:
                batch = self._follow(wallet_id, events)
                if len(events) < _READ_AT_ONCE and self.positions[wallet_id] < known:
                    # What was given out and is not there has been forgotten.
                    batch.append(Missed(wallet_id, self.positions[wallet_id], known + 1))
                    self.positions[wallet_id] = known
                if batch:
                    yield batch
                if len(events) < _READ_AT_ONCE:
                    return
        finally:
            self._is_catching_up = False

    def _follow(self, wallet_id: str, events: Sequence[Event]) -> list[Told | Missed]:
        batch: list[Told | Missed] = []
        for event in events:
            position = self.positions.get(wallet_id, 0)
            if event.sequence > position + 1:
                batch.append(Missed(wallet_id, position, event.sequence))
            batch.append(Told(wallet_id, event.sequence, event.type, orjson.dumps(event_view(event))))
            self.positions[wallet_id] = event.sequence
        self.positions.setdefault(wallet_id, 0)
        return batch

    async def _read(self, wallet_id: str) -> list[Event] | None:
        """Again and again while MongoDB is away: whoever waits here has nothing else to wait for. None where the feed
        ends before anything is read, which says nothing of what is there.
        """
        while self.ending is None:
            try:
                return await event_repository.find_after(
                    self.caller.user_id,
                    EventFilter(wallet_id),
                    after_sequence=self.positions.get(wallet_id, 0),
                    limit=_READ_AT_ONCE,
                )
            except PyMongoError as error:
                log.warning("events.not_read", error=repr(error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.ended.wait(), _RETRY_S)
        return None


class EventFeeds:
    """All feeds of a process. Without a stream it costs nothing."""

    def __init__(self, settings: Settings, ended_tokens: EndedTokens) -> None:
        self._settings = settings
        self._ended_tokens = ended_tokens
        self._feeds: dict[str, set[Feed]] = defaultdict(set)
        # How many are open, for whoever wants to know.
        self.counts: Counter[StreamKind] = Counter()
        self._subscription = Subscription(settings, self._on_message, self._on_joined)
        self._joined: set[str] = set()
        self._ticking: asyncio.Task[None] | None = None

    async def open(
        self, kind: StreamKind, caller: Caller, expires_at: datetime, after: Mapping[str, int] | None
    ) -> Feed:
        """From the numbers given on, for each wallet; without any, from now on. A wallet that they do not name is told
        from its first event.

        Raises TooManyStreams, NotFound for a wallet that is not the caller's, PositionUnknown for a number to come.
        """
        user_id = caller.user_id
        self._require_room(user_id)
        # Before the numbers are read: what is published in between comes twice rather than not at all.
        self._subscription.join(user_id)
        try:
            latest = (await wallet_repository.event_sequences([user_id])).get(user_id, {})
            positions = dict(latest) if after is None else _positions_after(after, latest)
            self._require_room(user_id)
        except BaseException:
            self._subscription.leave(user_id)
            raise
        feed = Feed(kind, caller, expires_at, positions, latest)
        self._feeds[user_id].add(feed)
        # What came since the numbers were read went past this feed.
        self._joined.add(user_id)
        self.counts[kind] += 1
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick_for_ever(), name="event-feeds")
        return feed

    def _require_room(self, user_id: str) -> None:
        of_user = len(self._feeds.get(user_id, ()))
        in_all, limit = self.counts.total(), self._settings.streams_limit
        # Towards the end there is room only for those who have none: a few users' many must not keep all others out.
        is_for_others = of_user > 0 and in_all >= limit * _FULL_FOR_SECONDS
        if of_user >= self._settings.streams_per_user or in_all >= limit or is_for_others:
            raise TooManyStreams(retry_after_s=_RETRY_AFTER_S, open_streams=of_user)

    def close_feed(self, feed: Feed) -> None:
        """Its stream is over, from whichever side."""
        user_id = feed.caller.user_id
        feeds = self._feeds.get(user_id, set())
        if feed not in feeds:
            return
        feeds.discard(feed)
        self.counts[feed.kind] -= 1
        if not feeds:
            del self._feeds[user_id]
        self._subscription.leave(user_id)

    def _on_message(self, user_id: str, message: bytes) -> None:
        feeds = self._feeds.get(user_id)
        if not feeds:
            return
        views: list[dict[str, Any]] = orjson.loads(message)
        for view in views:
            told = Told(view["wallet_id"], view["sequence"], view["type"], orjson.dumps(view))
            for feed in feeds:
                feed.offer(told)

    def _on_joined(self, user_id: str) -> None:
        self._joined.add(user_id)

    async def _tick_for_ever(self) -> None:
        tick = 0
        while True:
            await asyncio.sleep(_TICK_S)
            tick += 1
            try:
                self._end_what_may_not_go_on()
                # Of those whose channel is listened to since the last tick: what came before that is in MongoDB.
                joined, self._joined = self._joined, set()
                is_time = not self._subscription.is_live or tick % _TICKS_BETWEEN_LOOKS == 0
                await self._look([*self._feeds] if is_time else [*joined.intersection(self._feeds)])
            except PyMongoError as error:
                log.warning("events.not_looked", error=repr(error))
            except Exception:
                # A defect, which must not end the looking.
                log.exception("events.tick_failed")

    def _end_what_may_not_go_on(self) -> None:
        now = utc_now()
        for feeds in self._feeds.values():
            for feed in feeds:
                if feed.expires_at <= now or self._ended_tokens.has(feed.caller):
                    feed.end(Ending.TOKEN_ENDED)

    async def _look(self, user_ids: Sequence[str]) -> None:
        for start in range(0, len(user_ids), _USERS_AT_ONCE):
            found = await wallet_repository.event_sequences(user_ids[start : start + _USERS_AT_ONCE])
            for user_id, latest in found.items():
                for feed in self._feeds.get(user_id, ()):
                    feed.note(latest)

    async def close(self) -> None:
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.end(Ending.RESTART)
        if self._ticking is not None:
            await end(self._ticking)
        await self._subscription.close()


def _positions_after(after: Mapping[str, int], latest: Mapping[str, int]) -> dict[str, int]:
    for wallet_id, sequence in after.items():
        if wallet_id not in latest:
            raise NotFound(f"There is no wallet {wallet_id}")
        if sequence > latest[wallet_id]:
            raise PositionUnknown(wallet_id=wallet_id, latest_sequence=latest[wallet_id])
    return {wallet_id: after.get(wallet_id, 0) for wallet_id in latest}
