"""Events on their way to whoever is connected: Redis's publish and subscribe, one channel for each user.

Nothing here has to arrive: events stand in MongoDB, and who listens finds there what did not come. So nobody waits for
a Redis that is silent, and who publishes is not told whether anybody has heard.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.background import end
from service.settings import Settings

log = structlog.get_logger()

_CONNECT_S = 1.0
# For one batch of events. A Redis that hangs must not hold up the webhooks that follow.
_PUBLISH_S = 0.5
# One that has failed is not asked again for so long.
_AWAY_S = 1.0
# A connection that nothing is heard on gets a ping, and one that does not answer it is given up.
_PING_S = 1.0
_SILENT_S = 3.0
_RETRY_S = 1.0
# RuntimeError is what uvloop says of a connection that has closed in between.
_FAILURES = (RedisError, OSError, TimeoutError, RuntimeError)


class EventChannel:
    """What a process publishes with. One whose Redis is away says so once, and once that it is back."""

    def __init__(self, settings: Settings) -> None:
        self.prefix = f"events:{settings.database}:"
        self._client = _client_of(settings)
        self._away_until = 0.0
        self._is_away = False

    async def publish(self, messages: Mapping[str, bytes]) -> None:
        """One message for each user, for whoever listens at this moment."""
        if monotonic() < self._away_until:
            return
        try:
            async with asyncio.timeout(_PUBLISH_S), self._client.pipeline(transaction=False) as pipe:
                for user_id, message in messages.items():
                    pipe.publish(self.prefix + user_id, message)
                await pipe.execute()
        except _FAILURES as error:
            self._away_until = monotonic() + _AWAY_S
            if not self._is_away:
                log.warning("events.not_published", error=repr(error), instead="streams look into MongoDB")
            self._is_away = True
        else:
            self._is_away = False

    async def close(self) -> None:
        with suppress(*_FAILURES):
            await self._client.aclose()


class Subscription:
    """What a process listens with: one connection for all channels, made anew whenever it breaks.

    `on_message` gets a user's id and what came, `on_joined` each user whose channel is listened to from now on.
    """

    def __init__(
        self, settings: Settings, on_message: Callable[[str, bytes], None], on_joined: Callable[[str], None]
    ) -> None:
        self._prefix = f"events:{settings.database}:"
        self._settings = settings
        self._on_message, self._on_joined = on_message, on_joined
        # How often each has joined.
        self._users: Counter[str] = Counter()
        self._pubsub: PubSub | None = None
        self._heard_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    @property
    def is_live(self) -> bool:
        """Whether what is published now is going to come."""
        return self._pubsub is not None and monotonic() - self._heard_at < _SILENT_S

    def join(self, user_id: str) -> None:
        """Until it has left as often."""
        self._users[user_id] += 1
        if self._task is None:
            # The first one: a process that nobody listens at has no connection.
            self._task = asyncio.create_task(self._run(), name="event-subscription")
        elif self._pubsub is not None and self._users[user_id] == 1:
            self._call(self._pubsub.subscribe, user_id)

    def leave(self, user_id: str) -> None:
        self._users[user_id] -= 1
        if self._users[user_id]:
            return
        del self._users[user_id]
        if self._pubsub is not None:
            self._call(self._pubsub.unsubscribe, user_id)

    def _call(self, call: Callable[[str], Awaitable[None]], user_id: str) -> None:
        task = asyncio.create_task(_in_time(call, self._prefix + user_id))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _run(self) -> None:
        is_lost = False
        while True:
            client = _client_of(self._settings)
            try:
                async with client.pubsub() as pubsub:
                    async with asyncio.timeout(_SILENT_S):
                        # One that nobody publishes to keeps the connection in its mode while there is no user.
                        await pubsub.subscribe(self._prefix)
                        # Whoever joins from here on is subscribed by that; those who are there already, below.
                        self._pubsub, self._heard_at = pubsub, monotonic()
                        if self._users:
                            await pubsub.subscribe(*(self._prefix + user_id for user_id in self._users))
                    if is_lost:
                        log.warning("events.heard_again")
                    is_lost = False
                    await self._listen(pubsub)
            except _FAILURES as error:
                if not is_lost:
                    log.warning("events.not_heard", error=repr(error), instead="streams look into MongoDB")
                is_lost = True
            except Exception:
                # A defect, which must not end the listening.
                log.exception("events.subscription_failed")
            finally:
                self._pubsub = None
                with suppress(*_FAILURES):
                    await client.aclose()
            await asyncio.sleep(_RETRY_S)

    async def _listen(self, pubsub: PubSub) -> None:
        """Until the connection breaks or falls silent; raises what it broke with."""
        while True:
            message = await pubsub.get_message(timeout=_PING_S)
            if message is None:
                if monotonic() - self._heard_at > _SILENT_S:
                    raise TimeoutError("nothing heard")
                await pubsub.ping()
                continue
            self._heard_at = monotonic()
            if message["type"] in ("message", "subscribe"):
                user_id = message["channel"].decode().removeprefix(self._prefix)
                if message["type"] == "message":
                    self._on_message(user_id, message["data"])
                elif user_id:
                    self._on_joined(user_id)

    async def close(self) -> None:
        await end(*self._calls, *(() if self._task is None else (self._task,)))


async def _in_time(call: Callable[[str], Awaitable[None]], channel: str) -> None:
    """Where it fails the connection is about to be made anew, with every channel."""
    with suppress(*_FAILURES):
        async with asyncio.timeout(_SILENT_S):
            await call(channel)


def _client_of(settings: Settings) -> Redis:
    client: Redis = Redis.from_url(
        settings.redis_url.get_secret_value(), socket_connect_timeout=_CONNECT_S, retry=Retry(NoBackoff(), 0)
    )
    return client
