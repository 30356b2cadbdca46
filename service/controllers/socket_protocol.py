"""The WebSocket server's side of a connection: uvicorn's, with bounds on what clients send and how slowly they read.

Started as `uvicorn --ws service.controllers.socket_protocol:GuardedSocketProtocol`.
"""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.server import ServerProtocol

# Nobody has anything to say here; a larger message is answered by closing with 1009.
MESSAGE_LIMIT_BYTES = 1024
# Of what comes at all: a client owes a pong of ten bytes every 20 s, and a close. Frames that the application never
# sees, pings and parts of a message, would keep the process busy for nothing, or fill its memory.
WINDOW_LIMIT_BYTES = 8 * 1024
WINDOW_S = 10.0
# For a reader whose side takes nothing: what is waiting for it has to move.
STALL_S = 10.0
# From the closing frame on: who has not closed by then does not read it.
LINGER_S = 12.0

# uvicorn's own lines on sockets show the query, and so the ticket.
_log = logging.getLogger("uvicorn.error.sockets")
_log.setLevel(logging.WARNING)


class GuardedSocketProtocol(WebSocketsSansIOProtocol):
    """No compression: events are short, and each connection would keep a window for it."""

    _stall: asyncio.TimerHandle | None = None
    _window_ends_s = 0.0
    _window_bytes = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 uvicorn's own
        super().__init__(*args, **kwargs)
        self.logger = _log
        self.conn = ServerProtocol(max_size=MESSAGE_LIMIT_BYTES, logger=_log)

    def data_received(self, data: bytes) -> None:
        """Counted before it is taken apart; what is too much is not. Of a message too large the beginning says so."""
        if not self.handshake_initiated:
            super().data_received(data)
            return
        now_s = self.loop.time()
        if now_s >= self._window_ends_s:
            self._window_ends_s, self._window_bytes = now_s + WINDOW_S, 0
        room = WINDOW_LIMIT_BYTES - self._window_bytes
        self._window_bytes += len(data)
        super().data_received(data[:room])
        if len(data) > room and not self.transport.is_closing():
            self.transport.abort()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.handshake_complete:
            # Refused already: no WebSocket, as its headers show.
            self.loop.call_later(LINGER_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_stall()
        super().connection_lost(exc)

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    async def send(self, message: Any) -> None:  # noqa: ANN401 uvicorn's own
        await super().send(message)
        if message["type"] == "websocket.close":
            self.loop.call_later(LINGER_S, self.transport.abort)

    def shutdown(self) -> None:
        """1012, and then not for longer than that."""
        super().shutdown()
        self.loop.call_later(1.0, self.transport.abort)
