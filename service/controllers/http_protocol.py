"""The HTTP/1.1 server's side of a connection: uvicorn's, with a bound on how slowly and how much one may send.

Started as `uvicorn --http service.controllers.http_protocol:GuardedHttpProtocol`. Without it a connection that says
nothing, or one byte a minute, is kept for ever; a proxy in front would see to the same, but need not be there.
"""

import asyncio
import sys
from socket import IPPROTO_TCP

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.controllers.connections import CONNECTIONS, Connections
from service.controllers.raw_problems import raw_problem
from service.controllers.socket_protocol import is_handshake
from service.errors import HeadersTooLarge, Malformed, RequestTimeout, TooManyConnections, WalletServiceError

# From its first byte to its last: on a telephone's line far more than LARGE_BODY_LIMIT_BYTES.
BODY_TIMEOUT_S = 30.0
# From the connection, or from the first byte of a later request, to the end of the headers.
HEAD_TIMEOUT_S = 10.0
# Longer heads are refused. One packet from the socket may go beyond the limit.
HEAD_LIMIT_BYTES = 32 * 1024
# For the rest of a body that nobody has waited for, e.g. behind a 404.
LINGER_S = 5.0
# For a reader whose side takes nothing: of what is waiting for it so much has to move in this time.
STALL_S = 10.0
_MOVED_BYTES = 16 * 1024
# Linux's TCP_NOTSENT_LOWAT, tcp(7), which Python has a name for from 3.12 on: a kernel keeps megabytes for a reader who
# takes nothing, and until they are full nobody here knows of it. What is under way to one who reads does not count.
_NOTSENT_LOWAT = 25
_UNSENT_BYTES = 64 * 1024
# Where an answer that has no end by itself leaves what ends it: the scope's key of a function without arguments.
END_STREAM = "end_stream"
# A refused client may try again after this: a connection may be free by then.
_RETRY_AFTER_S = 1


class GuardedHttpProtocol(HttpToolsProtocol):
    """What comes in one piece, as nearly all requests do, costs no timer.

    A body that is too slow looks to the application as if the client had gone.
    """

    _deadline: asyncio.TimerHandle | None = None
    _in_head = False
    _in_body = False
    _head_bytes = 0
    # Nothing more is listened to; what was asked before is answered yet.
    _is_last = False
    # The request is a whole handshake, for the protocol of WebSockets to take over.
    _is_handshake = False
    # A WebSocket by now: another protocol listens.
    _is_upgraded = False
    # None where the server was started without an application's state.
    _connections: Connections | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._connections = self.app_state.get(CONNECTIONS)
        peer = self.client[0] if self.client else None
        if self._connections is not None and not self._connections.admit(transport, peer):
            self._is_last = True
            transport.write(raw_problem(TooManyConnections(retry_after_s=_RETRY_AFTER_S)))
            transport.close()
            return
        self._set_deadline(HEAD_TIMEOUT_S)
        if sys.platform == "linux":
            transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        self._forget_stall()
        if self._connections is not None:
            self._connections.forget(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        if not self._in_body:
            # Before it is looked at: where another request ends in it, that one's bytes are not this head's.
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._is_last or self._is_upgraded:
            return
        if self._in_head or not (self._in_body or self._is_answering):
            # Empty lines are no head yet, but have ended uvicorn's own wait for one.
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self._refuse(HeadersTooLarge())
            elif self._deadline is None:
                self._set_deadline(HEAD_TIMEOUT_S)
        elif self._in_body and self._deadline is None:
            # For all of it: whoever sends a byte now and then does not begin anew with each.
            self._set_deadline(BODY_TIMEOUT_S)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._in_body = True
        self._drop_deadline()
        self._is_handshake = bool(self.parser.should_upgrade()) and self._asks_for_socket()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._drop_deadline()
        super().on_message_complete()

    def _asks_for_socket(self) -> bool:
        """Whatever else asks for an upgrade is a request like any other, which the application answers (RFC 9110, 7.8).

        A body that came with it, or an answer that is still to be written, would get into the socket's frames.
        """
        if self.pipeline or self._is_answering or self.parser.get_http_version() != "1.1":
            return False
        lines = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b\r\n" % header for header in self.headers]
        return self._get_upgrade() == b"websocket" and is_handshake(b"".join([*lines, b"\r\n"]))

    def _should_upgrade(self) -> bool:
        return self._is_handshake and self._should_upgrade_to_ws()

    def handle_websocket_upgrade(self) -> None:
        self._is_upgraded = True
        self._drop_deadline()
        self._forget_stall()
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """The parser has lost what came behind the request: nothing more is listened to. The request has its own line
        in the log.
        """
        if self._is_answering:
            self._end_after_answers()
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """A stream would go on for ever, and the server wait for it."""
        super().shutdown()
        if self._is_streaming:
            self.cycle.scope[END_STREAM]()  # type: ignore[literal-required]  # ours, not ASGI's

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall is None:
            self._watch_for_stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def _watch_for_stall(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(STALL_S, self._on_stall_time, waiting)

    def _on_stall_time(self, waited: int) -> None:
        if self.transport.get_write_buffer_size() > waited - _MOVED_BYTES:
            self.transport.abort()
        else:
            self._watch_for_stall()

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    @property
    def _is_streaming(self) -> bool:
        return self._is_answering and END_STREAM in self.cycle.scope

    def on_response_complete(self) -> None:
        if END_STREAM in self.cycle.scope:
            # Its last words are sent; a side that takes nothing does not keep the connection.
            self.loop.call_later(STALL_S, self.transport.abort)
        is_last = self._is_last and not self.pipeline
        super().on_response_complete()
        if is_last:
            self.transport.close()
        if self._in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._set_deadline(LINGER_S)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 uvicorn's own words
        self._refuse(Malformed("This is not HTTP"))

    def _set_deadline(self, seconds: float) -> None:
        self._drop_deadline()
        self._deadline = self.loop.call_later(seconds, self._on_deadline)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.pipeline or (self._is_answering and not self.cycle.more_body):
            # A request before this one takes its time, and then nothing is read meanwhile.
            self._set_deadline(HEAD_TIMEOUT_S)
        elif self._is_answering or self._in_head:
            self._refuse(RequestTimeout())
        else:
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Tells whether no request on this connection is unanswered."""
        return not (self._is_answering or self.pipeline or self._is_upgraded)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, error: WalletServiceError) -> None:
        """For the application there is no request yet, or half of one. Nor may this get between two answers."""
        if self.pipeline or (self._is_answering and (self.cycle.response_started or not self.cycle.more_body)):
            # A whole request came before: its answer is the last one.
            if self.pipeline and self.cycle.more_body:
                self.pipeline.popleft()
            self._end_after_answers()
            return
        self.transport.write(raw_problem(error))
        if self._is_answering:
            # Whoever still waits for the body is told that nobody is there any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _end_after_answers(self) -> None:
        """Answers what was asked so far, and listens to nothing more."""
        self._is_last = True
        if not self.pipeline:
            self.cycle.keep_alive = False
        self._drop_deadline()
        self.flow.pause_reading()
