"""The only way to addresses that users name: one request, to an address that was looked at, and to no other.

The name is resolved once, here, and all that it resolves to has to be public; the connection goes to these very
addresses, while certificate and Host are those of the name. So it does not matter what the name resolves to a moment
later. No redirect is followed, no proxy is asked, and no more is read than is of use.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import certifi
import httpcore
import structlog

from service.domain.public_addresses import Address, is_public
from service.domain.webhook_urls import HTTPS, WebhookUrl, WebhookUrlInvalid, read_webhook_url, refuse_scheme_and_port
from service.settings import Settings

log = structlog.get_logger()

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# A name server may be as slow as its owner likes, and a thread waits for it until the system gives up: whoever asked
# waits no longer than this, and until the thread is back it counts as theirs.
_LOOKUP_LIMIT_S: Final = 3.0
_LOOKUPS_OF_USER: Final = 2
_RESOLVER_THREADS: Final = 64
# Of one name; each may cost as long as connecting may take.
_ADDRESSES_LIMIT: Final = 3
# An answer may have hundreds.
_ADDRESSES_LOGGED: Final = 3
_CONNECTING_LIMIT_S: Final = 5.0
_READ_LIMIT_BYTES: Final = 4096
_USER_AGENT: Final = "wallet-service-webhooks/1"


class Failure(StrEnum):
    """Why there is no answer. That a name has no address and that it has one of ours are not told apart."""

    ADDRESS_REFUSED = "address_refused"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    PROTOCOL_ERROR = "protocol_error"


class WebhookUnanswered(Exception):
    """No status came back; `failure` says why, as its owner may know it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure)


class WebhookAnswer(NamedTuple):
    """`retry_after` as it was sent; of the body only the beginning."""

    code: int
    retry_after: str | None
    body: bytes


class WebhookClient:
    def __init__(
        self,
        settings: Settings,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """In place of the system's resolver, of the certificates that browsers trust, and of plain connections."""
        self._timeout_s = settings.webhook_timeout_s
        self._ports = frozenset(settings.webhook_ports)
        self._denied = settings.webhook_denied_networks
        self._allows_loopback = settings.webhook_allow_loopback
        self._tls = tls
        self._network = network or httpcore.AnyIOBackend()
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="webhook-names")
        self._resolve = resolve or self._resolve_by_system
        # Of users who have lookups under way; whoever waits or looks holds it.
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._lookups: set[asyncio.Future[Sequence[str]]] = set()

    async def check(self, text: str, user_id: str | None = None) -> WebhookUrl:
        """The URL as it will be asked.

        Raises WebhookUrlInvalid where nothing would be sent there by now, WebhookUnanswered where that takes too long
        to find out.
        """
        url = read_webhook_url(text)
        refuse_scheme_and_port(url, self._ports, allows_loopback=self._allows_loopback)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._addresses_of(url, user_id)
        except TimeoutError as error:
            raise WebhookUnanswered(Failure.TIMEOUT) from error
        except WebhookUnanswered as error:
            raise WebhookUrlInvalid(
                "address_not_allowed", "The host has to have addresses, and all of them public ones"
            ) from error
        return url

    async def post(
        self, text: str, headers: Mapping[str, str], body: bytes, user_id: str | None = None
    ) -> WebhookAnswer:
        """Whatever the other side answers, redirects too, as it is. Raises WebhookUnanswered."""
        try:
            async with asyncio.timeout(self._timeout_s):
                url = read_webhook_url(text)
                refuse_scheme_and_port(url, self._ports, allows_loopback=self._allows_loopback)
                return await self._post(url, await self._addresses_of(url, user_id), headers, body)
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

    async def _addresses_of(self, url: WebhookUrl, user_id: str | None) -> list[Address]:
        """Raises WebhookUnanswered unless there are any and each of them may be asked: one that may not is enough to
        refuse the name, or it would be a matter of luck which one is asked.
        """
        if url.address is not None:
            found = [url.address]
        else:
            try:
                found = [ip_address(text) for text in await self._look_up(url, user_id)]
            except TimeoutError:
                raise
            except (OSError, UnicodeError, ValueError) as error:
                raise WebhookUnanswered(Failure.ADDRESS_REFUSED) from error
        if not found or not all(self._may_be_asked(address, url) for address in found):
            addresses = [str(address) for address in found[:_ADDRESSES_LOGGED]]
            log.warning("webhook.address_refused", host=url.host, addresses=addresses, of=len(found))
            raise WebhookUnanswered(Failure.ADDRESS_REFUSED)
        return list(dict.fromkeys(found))[:_ADDRESSES_LIMIT]

    async def _look_up(self, url: WebhookUrl, user_id: str | None) -> Sequence[str]:
        """Raises TimeoutError; what was begun goes on, at the cost of the user's share."""
        share = asyncio.Semaphore(_LOOKUPS_OF_USER)
        if user_id is not None:
            share = self._shares.setdefault(user_id, share)
        async with asyncio.timeout(_LOOKUP_LIMIT_S):
            await share.acquire()
            lookup = asyncio.ensure_future(self._resolve(url.host, url.port))
            self._lookups.add(lookup)

            def end(lookup: asyncio.Future[Sequence[str]]) -> None:
                self._lookups.discard(lookup)
                share.release()
                if not lookup.cancelled():
                    # Looked at, or asyncio would log it where nobody waits any more.
                    lookup.exception()

            lookup.add_done_callback(end)
            return await asyncio.shield(lookup)

    def _may_be_asked(self, address: Address, url: WebhookUrl) -> bool:
        if self._allows_loopback and address.is_loopback:
            return True
        return url.scheme == HTTPS and url.port in self._ports and is_public(address, self._denied)

    def _trusting(self) -> ssl.SSLContext:
        """Made when it is first of use: the API only looks addresses up.

        Of the list that comes with the service, whatever the environment names.
        """
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=certifi.where())
        return self._tls

    async def _resolve_by_system(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _ask_system, host, port)
        return [str(entry[4][0]) for entry in found]

    async def close(self) -> None:
        for lookup in self._lookups:
            lookup.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ask_system(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


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
