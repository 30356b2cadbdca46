"""URLs that would lead the service to where only it can go, and ways to see whether one of them did.

A listener on loopback counts connections; whatever is not on loopback (a cloud's metadata, a neighbour) is seen by
what is dialled. Names are resolved as the lure says, one answer after the other, so that a name can change its mind.
"""

import ssl
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, NamedTuple

import httpcore
import httpx

from service.domain.public_addresses import Address
from service.domain.webhook_urls import WebhookUrlInvalid
from service.gateways.webhook_addresses import Resolve, WebhookAddresses, WebhookUnanswered
from service.gateways.webhook_client import WebhookClient
from service.settings import Settings
from tests.receivers import LOOPBACK, Receiver, Reply

# Of the public internet, and nobody is asked there: connections to it are led to a receiver of the test's, or nowhere.
PUBLIC: Final = "93.184.216.34"
PUBLIC_6: Final = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
REDIRECTOR: Final = "redirector.example"


class Lure(NamedTuple):
    """`{port}` is the listener's. `names`: what each resolves to, and after that the next; others by the system."""

    name: str
    url: str
    names: Mapping[str, Sequence[Sequence[str]]] = {}
    # What is wrong with it shows only when it is asked: nobody could refuse to register it.
    looks_fine: bool = False
    # Answered by a server that is public, with this status and Location.
    redirect: tuple[int, str] | None = None
    environment: Mapping[str, str] = {}


def _literal(host: str) -> Lure:
    return Lure(host, f"https://{host}:{{port}}/events")


def _named(name: str, *answers: Sequence[str], looks_fine: bool = False) -> Lure:
    host = f"{name.replace(' ', '-').lower()}.example"
    return Lure(name, f"https://{host}:{{port}}/events", {host: answers}, looks_fine)


def _redirect(code: int, location: str) -> Lure:
    return Lure(
        f"{code} to {location}",
        f"https://{REDIRECTOR}/events",
        {REDIRECTOR: [[PUBLIC]]},
        looks_fine=True,
        redirect=(code, location),
    )


# Written in ways that one reader takes for this machine, and another for something else.
SPELLINGS: Final = (
    *map(
        _literal,
        (
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0177.0.0.1",
            "017700000001",
            "127.1",
            "127.0.1",
            "127.0.0.01",
            "0",
            # Full-width digits, and ideographic full stops.
            "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
            "127\u30020\u30020\u30021",
            "good.example@127.0.0.1",
            "good.example:443@127.0.0.1",
            "good.example%40@127.0.0.1",
            "good.example\\@127.0.0.1",
            "good.example\t@127.0.0.1",
            "127.0.\n0.1",
            "\t127.0.0.1",
            "[::1%25lo]",
        ),
    ),
    Lure("a fragment that is a host", "https://127.0.0.1:{port}#@good.example/"),
    Lure("a space in front", " https://127.0.0.1:{port}/"),
    Lure("no slashes", "https:127.0.0.1:{port}"),
    Lure("three slashes", "https:///127.0.0.1:{port}"),
    Lure("no scheme", "//127.0.0.1:{port}/"),
    Lure("backslashes", "https:\\\\127.0.0.1:{port}\\"),
    Lure("gopher", "gopher://127.0.0.1:{port}/_POST"),
    Lure("ftp", "ftp://127.0.0.1:{port}/"),
    Lure("ws", "ws://127.0.0.1:{port}/"),
    Lure("plain http", "http://127.0.0.1:{port}/"),
    Lure("a port in seven digits", "https://127.0.0.1:00{port}/"),
    Lure("a header in the path", "https://127.0.0.1:{port}/ HTTP/1.1\r\nX-Injected: yes"),
)
ADDRESSES: Final = (
    *map(
        _literal,
        (
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",  # noqa: S104 a lure
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:0001]",
            "[::127.0.0.1]",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "127.0.0.1.",
            # Inside: metadata of clouds, neighbours, carriers, multicast, reserved.
            "169.254.169.254",
            "[fd00:ec2::254]",
            "[::ffff:169.254.169.254]",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "192.88.99.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "[fe80::1]",
            "[fc00::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[2001:db8::1]",
            "[3fff::1]",
            # Others' addresses with this machine's inside: NAT64, 6to4, Teredo.
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::7f00:1]",
            "[2002:7f00:1::1]",
            "[2001:0:7f00:1::1]",
            "[100::1]",
        ),
    ),
    _named("127.0.0.1.nip", ["127.0.0.1"]),
    _named("A name of loopback", ["127.0.0.1"]),
    _named("A name of loopback in IPv6", ["::1"]),
    _named("A name of a mapped address", ["::ffff:127.0.0.1"]),
    _named("A name of metadata", ["169.254.169.254"]),
    _named("Public and loopback", [PUBLIC, "127.0.0.1"]),
    _named("Loopback and public", ["127.0.0.1", PUBLIC]),
    _named("Public in IPv6 and loopback", [PUBLIC_6, "127.0.0.1"]),
)
REBINDING: Final = (
    _named("Public and then loopback", [PUBLIC], [PUBLIC], ["127.0.0.1"], looks_fine=True),
    _named("Public and then loopback in IPv6", [PUBLIC_6], [PUBLIC_6], ["::1"], looks_fine=True),
    _named("Loopback once it is registered", [PUBLIC], ["127.0.0.1"], looks_fine=True),
    _named("Metadata once it is registered", [PUBLIC], ["169.254.169.254"], looks_fine=True),
)
_FORMS: Final = ("https://127.0.0.1:{port}/", "http://127.0.0.1:{port}/", "http://[::1]:{port}/", "//127.0.0.1:{port}/")
REDIRECTS: Final = tuple(_redirect(code, form) for code in (301, 302, 303, 307, 308) for form in _FORMS)
PROXIES: Final = tuple(
    Lure(
        f"a proxy in {name}",
        "https://good.example/events",
        {"good.example": [[PUBLIC]]},
        looks_fine=True,
        environment={name: "http://127.0.0.1:{port}"},
    )
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")
)
LURES: Final = (*SPELLINGS, *ADDRESSES, *REBINDING, *REDIRECTS, *PROXIES)


