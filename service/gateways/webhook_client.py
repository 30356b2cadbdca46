"""The only way to addresses that users name: one request, to an address that was looked at, and to no other.

The name is resolved once, here, and all that it resolves to has to be public; the connection goes to these very
addresses, while certificate and Host are those of the name. So it does not matter what the name resolves to a moment
later. No redirect is followed, no proxy is asked, and no more is read than is of use.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import certifi
import httpcore

from service.domain.public_addresses import Address
from service.domain.webhook_urls import WebhookUrl, WebhookUrlInvalid
from service.gateways.webhook_addresses import Failure, WebhookAddresses, WebhookUnanswered

_CONNECTING_LIMIT_S: Final = 5.0
_READ_LIMIT_BYTES: Final = 4096
_USER_AGENT: Final = "wallet-service-webhooks/1"


class WebhookAnswer(NamedTuple):
    """`retry_after` as it was sent; of the body only the beginning."""

    code: int
    retry_after: str | None
    body: bytes


class WebhookClient:
    def __init__(
        self,
        addresses: WebhookAddresses,
        timeout_s: float,
        *,
        tls: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """In place of the certificates that browsers trust, and of plain connections."""
        self._addresses = addresses
        self._timeout_s = timeout_s
        self._tls = tls
        self._network = network or httpcore.AnyIOBackend()

    async def post(
        self, text: str, headers: Mapping[str, str], body: bytes, user_id: str | None = None
    ) -> WebhookAnswer:
        """Whatever the other side answers, redirects too, as it is. Raises WebhookUnanswered."""
        try:
            async with asyncio.timeout(self._timeout_s):
                url, addresses = await self._addresses.find(text, user_id)
                return await self._post(url, addresses, headers, body)
        except WebhookUrlInvalid as error:
            # Allowed when it was registered, under settings of then.
            raise WebhookUnanswered(Failure.ADDRESS_REFUSED) from error
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise WebhookUnanswered(Failure.TIMEOUT) from error
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise WebhookUnanswered(Failure.PROTOCOL_ERROR) from error
        except (httpcore.NetworkError, OSError) as error:
            raise WebhookUnanswered(
                Failure.TLS_FAILED if _is_about_tls(error) else Failure.CONNECTION_FAILED
            ) from error

    async def _post(
        self, url: WebhookUrl, addresses: Sequence[Address], headers: Mapping[str, str], body: bytes
    ) -> WebhookAnswer:
        sent = {
            "host": url.authority,
            "user-agent": _USER_AGENT,
            "content-length": str(len(body)),
            "connection": "close",
            **headers,
        }
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._trusting(),
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=_PinnedBackend(url.host, addresses, self._network),
        )
        # In parts, so that nobody takes the text apart once more.
        target = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        async with (
            pool,
            pool.stream("POST", target, headers=list(sent.items()), content=body) as response,
        ):
            retry_after = _header(response.headers, b"retry-after")
            return WebhookAnswer(
                response.status,
                None if retry_after is None else retry_after.decode("latin-1"),
                await _beginning(response),
            )

    def _trusting(self) -> ssl.SSLContext:
        """Made when it is first of use, of the list that comes with the service, whatever the environment names."""
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=certifi.where())
        return self._tls


def _header(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name.lower() == wanted), None)


def _is_about_tls(error: BaseException | None) -> bool:
    """Somewhere below what two libraries have made of it."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


async def _beginning(response: httpcore.Response) -> bytes:
    """What comes is not unpacked: a body that says it is compressed stays as small as it is."""
    body = b""
    async for part in response.aiter_stream():
        body += part
        if len(body) >= _READ_LIMIT_BYTES:
            break
    return body[:_READ_LIMIT_BYTES]


class _PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were looked at, whatever the name is by now."""

    def __init__(self, host: str, addresses: Sequence[Address], network: httpcore.AsyncNetworkBackend) -> None:
        self._host, self._addresses, self._network = host, addresses, network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 httpcore's own signature
        local_address: str | None = None,
        socket_options: Any = None,  # noqa: ANN401 httpcore's own signature
    ) -> httpcore.AsyncNetworkStream:
        if host != self._host:
            raise httpcore.ConnectError("not the host that was looked at")
        limit_s = _CONNECTING_LIMIT_S if timeout is None else min(timeout, _CONNECTING_LIMIT_S)
        *others, last = self._addresses
        for address in others:
            try:
                return await self._network.connect_tcp(str(address), port, limit_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(str(last), port, limit_s, local_address, socket_options)
