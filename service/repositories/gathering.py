"""Round trips that are shared: what is asked for while one is under way goes together in the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

import pymongo

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# What a bulk operation still does in a moment; who comes behind it is in the next one.
_LIMIT = 256
# Many times what a trip takes: one that hangs, on a connection that was dropped in silence, must not stop all who ask.
_LIMIT_S = 5.0


class Gathered(Generic[Item, Answer]):
    """As the ledger's commits: no delay, a lone item goes at once, and a crowd of them pays for one round trip.

    Each caller keeps its own place: who is slow, fails or goes away afterwards concerns nobody else.
    """

    def __init__(
        self,
        do: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        limit: int = _LIMIT,
        limit_s: float = _LIMIT_S,
    ) -> None:
        """`do` answers each item, in their order, with an error where that one only is in trouble.

        What it raises, all who were in it get.
        """
        self._do = do
        self._limit, self._limit_s = limit, limit_s
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if self._runner is None or self._runner.done():
            # In a context of nobody's: a deadline of the first caller's is not the others'.
            self._runner = loop.create_task(self._run(), context=Context())
        return await future

    async def _run(self) -> None:
        # Those who are woken in the same turn of the loop belong together.
        await asyncio.sleep(0)
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            try:
                with pymongo.timeout(self._limit_s):
                    answers = await self._do([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 it is theirs who asked
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            except BaseException:
                # The loop is being closed: nobody is left waiting behind it.
                for _, future in (*batch, *self._waiting):
                    future.cancel()
                self._waiting.clear()
                raise
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
