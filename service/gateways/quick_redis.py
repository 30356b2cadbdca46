"""Redis for what must not wait for it: scripts that answer within a fifth of a second, or not at all."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.settings import Settings

log = structlog.get_logger()

# Nobody's request waits longer than both together.
_PATIENCE_S = 0.15
# When the event loop itself was held up, the answer may be there and only not have been read.
_GRACE_S = 0.05
# How often one that is gone is asked whether it is back.
_PROBE_S = 1.0
_PROBE_LIVES_MS = 1000
_CONNECTIONS_LIMIT = 32
# RuntimeError is what uvloop says of a connection that has closed in between.
_FAILURES = (RedisError, OSError, TimeoutError, RuntimeError)


class RedisAwayError(Exception):
    """Redis did not answer, or not in time; until it does, nobody waits for it again."""


class QuickRedis:
    """One for a process. Says once that Redis has gone, and once that it is back."""

    def __init__(self, settings: Settings) -> None:
        self.prefix = f"limits:{settings.database}"
        pool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=_CONNECTIONS_LIMIT,
            timeout=_PATIENCE_S,
            # What comes too late is of no use: memory answers instead. The client's own timeouts stay off: they know of
            # no grace.
            retry=Retry(NoBackoff(), 0),
        )
        self._client = Redis(connection_pool=pool)
        self._pool = pool
        self._calls: set[asyncio.Future[Any]] = set()
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_away(self) -> bool:
        return self._probing is not None

    def script(self, text: str) -> Any:  # noqa: ANN401 the client's type for it has no name that is public
        return self._client.register_script(text)

    async def run(self, script: Any, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:  # noqa: ANN401 as above
        """What the script returns. Raises RedisAwayError, at once while Redis is known to be gone."""
        if self.is_away:
            raise RedisAwayError
        try:
            return await self._in_time(script(keys, arguments))
        except _FAILURES as error:
            self._lose(error)
            raise RedisAwayError from error

    async def _in_time(self, call: Any) -> Any:  # noqa: ANN401 whatever the call returns
        task = asyncio.ensure_future(call)
        try:
            done, _ = await asyncio.wait((task,), timeout=_PATIENCE_S)
            if not done:
                done, _ = await asyncio.wait((task,), timeout=_GRACE_S)
        finally:
            if not task.done():
                self._abandon(task)
        if not done:
            raise TimeoutError("no answer in time")
        return task.result()

    def _abandon(self, task: asyncio.Future[Any]) -> None:
        """Closes its connection, in its own time: an answer that still came would be taken for the next one's."""
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        task.cancel()

    def _lose(self, error: Exception) -> None:
        if self._probing is None:
            log.warning("redis.lost", error=repr(error), instead="limits in this process's memory")
            self._probing = asyncio.create_task(self._probe(), name="redis-probe")

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_S)
            with suppress(*_FAILURES):
                # One that is full, or a replica by now, answers a ping and takes nothing.
                await self._in_time(self._client.set(f"{self.prefix}:probe", 1, px=_PROBE_LIVES_MS))
                break
        self._probing = None
        log.warning("redis.back")

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
        with suppress(*_FAILURES):
            await self._pool.disconnect()
