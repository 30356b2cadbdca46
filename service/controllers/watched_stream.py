"""Answers of any length, sent as they are made, for as long as somebody listens."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.background import end


class WatchedStream(StreamingResponse):
    """`close` is called however it ends.

    What fails within the body breaks the connection off, which no client takes for its end: the last chunk, of length
    zero, never comes.

    Starlette's own way watches for a client that hangs up by anyio, whose backend takes 7 MB for it.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        media_type: str,
        headers: Mapping[str, str],
        close: Callable[[], Awaitable[None]],
        *,
        stall_limit_s: float | None = None,
    ) -> None:
        """Breaks the answer off when nothing of it was sent for `stall_limit_s`."""
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._close = close
        self._stall_limit_s = stall_limit_s
        self._messages_sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 ASGI
        async def send_counted(message: Message) -> None:
            await send(message)
            self._messages_sent += 1

        sending = asyncio.ensure_future(self.stream_response(send_counted))
        hanging_up = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await self._wait_while_it_moves(sending, hanging_up)
            if sending.done():
                await sending
        finally:
            try:
                # Whom their failures would concern has hung up.
                await end(sending, hanging_up)
            finally:
                # Here, and not where the chunks are made: those were cancelled, and could not tell the database.
                await self._close()

    async def _wait_while_it_moves(self, sending: asyncio.Future[None], hanging_up: asyncio.Future[None]) -> None:
        """Returns when either has ended, or a whole `stall_limit_s` has gone by without a message sent."""
        sent_before = -1
        while sent_before != self._messages_sent:
            sent_before = self._messages_sent
            done, _ = await asyncio.wait(
                (sending, hanging_up), timeout=self._stall_limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
