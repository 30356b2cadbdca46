"""Each group of attacks finds what it is for, in a service that was broken on purpose."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from tests.security import wire
from tests.security.findings import report
from tests.security.target import Target
from tests.security.weakened import WEAKENINGS, Weakening, build
from tests.security.world import World


@pytest.fixture(scope="module")
async def spare_world(target: Target) -> World:
    """One whose people may come to harm."""
    return await World.make(target.world.app, target.world.api, target.routes)


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.name)
async def test_a_weakness_is_found(
    target: Target, spare_world: World, monkeypatch: pytest.MonkeyPatch, weakening: Weakening
) -> None:
    routes = [route for route in target.routes if str(route) in weakening.routes]
    assert len(routes) == len(weakening.routes), "a route that it is looked for on is there no more"
    weakening.weaken(monkeypatch)
    weak = build(target.world.resources)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(weak), base_url="http://wallet.example") as api:
        findings = await weakening.attack(Target(api, spare_world, routes))
    found = [one for one in findings if re.search(weakening.finds, one.attack)]
    assert found, f"{weakening.attack.__module__} has nothing against it that {weakening.name}: {report(findings)}"


async def _answer_whatever_comes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads requests in its own way: a line feed ends a line, the first length counts, chunks are not known."""
    try:
        while line := await reader.readline():
            length = None
            while line.strip():
                name, _, value = line.partition(b":")
                if name.strip().lower() == b"content-length" and length is None and value.strip().isdigit():
                    length = min(int(value), 2**20)
                line = await reader.readline()
            await reader.readexactly(length or 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ValueError, OSError):
        pass
    finally:
        writer.close()


async def test_a_server_that_reads_requests_in_its_own_way_is_found() -> None:
    async with await asyncio.start_server(_answer_whatever_comes, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        findings = await wire.attack(wire.Server("127.0.0.1", port, Path()), {"Authorization": "Bearer x"})
    found = {one.attack for one in findings}
    assert found >= {
        "a length and chunks (CL.TE)",
        "chunks and a length (TE.CL)",
        "two lengths",
        "a line feed alone in a header",
        "a space before the colon",
        "GET /api/v1/../v1/me",
        "a huge body in chunks",
    }, report(findings)
