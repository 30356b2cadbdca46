"""Where events may be sent: URLs read once and strictly, so that no two readers can see two hosts in one.

What the URL names is taken apart here and nowhere else: the client connects to these very parts.
"""

import re
from collections.abc import Collection
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

import idna

from service.domain.public_addresses import Address

LENGTH_LIMIT: Final = 2048
HTTPS: Final = "https"
_DEFAULT_PORTS: Final = {HTTPS: 443, "http": 80}
_HOST_LENGTH_LIMIT: Final = 253
_HIGHEST_PORT: Final = 65535

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,15})://(?P<authority>[^/?#]{1,512})(?P<target>[^#]*)")
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?"
)
# RFC 3986: what may stand in a path or a query, percent-encoded where it is anything else.
_TARGET: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# The last label of what some readers take for an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class WebhookUrlInvalid(ValueError):
    """Says what to send instead; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


class WebhookUrl(NamedTuple):
    """`host` is a name in ASCII without a dot at its end, or `address` as text; `target` is path and query."""

    scheme: str
    host: str
    address: Address | None
    port: int
    target: str

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def read_webhook_url(text: str) -> WebhookUrl:
    """Raises WebhookUrlInvalid for whatever is not plainly one thing."""
    if len(text) > LENGTH_LIMIT:
        raise WebhookUrlInvalid("too_long", f"Send at most {LENGTH_LIMIT} characters")
    if "\\" in text or any(character <= " " or not character.isprintable() for character in text):
        raise WebhookUrlInvalid("invalid_url", "Spaces, control characters and backslashes are not allowed")
    parts = _URL.fullmatch(text)
    if parts is None:
        raise WebhookUrlInvalid("invalid_url", "Send an absolute URL without a fragment: https://shop.example/events")
    scheme = parts["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise WebhookUrlInvalid("scheme_not_allowed", "Send an https:// URL")
    if "@" in parts["authority"]:
        raise WebhookUrlInvalid("credentials_not_allowed", "A user or a password in the URL is not allowed")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise WebhookUrlInvalid("invalid_host", "Send a host name, and a port in digits if there has to be one")
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    if not 1 <= port <= _HIGHEST_PORT:
        raise WebhookUrlInvalid("port_not_allowed", "There is no such port")
    target = parts["target"] or "/"
    if not target.startswith("/"):
        target = f"/{target}"
    if _TARGET.fullmatch(target) is None:
        raise WebhookUrlInvalid("invalid_url", "Percent-encode what is in the path and the query")
    address = _literal(authority["literal"]) if authority["literal"] else None
    host = _name(authority["name"]) if address is None else str(address)
    return WebhookUrl(scheme, host, address or _dotted(host), port, target)


def refuse_scheme_and_port(url: WebhookUrl, ports: Collection[int], *, allows_loopback: bool) -> None:
    """Raises WebhookUrlInvalid. With `allows_loopback` it is for the addresses to say (addresses_allowed)."""
    if allows_loopback:
        return
    if url.scheme != HTTPS:
        raise WebhookUrlInvalid("scheme_not_allowed", "Send an https:// URL")
    if url.port not in ports:
        allowed = ", ".join(map(str, sorted(ports)))
        raise WebhookUrlInvalid("port_not_allowed", f"This port is not allowed; these are: {allowed}")


def _literal(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except AddressValueError as error:
        raise WebhookUrlInvalid("invalid_host", "What stands in brackets is no IPv6 address") from error


def _name(text: str) -> str:
    """In lower case and ASCII; what looks like an IPv4 address has to be one, in four plain decimals."""
    name = text.removesuffix(".").lower()
    if not name.isascii():
        try:
            # UTS 46 as browsers do it: full-width digits and dots become plain ones, and are then looked at as such.
            name = idna.encode(name, uts46=True, std3_rules=True).decode("ascii").removesuffix(".")
        except (idna.IDNAError, UnicodeError) as error:
            raise WebhookUrlInvalid("invalid_host", "This is no host name (IDNA 2008)") from error
    labels = name.split(".")
    if len(name) > _HOST_LENGTH_LIMIT or not all(_LABEL.fullmatch(label) for label in labels):
        raise WebhookUrlInvalid("invalid_host", "This is no host name")
    if _NUMBER.fullmatch(labels[-1]) is not None and _dotted(name) is None:
        raise WebhookUrlInvalid("invalid_host", "Write an IPv4 address as four decimal numbers")
    return name


def _dotted(name: str) -> IPv4Address | None:
    """Python's own reading is the strict one: four decimals without zeros in front."""
    try:
        return IPv4Address(name)
    except AddressValueError:
        return None
