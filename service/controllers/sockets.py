"""Events over a WebSocket. What clients have to know of it stands at the route for tickets (controllers/events.py)."""

import asyncio
from typing import Annotated, Final
from urllib.parse import parse_qsl, urlsplit

import structlog
from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Query, Response, WebSocket
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from service.background import end
from service.controllers.events import missed, ready
from service.controllers.pagination import Query as StrictQuery
from service.controllers.problems import problem_response
from service.controllers.routing import API_PREFIX, api_router
from service.controllers.stream_positions import parse_positions
from service.database import OUTAGES
from service.errors import (
    FieldError,
    Forbidden,
    InvalidFields,
    Unauthenticated,
    Unavailable,
    UpgradeRequired,
    WalletServiceError,
)
from service.services.event_feed import Ending, Feed, Missed, StreamKind
from service.services.stream_tickets import use_ticket
from service.settings import Settings
from service.startup import Resources

log = structlog.get_logger()

router = APIRouter(prefix=API_PREFIX)
plain_router = api_router("Events")

# RFC 6455 and IANA's registry; 4000 and above are ours.
CLOSE_CODES: Final = {Ending.TOKEN_ENDED: 4401, Ending.TOO_SLOW: 1013, Ending.RESTART: 1012}
_NOTHING_TO_SAY: Final = 1008
_HEARTBEAT_S: Final = 60.0
_RETRY_AFTER_S: Final = 2


class HandshakeQuery(StrictQuery):
    """What follow_events reads by itself."""

    ticket: str | None = None
    after: str | None = None


@plain_router.get("/ws", include_in_schema=False)
async def refuse_plain_request(_query: Annotated[HandshakeQuery, Query()]) -> Response:
    """For whatever the connection does not take for a handshake (http_protocol.py)."""
    response = problem_response(UpgradeRequired())
    # RFC 9110, section 15.5.22: it has to say to what.
    response.headers["Upgrade"] = "websocket"
    return response


@router.websocket("/ws")
async def follow_events(socket: WebSocket) -> None:
    """A handshake is refused as any request is: by a problem document."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=correlation_id.get())
    resources: Resources = socket.app.state.resources
    try:
        feed = await _admit(socket, resources)
    except WalletServiceError as refusal:
        log.info("stream.refused", kind=StreamKind.WEBSOCKET, error=refusal.code)
        await socket.send_denial_response(problem_response(refusal))
        return
    except OUTAGES as error:
        log.error("stream.failed", kind=StreamKind.WEBSOCKET, error=repr(error))  # noqa: TRY400 an outage needs no traceback
        await socket.send_denial_response(problem_response(Unavailable(retry_after_s=_RETRY_AFTER_S)))
        return
    try:
        log.info("stream.opened", kind=feed.kind, user_id=feed.caller.user_id)
        await socket.accept()
        await _serve(socket, feed)
    finally:
        resources.event_feeds.close_feed(feed)
        log.info("stream.closed", kind=feed.kind, user_id=feed.caller.user_id, ending=feed.ending)


async def _admit(socket: WebSocket, resources: Resources) -> Feed:
    """What costs least comes first; the ticket is used up before anything is said about wallets."""
    _require_known_origin(socket, resources.settings)
    asked = _query_of(socket)
    after = parse_positions(asked.get("after"))
    if "ticket" not in asked:
        raise Unauthenticated("A WebSocket needs a ticket: POST /api/v1/ws/tickets")
    caller, ends_at = await use_ticket(asked["ticket"], resources.settings)
    if resources.ended_tokens.has(caller):
        raise Unauthenticated("The access token is no longer valid")
    return await resources.event_feeds.open(StreamKind.WEBSOCKET, caller, ends_at, after)


def _require_known_origin(socket: WebSocket, settings: Settings) -> None:
    """Browsers say whose page it is, and let any page try (RFC 6455, section 10.2). Others say nothing."""
    origins = socket.headers.getlist("origin")
    if not origins:
        return
    if len(origins) != 1 or not (_is_own(origins[0], socket) or origins[0] in settings.cors_origins):
        raise Forbidden("Pages of this origin may not connect")


def _is_own(origin: str, socket: WebSocket) -> bool:
    """A page of ours by plain HTTP is anybody's where we are reached by TLS. Not the other way round: TLS may end at a
    proxy that does not tell.
    """
    try:
        scheme, host, *_ = urlsplit(origin)
    except ValueError:
        return False
    schemes = ("https",) if socket.url.scheme == "wss" else ("http", "https")
    return scheme in schemes and host == socket.headers.get("host", "").lower()


def _query_of(socket: WebSocket) -> dict[str, str]:
    try:
        asked = parse_qsl(
            socket.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=10
        )
    except ValueError:
        asked = [("", "")]
    names = [name for name, _ in asked]
    if len(set(names)) != len(names) or not set(names) <= {"ticket", "after"}:
        raise InvalidFields(fields=(FieldError("/query", "extra_forbidden", "Send ticket and after, each once"),))
    return dict(asked)


async def _serve(socket: WebSocket, feed: Feed) -> None:
    telling = asyncio.create_task(_tell(socket, feed))
    listening = asyncio.create_task(_listen(socket))
    try:
        await asyncio.wait((telling, listening), return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            is_gone = listening.result()
            if not is_gone:
                await socket.close(_NOTHING_TO_SAY, "Nothing is to be sent here")
        else:
            # Raises what the telling failed with; the protocol breaks the connection off then.
            telling.result()
            if feed.ending is not None:
                await socket.close(CLOSE_CODES[feed.ending], feed.ending)
    except WebSocketDisconnect:
        # Gone while something was on its way to it.
        log.debug("stream.gone")
    finally:
        await end(telling, listening)


async def _tell(socket: WebSocket, feed: Feed) -> None:
    await socket.send_text(ready(feed.positions).decode())
    async for batch in feed.batches(_HEARTBEAT_S):
        for item in batch:
            payload = missed(item) if isinstance(item, Missed) else item.payload
            await socket.send_text(payload.decode())


async def _listen(socket: WebSocket) -> bool:
    """True once the other side has gone; False where it says something."""
    message: Message = await socket.receive()
    if message["type"] == "websocket.connect":
        message = await socket.receive()
    is_gone: bool = message["type"] == "websocket.disconnect"
    return is_gone
