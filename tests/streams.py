"""Listeners: what a client of the WebSocket and of the Server-Sent Events does, in a test's words."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.person import Person

_PATIENCE_S = 20.0

Message = dict[str, Any]


def positions_text(positions: Mapping[str, int]) -> str:
    return ",".join(f"{wallet_id}:{sequence}" for wallet_id, sequence in positions.items())


async def ticket_of(person: Person) -> str:
    answer = await person.http.post("/api/v1/ws/tickets", headers=person.headers)
    assert answer.status_code == 201, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket


def socket_url(base_url: str, ticket: str | None, after: Mapping[str, int] | None = None) -> str:
    query = [] if ticket is None else [f"ticket={ticket}"]
    query += [] if after is None else [f"after={positions_text(after)}"]
    return f"{base_url.replace('http', 'ws', 1)}/api/v1/ws?{'&'.join(query)}"


@asynccontextmanager
async def listening(
    base_url: str, person: Person, after: Mapping[str, int] | None = None, **options: Any
) -> AsyncIterator[ClientConnection]:
    """Connected, and told from where on it is going to hear."""
    url = socket_url(base_url, await ticket_of(person), after)
    async with connect(url, compression=None, proxy=None, **options) as socket:
        ready = await hear(socket)
        assert ready["type"] == "stream.ready"
        yield socket


async def hear(socket: ClientConnection) -> Message:
    message: Message = json.loads(await asyncio.wait_for(socket.recv(), _PATIENCE_S))
    return message


async def hear_until(socket: ClientConnection, wallet_id: str, sequence: int) -> list[Message]:
    heard: list[Message] = []
    while not heard or (heard[-1].get("wallet_id"), heard[-1].get("sequence")) != (wallet_id, sequence):
        heard.append(await hear(socket))
    return heard


def numbers(messages: Sequence[Message]) -> dict[str, list[int]]:
    """By wallet, in the order in which they came."""
    by_wallet: dict[str, list[int]] = defaultdict(list)
    for message in messages:
        by_wallet[message["wallet_id"]].append(message["sequence"])
    return dict(by_wallet)


async def frames_of(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Server-Sent Events one by one, without comments."""
    frame: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            frame[name] = value
        else:
            if "data" in frame:
                yield frame
            frame = {}