class Network(httpcore.AnyIOBackend):
    """Sees what is dialled. Leads to this machine where that is what was dialled, and nowhere else."""

    def __init__(self, resolve: Resolve, led: Mapping[str, int]) -> None:
        """`led`: public addresses that are on loopback in truth, at these ports."""
        self._resolve, self._led = resolve, led
        self.dialled: list[Address] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 httpcore's own signature
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            address = ip_address(host)
        except ValueError:
            # Whoever dials a name gets what it is by now.
            address = ip_address((await self._resolve(host, port))[0])
        self.dialled.append(address)
        if str(address) in self._led:
            return await super().connect_tcp(LOOPBACK, self._led[str(address)], timeout, local_address, socket_options)
        if not _is_this_machine(address):
            raise httpcore.ConnectError("nobody is asked out there")
        return await super().connect_tcp(str(address), port, timeout, local_address, socket_options)


def _is_this_machine(address: Address) -> bool:
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any(one.is_loopback or one.is_unspecified for one in (address, inner) if one is not None)


class Names:
    """Answers as the lure says; the last answer from then on. What it does not know, the system does."""

    def __init__(self, lure: Lure, system: Resolve) -> None:
        self._answers = {name: list(answers) for name, answers in lure.names.items()}
        self._system = system

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        answers = self._answers.get(host)
        if answers is None:
            return await self._system(host, port)
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Trap(NamedTuple):
    """A listener that nobody may reach, a public server that redirects to it, and who trusts that one."""

    listener: Receiver
    redirector: Receiver
    tls: ssl.SSLContext
    settings: Settings


async def reached(lure: Lure, trap: Trap) -> str | None:
    """Registers and asks the lure's URL; what it has reached that it must not, or None."""
    port = str(trap.listener.port)
    trap.listener.connections = 0
    if lure.redirect is not None:
        code, location = lure.redirect
        trap.redirector.answers(Reply(code, {"location": location.replace("{port}", port)}))
    system = WebhookAddresses(trap.settings)
    names = Names(lure, system._resolve_by_system)
    network = Network(names.resolve, {PUBLIC: trap.redirector.port} if lure.redirect else {})
    addresses = WebhookAddresses(trap.settings, names.resolve)
    client = WebhookClient(addresses, trap.settings.webhook_timeout_s, tls=trap.tls, network=network)
    url = lure.url.replace("{port}", port)
    registered = None
    try:
        registered = await addresses.check(url)
    except WebhookUrlInvalid:
        if lure.looks_fine:
            raise
    if registered is not None and not lure.looks_fine:
        return f"registered as {registered.text}"
    try:
        # Whether or not it could be registered: settings may have been others then.
        await client.post(url, {}, b"{}")
    except WebhookUnanswered:
        pass
    finally:
        await system.close()
        await addresses.close()
    return what_was_reached(trap, network)


def what_was_reached(trap: Trap, network: Network) -> str | None:
    if trap.listener.connections:
        return "the listener"
    others = [str(address) for address in network.dialled if str(address) not in (PUBLIC, PUBLIC_6)]
    return f"dialled {others}" if others else None


def usual_client(lure: Lure, trap: Trap, network: httpcore.AsyncNetworkBackend) -> httpx.AsyncClient:
    """As one would write it down: follows redirects, and takes proxies from the environment."""
    if lure.environment:
        return httpx.AsyncClient(verify=trap.tls, timeout=5)
    transport = httpx.AsyncHTTPTransport(verify=trap.tls)
    transport._pool = httpcore.AsyncConnectionPool(ssl_context=trap.tls, network_backend=network)
    return httpx.AsyncClient(transport=transport, follow_redirects=True, timeout=5)
