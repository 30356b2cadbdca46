"""The WebSocket server's side of a connection: uvicorn's, with bounds on what clients send and how slowly they read.

It gets whole handshakes alone: what is none never leaves http_protocol.py.

Started as `uvicorn --ws service.controllers.socket_protocol:GuardedSocketProtocol`.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.server import ServerProtocol

from service.controllers.connections import CONNECTIONS, Connections
from service.controllers.raw_problems import raw_problem
from service.errors import Unavailable

# Nobody has anything to say here; a larger message is answered by closing with 1009.
MESSAGE_LIMIT_BYTES = 1024
# Of what comes at all: a client owes a pong of ten bytes every 20 s, and a close. Frames that the application never
# sees, pings and parts of a message, would keep the process busy for nothing, or fill its memory.
WINDOW_LIMIT_BYTES = 8 * 1024
WINDOW_S = 10.0
# From the handshake to the answer: what it waits for is ours, a ticket and the wallets in MongoDB.
HANDSHAKE_TIMEOUT_S = 10.0
# What a refused one may take to read the answer.
_REFUSAL_S = 1.0
_RETRY_AFTER_S = 2
# The one path that has a WebSocket.
SOCKET_PATH: Final = b"/api/v1/ws"
# For a reader whose side takes nothing: what is waiting for it has to move.
STALL_S = 10.0
# From the closing frame on: who has not closed by then does not read it.
LINGER_S = 12.0

# uvicorn's own lines on sockets show the query, and so the ticket.
_log = logging.getLogger("uvicorn.error.sockets")
_log.setLevel(logging.WARNING)


def is_handshake(head: bytes) -> bool:
    """Whether the library, asked about the head of a request, would open a WebSocket for it, on the path that has one.

    What it would not take it does not always answer, so that the connection would stay for ever.
    """
    if head.split(b" ", 2)[1].partition(b"?")[0] != SOCKET_PATH:
        return False
    trial = ServerProtocol(logger=_log)
    trial.receive_data(head)
    requests = trial.events_received()
    if len(requests) != 1 or not isinstance(requests[0], Request):
        return False
    return trial.accept(requests[0]).status_code == HTTPStatus.SWITCHING_PROTOCOLS


class GuardedSocketProtocol(WebSocketsSansIOProtocol):
    """No compression: events are short, and each connection would keep a window for it."""

    _stall: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HANDSHAKE_TIMEOUT_S, self._on_handshake_time)

    def _on_handshake_time(self) -> None:
        if self.handshake_complete or self.transport.is_closing():
            return
        # For the application it looks as if the client had gone.
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.handshake_complete = self.close_sent = self.disconnected = True
        self.transport.write(raw_problem(Unavailable(retry_after_s=_RETRY_AFTER_S)))
        self._end_soon()

    def _end_soon(self) -> None:
        """Also where the other side does not read."""
        self.transport.close()
        self.loop.call_later(_REFUSAL_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_stall()
        if self._deadline is not None:
            self._deadline.cancel()
        connections: Connections | None = self.app_state.get(CONNECTIONS)
        if connections is not None:
            connections.forget(self.transport)
        super().connection_lost(exc)

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    async def send(self, message: Any) -> None:  # noqa: ANN401 uvicorn's own
        await super().send(message)
        if message["type"] == "websocket.close":
            self.loop.call_later(LINGER_S, self.transport.abort)
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Refused, which is an end of it too: uvicorn would call it an error of the application's.
            self.handshake_complete = True
            self._end_soon()

    def shutdown(self) -> None:
        """1012, and then not for longer than that."""
        super().shutdown()
        self.loop.call_later(1.0, self.transport.abort)
