"""Events over HTTP: to read, and as a stream."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Self

import orjson
from fastapi import Header, Query, Request, Response
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.controllers.answers import json_response
from service.controllers.cookies import access_token_of
from service.controllers.dependencies import OpenResources, require
from service.controllers.http_protocol import END_STREAM
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.pagination import Query as StrictQuery
from service.controllers.routing import api_router
from service.controllers.schemas import TIME, PageView, View, problem_responses
from service.controllers.stream_positions import POSITIONS_LENGTH_LIMIT, parse_positions, positions_text
from service.controllers.watched_stream import WatchedStream
from service.domain.clock import to_rfc3339
from service.domain.events import EventType, event_view
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.permissions import Permission
from service.errors import NotFound
from service.services import events
from service.services.access_tokens import expiry_of
from service.services.callers import Caller
from service.services.event_feed import Ending, Feed, Missed, StreamKind
from service.services.events import EventFilter
from service.services.stream_tickets import issue_ticket

router = api_router("Events")

_EXAMPLE: dict[str, Any] = {
    "id": "evt_0198c0ffee00f1d2c3b4a5968778695a",
    "type": "withdrawal.succeeded",
    "wallet_id": "wal_0198c0ffee0070008000000000000001",
    "sequence": 12,
    "subject_id": "wdr_0198c0ffee0070008000000000000001",
    "status": "success",
    "previous_status": "processing",
    "data": {
        "id": "wdr_0198c0ffee0070008000000000000001",
        "type": "withdrawal",
        "status": "success",
        "amount": 10000,
        "currency": "INR",
        "wallet_id": "wal_0198c0ffee0070008000000000000001",
        "destination": "•••• 0001",
    },
    "request_id": "5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
    "created_at": "2026-02-24T12:34:56.789Z",
}
_POSITIONS_EXAMPLE = "wal_0198c0ffee0070008000000000000001:12"
_HEARTBEAT_S = 15.0
# EventSource waits for so long before it comes again.
_RETRY_MS = 1000


class EventView(View):
    """One change of a status, told to the owner of the wallet that it concerns."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    type: EventType = Field(description="What happened: the noun, and the status that was reached")
    wallet_id: str
    sequence: int = Field(ge=1, description="Counts from 1 within the wallet, without gaps")
    subject_id: str = Field(description="The deposit, transfer, wallet … that it is about")
    status: str
    previous_status: str | None = Field(description="None: it is new")
    data: dict[str, Any] = Field(description="The subject as the API showed it at that moment")
    request_id: str | None = Field(description="Of the request that led to it")
    created_at: str = TIME


class EventsQuery(PageQuery):
    """`types` may be given several times."""

    wallet_id: Annotated[
        str | None,
        Field(
            pattern=r"^wal_[0-9a-f]{32}$",
            examples=["wal_0198c0ffee0070008000000000000001"],
            description="Only of this one",
        ),
    ] = None
    after_sequence: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_AMOUNT_MINOR,
            description="With `wallet_id`: its events from the next number on, **oldest first**, page by page.",
            examples=[12],
        ),
    ] = None
    types: Annotated[
        tuple[EventType, ...],
        Field(max_length=len(EventType), description="One of these", examples=[["withdrawal.succeeded"]]),
    ] = ()

    @model_validator(mode="after")
    def _numbers_are_of_a_wallet(self) -> Self:
        if self.after_sequence is not None and self.wallet_id is None:
            raise PydanticCustomError("wallet_missing", "after_sequence counts within a wallet: send wallet_id too")
        return self


@router.get(
    "/events",
    response_model=PageView[EventView],
    responses=problem_responses(NotFound),
    summary="One's events, newest first or on from a number",
    description="Each change of a status in one's wallets. With `wallet_id` and `after_sequence` what came after that "
    "event, in order: for whoever was away. They are kept for 30 days.\n\n"
    "**As they happen**, over a WebSocket (see `POST /api/v1/ws/tickets`) or, plainer, as Server-Sent Events: "
    "`GET /api/v1/events/stream` with the access token. There an event's `id` says how far one has got in all of one's "
    "wallets; sent back as `Last-Event-ID` (or `?after=`), nothing is missed and nothing comes twice; without it the "
    "stream begins now. `stream.ready` comes first, `stream.missed` in place of events that are not kept any more, "
    "`stream.ended` last; a comment each 15 s says that the stream lives. It ends with the token.",
)
async def list_events(
    query: Annotated[EventsQuery, Query()],
    user: Annotated[Caller, require(Permission.EVENTS_READ)],
    resources: OpenResources,
) -> Response:
    wanted = EventFilter(query.wallet_id, query.types)
    if query.after_sequence is None:
        page = open_page(query, resources.settings, "events", user.user_id, str)
        found = await events.list_newest(user.user_id, wanted, before_id=page.position, limit=page.limit_and_one)
        return page_of(found, page, lambda event: event.id, event_view)
    forward = open_page(query, resources.settings, "events_after", user.user_id, int)
    after = query.after_sequence if forward.position is None else forward.position
    found = await events.read_on(user.user_id, wanted, after_sequence=after, limit=forward.limit_and_one)
    return page_of(found, forward, lambda event: event.sequence, event_view)


