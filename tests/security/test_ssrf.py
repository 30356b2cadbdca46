"""Nothing that a user names leads the service to itself or to its neighbours; and the corpus would notice."""

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import urlsplit

import httpcore
import httpx
import pytest

from service.domain.public_addresses import Address
from service.domain.webhook_urls import WebhookUrl, WebhookUrlInvalid
from service.gateways import webhook_addresses, webhook_client
from service.gateways.webhook_addresses import Failure, WebhookUnanswered
from service.gateways.webhook_client import WebhookAnswer, WebhookClient
from service.settings import Settings
from tests.certificates import make_tls
from tests.receivers import running_receiver
from tests.security import ssrf
from tests.security.ssrf import LURES, REDIRECTOR, Lure, Trap, reached


@pytest.fixture(scope="module")
async def trap(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trap]:
    """Whose port is an allowed one, so that it is not what everything is refused for."""
    tls = make_tls(tmp_path_factory.mktemp("tls"), REDIRECTOR)
    async with running_receiver(on_both=True) as listener, running_receiver(tls.server) as redirector:
        listener.hangs_up = True
        strict = settings.model_copy(
            update={"webhook_allow_loopback": False, "webhook_ports": (443, listener.port), "webhook_timeout_s": 3.0}
        )
        yield Trap(listener, redirector, tls.client, strict)


@pytest.fixture(autouse=True)
def _environment(lure: Lure, trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in lure.environment.items():
        monkeypatch.setenv(name, value.replace("{port}", str(trap.listener.port)))


by_name = pytest.mark.parametrize("lure", LURES, ids=lambda lure: ascii(lure.name))


@by_name
async def test_no_lure_reaches_what_is_not_public(trap: Trap, lure: Lure) -> None:
    assert await reached(lure, trap) is None


class TestAWeakerClient:
    """Each lure reaches something where what holds it off is taken away, so that the corpus is worth its name."""

    @pytest.mark.parametrize("lure", ssrf.ADDRESSES, ids=lambda lure: ascii(lure.name))
    async def test_that_asks_any_address_is_lured(
        self, trap: Trap, monkeypatch: pytest.MonkeyPatch, lure: Lure
    ) -> None:
        monkeypatch.setattr(webhook_addresses, "is_public", lambda _address, _denied: True)
        assert await reached(lure, trap) is not None

    @pytest.mark.parametrize("lure", ssrf.SPELLINGS, ids=lambda lure: ascii(lure.name))
    async def test_that_reads_urls_as_libraries_do_is_lured(
        self, trap: Trap, monkeypatch: pytest.MonkeyPatch, lure: Lure
    ) -> None:
        monkeypatch.setattr(webhook_addresses, "is_public", lambda _address, _denied: True)
        monkeypatch.setattr(webhook_addresses, "read_webhook_url", _read_leniently)
        monkeypatch.setattr(webhook_addresses, "refuse_scheme_and_port", lambda *_args, **_more: None)
        assert await reached(lure, trap) is not None

    @pytest.mark.parametrize("lure", ssrf.REBINDING, ids=lambda lure: ascii(lure.name))
    async def test_that_dials_names_is_lured(self, trap: Trap, monkeypatch: pytest.MonkeyPatch, lure: Lure) -> None:
        async def dial(
            backend: webhook_client._PinnedBackend, host: str, port: int, *_args: object, **_more: object
        ) -> httpcore.AsyncNetworkStream:
            return await backend._network.connect_tcp(host, port)

        monkeypatch.setattr(webhook_client._PinnedBackend, "connect_tcp", dial)
        if "once it is registered" in lure.name:
            # Held off by looking anew each time.
            monkeypatch.setattr(webhook_addresses, "is_public", lambda _address, _denied: True)
        assert await reached(lure, trap) is not None

    @pytest.mark.parametrize("lure", ssrf.REDIRECTS + ssrf.PROXIES, ids=lambda lure: ascii(lure.name))
    async def test_that_is_the_usual_one_is_lured(
        self, trap: Trap, monkeypatch: pytest.MonkeyPatch, lure: Lure
    ) -> None:
        async def post(
            client: WebhookClient,
            url: WebhookUrl,
            _addresses: Sequence[Address],
            headers: Mapping[str, str],
            body: bytes,
        ) -> WebhookAnswer:
            try:
                async with ssrf.usual_client(lure, trap, client._network) as usual:
                    answer = await usual.post(url.text, headers=dict(headers), content=body)
            except httpx.HTTPError as error:
                raise WebhookUnanswered(Failure.CONNECTION_FAILED) from error
            return WebhookAnswer(answer.status_code, None, answer.content)

        monkeypatch.setattr(WebhookClient, "_post", post)
        assert await reached(lure, trap) is not None


def _read_leniently(text: str) -> WebhookUrl:
    """What one writes without a thought: slashes are slashes, and the system knows what a host is."""
    text = text.strip().replace("\\", "/") if text.startswith(("https:\\", " ")) else text
    scheme, _, rest = text.partition(":")
    parts = urlsplit(f"//{rest.lstrip('/')}" if scheme else text)
    try:
        host, port = (parts.hostname or "").partition("%")[0], parts.port
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError) as error:
        raise WebhookUrlInvalid("invalid_host", "Nothing to be found there") from error
    return WebhookUrl("https", str(found[0][4][0]), None, port or 443, "/")
