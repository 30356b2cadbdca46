"""A worker's metrics, on a port of its own: one path, for Prometheus, by as little HTTP as that takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import structlog

from service.errors import WalletServiceError
from service.services.metrics import let_in_to_metrics
from service.startup import Resources

log = structlog.get_logger()

_LOOPBACK = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 only where a token keeps others out
# A request of Prometheus' has a few hundred bytes, in one piece.
_REQUEST_LIMIT_BYTES = 8 * 1024
_REQUEST_ENDS_S = 5.0


@asynccontextmanager
async def serve_metrics(resources: Resources) -> AsyncIterator[None]:
    """On WALLET_WORKER_METRICS_PORT, for as long as the block lasts. A port that is taken keeps nobody from working."""
    settings = resources.settings
    if not settings.worker_metrics_port:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_ENDS_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(request, writer.get_extra_info("peername"), resources))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.info("metrics.not_answered", error=type(error).__name__)
        finally:
            writer.close()

    host = _LOOPBACK if settings.metrics_token is None else _EVERYWHERE
    try:
        server = await asyncio.start_server(answer, host, settings.worker_metrics_port, limit=_REQUEST_LIMIT_BYTES)
    except OSError as error:
        log.error("metrics.not_served", port=settings.worker_metrics_port, error=repr(error))  # noqa: TRY400 nothing to trace
        yield
        return
    log.info("metrics.served", host=host, port=settings.worker_metrics_port)
    try:
        yield
    finally:
        server.close()


async def _answer(request: bytes, peer: Any, resources: Resources) -> bytes:  # noqa: ANN401 a socket's own kind of address
    line, *lines = request.decode("latin-1").split("\r\n")
    method, _, rest = line.partition(" ")
    target = rest.partition(" ")[0].partition("?")[0]
    if target != "/metrics":
        return _response(HTTPStatus.NOT_FOUND)
    if method != "GET":
        return _response(HTTPStatus.METHOD_NOT_ALLOWED)
    headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
    try:
        let_in_to_metrics(peer[0], headers, resources.settings)
    except WalletServiceError as refusal:
        return _response(HTTPStatus(refusal.http_status))
    body, media_type = await resources.scrapes.answer(headers.get("accept", ""))
    return _response(HTTPStatus.OK, body, media_type)


def _response(status: HTTPStatus, body: bytes = b"", media_type: str = "text/plain") -> bytes:
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        head.append("WWW-Authenticate: Bearer")
    return "\r\n".join([*head, "", ""]).encode() + body
