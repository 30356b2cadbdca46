"""How a worker ends that was told to: nothing new is taken, what is in hand is done or given back, everything closes.

Ours comes first and needs no Redis. arq's own way begins with Redis, and waits for one that is away until somebody
loses patience and kills the worker.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

log = structlog.get_logger()

# arq deletes its health key and leaves. Redis answers in milliseconds, or not at all.
_FAREWELL_S: Final = 2.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """Begins at the first signal and hears no other: it has limits of its own. `close` runs once, whoever asks."""

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        """To be made in arq's `on_startup`, which runs in arq's main task."""
        self._close = close
        self._main_task = asyncio.current_task()
        self._closing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # In place of arq's.
            loop.add_signal_handler(number, partial(self._on_signal, number))

    def _on_signal(self, number: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        for again in _SIGNALS:
            # Between two loops of arq's, and after the last, a further one would kill.
            loop.remove_signal_handler(again)
            signal.signal(again, signal.SIG_IGN)
        log.info("worker.told_to_end", signal=number.name)
        self._leaving = loop.create_task(self._leave(), name="ending")

    async def closed(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _leave(self) -> None:
        try:
            await self.closed()
        except Exception:
            log.exception("worker.not_closed")
        if self._main_task is not None:
            self._main_task.cancel()
        await asyncio.sleep(_FAREWELL_S)
        log.warning("worker.left_without_redis")
        sys.stdout.flush()
        # All that matters is done; there is nothing to be said to a Redis that does not listen.
        os._exit(0)
