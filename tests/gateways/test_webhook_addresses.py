"""Where webhooks may go, as whoever registers an endpoint hears of it. The corpus is in tests/security/ssrf.py."""

import asyncio
from collections.abc import Sequence

import pytest

from service.domain.webhook_urls import WebhookUrlInvalid
from service.gateways import webhook_addresses
from service.gateways.webhook_addresses import WebhookAddresses, WebhookUnanswered
from service.settings import Settings
from tests.logs import own_logs
from tests.receivers import LOOPBACK
from tests.security.ssrf import PUBLIC


class TestCheck:
    async def test_waits_no_longer_for_a_name_server(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            await asyncio.Event().wait()
            return []

        hasty = WebhookAddresses(settings.model_copy(update={"webhook_timeout_s": 0.1}), resolve)
        with pytest.raises(WebhookUnanswered):
            await hasty.check("https://shop.example/")
        await hasty.close()

    async def test_a_name_server_that_lets_us_wait_costs_its_owner_and_nobody_else(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever gave up waiting has not brought the thread back that asks."""
        monkeypatch.setattr(webhook_addresses, "_LOOKUP_LIMIT_S", 0.05)
        asked: list[str] = []
        released = asyncio.Event()

        async def resolve(host: str, _port: int) -> Sequence[str]:
            asked.append(host)
            if host == "slow.example":
                await released.wait()
            return [PUBLIC]

        addresses = WebhookAddresses(settings, resolve)
        for _ in range(4):
            with pytest.raises(WebhookUnanswered):
                await addresses.check("https://slow.example/", "usr_1")
        with pytest.raises(WebhookUnanswered):
            await addresses.check("https://shop.example/", "usr_1")
        assert asked == ["slow.example"] * 2
        await addresses.check("https://shop.example/", "usr_2")
        released.set()
        await addresses.check("https://shop.example/", "usr_1")

    async def test_gives_the_url_as_it_will_be_asked(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return [PUBLIC]

        addresses = WebhookAddresses(settings.model_copy(update={"webhook_allow_loopback": False}), resolve)
        url = await addresses.check("HTTPS://Müller.Example.:443/a%20b?c=d")
        assert url.text == "https://xn--mller-kva.example/a%20b?c=d"

    @pytest.mark.parametrize(
        ("url", "code"),
        [
            ("http://shop.example/", "scheme_not_allowed"),
            ("https://shop.example:8443/", "port_not_allowed"),
            ("https://nobody.example/", "address_not_allowed"),
            ("https://denied.example/", "address_not_allowed"),
        ],
    )
    async def test_says_what_is_wrong(self, settings: Settings, url: str, code: str) -> None:
        async def resolve(host: str, _port: int) -> Sequence[str]:
            return {"nobody.example": [], "denied.example": ["93.184.217.1"]}.get(host, [PUBLIC])

        strict = {"webhook_allow_loopback": False, "webhook_denied_networks": ("93.184.217.0/24",)}
        settings = Settings.model_validate(settings.model_dump() | strict)
        with pytest.raises(WebhookUrlInvalid) as invalid:
            await WebhookAddresses(settings, resolve).check(url)
        assert invalid.value.code == code

    async def test_logs_the_first_of_many_addresses_only(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return [f"10.0.0.{number}" for number in range(200)]

        with own_logs() as lines, pytest.raises(WebhookUrlInvalid):
            await WebhookAddresses(settings, resolve).check("https://shop.example/")
        (line,) = lines
        assert (line["addresses"], line["of"]) == (["10.0.0.0", "10.0.0.1", "10.0.0.2"], 200)

    async def test_lets_loopback_be_asked_only_where_it_is_set(self, settings: Settings) -> None:
        assert (await WebhookAddresses(settings).check(f"http://{LOOPBACK}:9/")).port == 9
        strict = settings.model_copy(update={"webhook_allow_loopback": False})
        with pytest.raises(WebhookUrlInvalid):
            await WebhookAddresses(strict).check(f"https://{LOOPBACK}/")

    async def test_lets_nothing_but_loopback_do_without_tls(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return [PUBLIC]

        addresses = WebhookAddresses(settings, resolve)
        for url in ("http://shop.example/", "https://shop.example:9/"):
            with pytest.raises(WebhookUrlInvalid):
                await addresses.check(url)
        assert (await addresses.check("https://shop.example/")).host == "shop.example"
