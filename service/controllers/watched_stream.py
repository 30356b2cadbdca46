"""Answers of any length, sent as they are made, for as long as somebody listens."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

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
        time_limit_s: float | None = None,
    ) -> None:
        """An answer that takes longer than `time_limit_s` is broken off."""
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._close = close
        self._time_limit_s = time_limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 ASGI
        sending = asyncio.ensure_future(self.stream_response(send))
        hanging_up = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((sending, hanging_up), timeout=self._time_limit_s, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        finally:
            try:
                # Whom their failures would concern has hung up.
                await end(sending, hanging_up)
            finally:
                # Here, and not where the chunks are made: those were cancelled, and could not tell the database.
                await self._close()
