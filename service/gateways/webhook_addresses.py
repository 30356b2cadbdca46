"""Where webhooks may go: what users name is resolved, and all that it resolves to has to be public."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Final
from weakref import WeakValueDictionary

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


class WebhookAddresses:
    def __init__(self, settings: Settings, resolve: Resolve | None = None) -> None:
        """`resolve` in place of the system's."""
        self._timeout_s = settings.webhook_timeout_s
        self._ports = frozenset(settings.webhook_ports)
        self._denied = settings.webhook_denied_networks
        self._allows_loopback = settings.webhook_allow_loopback
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
        url = self._read(text)
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

    async def find(self, text: str, user_id: str | None = None) -> tuple[WebhookUrl, list[Address]]:
        """What is asked at that URL at this moment. Raises WebhookUrlInvalid, WebhookUnanswered, TimeoutError."""
        url = self._read(text)
        return url, await self._addresses_of(url, user_id)

    def _read(self, text: str) -> WebhookUrl:
        url = read_webhook_url(text)
        refuse_scheme_and_port(url, self._ports, allows_loopback=self._allows_loopback)
        return url

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