class StreamQuery(StrictQuery):
    after: Annotated[
        str | None,
        Field(
            max_length=POSITIONS_LENGTH_LIMIT,
            description="What was seen already, as `Last-Event-ID` has it, which wins",
            examples=[_POSITIONS_EXAMPLE],
        ),
    ] = None


# Not in the document: whoever tries all that is in there would wait for the end of an answer that has none.
@router.get(
    "/events/stream",
    include_in_schema=False,
)
async def stream_events(
    request: Request,
    query: Annotated[StreamQuery, Query()],
    user: Annotated[Caller, require(Permission.EVENTS_FOLLOW)],
    resources: OpenResources,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=POSITIONS_LENGTH_LIMIT, description="`id` of the last event seen"),
    ] = None,
) -> Response:
    """For those who cannot or need not speak WebSocket: the same events under the same numbers (`/api/v1/ws`).

    An event's `id` says how far one has got in all of one's wallets. Sent back as `Last-Event-ID`, nothing is missed
    and nothing comes twice; without it the stream begins now. `stream.ready` comes first, `stream.missed` in place of
    events that are not kept any more, `stream.ended` last. A line of comment each 15 s says that the stream lives.
    Who does not read is cut off after 10 s. With the access token (not an API key), whose end is that of the stream.
    """
    feed = await resources.event_feeds.open(
        StreamKind.SSE,
        user,
        expiry_of(access_token_of(request), resources.settings),
        parse_positions(last_event_id or query.after),
    )
    request.scope[END_STREAM] = lambda: feed.end(Ending.RESTART)

    async def close() -> None:
        resources.event_feeds.close_feed(feed)

    # So that nobody on the way keeps it until it is complete.
    headers = {"X-Accel-Buffering": "no", "Connection": "close"}
    return WatchedStream(_frames(feed), "text/event-stream", headers, close)


async def _frames(feed: Feed) -> AsyncIterator[bytes]:
    positions = dict(feed.positions)
    yield b"retry: %d\n\n" % _RETRY_MS + _frame(positions, "stream.ready", ready(positions))
    async for batch in feed.batches(_HEARTBEAT_S):
        frames = []
        for item in batch:
            if isinstance(item, Missed):
                positions[item.wallet_id] = item.next_sequence - 1
                frames.append(_frame(positions, "stream.missed", missed(item)))
            else:
                positions[item.wallet_id] = item.sequence
                frames.append(_frame(positions, item.type, item.payload))
        yield b"".join(frames) or b": still here\n\n"
    ended = orjson.dumps({"type": "stream.ended", "reason": feed.ending})
    yield _frame(positions, "stream.ended", ended)


def _frame(positions: Mapping[str, int], name: str, data: bytes) -> bytes:
    """JSON has no line break, so that it is one line of data."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (positions_text(positions).encode(), name.encode(), data)


def ready(positions: Mapping[str, int]) -> bytes:
    """What each stream begins with: from where on it tells."""
    return orjson.dumps({"type": "stream.ready", "positions": positions})


def missed(gap: Missed) -> bytes:
    return orjson.dumps({"type": "stream.missed", **gap._asdict()})


class TicketView(View):
    """Opens one WebSocket, once."""

    ticket: str = Field(examples=["q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ"])
    expires_at: str = TIME
    stream_ends_at: str = Field(
        json_schema_extra={"format": "date-time"},
        examples=["2026-02-24T12:49:56.789Z"],
        description="When the access token ends, and the WebSocket with it",
    )


@router.post(
    "/ws/tickets",
    status_code=201,
    response_model=TicketView,
    summary="Get a ticket for a WebSocket",
)
async def create_stream_ticket(
    request: Request, user: Annotated[Caller, require(Permission.EVENTS_FOLLOW)], resources: OpenResources
) -> Response:
    """Then, within 30 s, `GET /api/v1/ws?ticket=…` with the handshake of a WebSocket (RFC 6455).

    The first message is `{"type": "stream.ready", "positions": {wallet: number}}`; then each event comes as a text
    message of its own, as `GET /api/v1/events` shows it. After a break: `&after=wal_…:12,wal_…:7`, the numbers seen
    last in each wallet, and nothing is missed and nothing comes twice; a wallet that is not named is told from its
    first event; without `after` the stream begins now. `{"type": "stream.missed", "wallet_id", "after_sequence",
    "next_sequence"}` stands for events that are not kept any more. Nothing is to be sent: a message closes with
    `1008`, one above 1 kB with `1009`.

    Refused handshakes: `401` (a ticket that is used, expired or none), `403` (a page of another origin), `404`
    (somebody else's wallet in `after`), `422`, `429` (10 streams of one user are open). Closed from our side: `4401`
    the token has ended, `1013` you read too slowly, `1012` we restart: come again, with `after`. Pings come each 20 s.
    """
    ticket = issue_ticket(user, expiry_of(access_token_of(request), resources.settings), resources.settings)
    body = {
        "ticket": ticket.text,
        "expires_at": to_rfc3339(ticket.expires_at),
        "stream_ends_at": to_rfc3339(ticket.stream_ends_at),
    }
    return json_response(body, 201)
