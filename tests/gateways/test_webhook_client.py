"""The client that goes where users say: to whom it proves what, how long it waits, how much it reads."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.domain.webhook_urls import WebhookUrlInvalid
from service.gateways import webhook_client
from service.gateways.webhook_client import Failure, WebhookClient, WebhookUnanswered
from service.settings import Settings
from tests.certificates import Tls, make_tls
from tests.receivers import LOOPBACK, LOOPBACK_6, Received, Reply, running_receiver
from tests.security.ssrf import PUBLIC

_NAME = "shop.example"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make_tls(tmp_path_factory.mktemp("tls"), _NAME, LOOPBACK)


async def _on_loopback(_host: str, _port: int) -> Sequence[str]:
    return [LOOPBACK]


def _client(settings: Settings, **more: Any) -> WebhookClient:
    return WebhookClient(settings, **{"resolve": _on_loopback, **more})


async def _failure(client: WebhookClient, url: str) -> Failure:
    with pytest.raises(WebhookUnanswered) as unanswered:
        await client.post(url, {}, b"{}")
    return unanswered.value.failure


class TestPost:
    async def test_proves_the_name_to_itself_and_says_it_to_the_other_side(self, settings: Settings, tls: Tls) -> None:
        """The connection goes to the address; certificate, SNI and Host are those of the name."""
        named: list[str | None] = []
        tls.server.sni_callback = lambda _socket, name, _context: named.append(name)
        async with running_receiver(tls.server) as receiver:
            url = f"https://{_NAME}:{receiver.port}/events?shop=1"
            answer = await _client(settings, tls=tls.client).post(url, {"webhook-id": "whd_1"}, b'{"a":1}')
        assert (answer.code, named) == (200, [_NAME])
        (received,) = receiver.requests
        assert (received.method, received.target, received.body) == ("POST", "/events?shop=1", b'{"a":1}')
        assert received.headers["host"] == f"{_NAME}:{receiver.port}"
        assert received.headers["webhook-id"] == "whd_1"

    async def test_takes_no_certificate_of_another_name_or_of_somebody_unknown(
        self, settings: Settings, tls: Tls
    ) -> None:
        async with running_receiver(tls.server) as receiver:
            trusting = _client(settings, tls=tls.client)
            assert await _failure(trusting, f"https://other.example:{receiver.port}/") is Failure.TLS_FAILED
            assert await _failure(_client(settings), f"https://{_NAME}:{receiver.port}/") is Failure.TLS_FAILED
            assert (await trusting.post(f"https://{LOOPBACK}:{receiver.port}/", {}, b"")).code == 200
        assert len(receiver.requests) == 1

    async def test_tries_the_next_address_where_one_does_not_answer(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return ["127.0.0.9", LOOPBACK_6, LOOPBACK]

        async with running_receiver() as receiver:
            answer = await _client(settings, resolve=resolve).post(f"http://{_NAME}:{receiver.port}/", {}, b"")
        assert answer.code == 200

    async def test_hands_redirects_on_as_they_are(self, settings: Settings) -> None:
        async with running_receiver() as receiver:
            receiver.answers(Reply(307, {"location": receiver.url("/elsewhere")}))
            assert (await _client(settings).post(receiver.url(), {}, b"")).code == 307
        assert [one.target for one in receiver.requests] == ["/events"]

    async def test_waits_no_longer_than_it_may_however_the_answer_trickles(self, settings: Settings) -> None:
        async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                writer.write(b"HTTP/1.1 200 OK\r\nA: ")
                for _ in range(500):
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            writer.close()

        hasty = _client(settings.model_copy(update={"webhook_timeout_s": 0.2}))
        async with await asyncio.start_server(trickle, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert await _failure(hasty, f"http://{LOOPBACK}:{port}/") is Failure.TIMEOUT

    async def test_waits_no_longer_for_a_name_server(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            await asyncio.Event().wait()
            return []

        hasty = _client(settings.model_copy(update={"webhook_timeout_s": 0.1}), resolve=resolve)
        assert await _failure(hasty, f"https://{_NAME}/") is Failure.TIMEOUT
        with pytest.raises(WebhookUnanswered):
            await hasty.check(f"https://{_NAME}/")
        await hasty.close()

    async def test_a_name_server_that_lets_us_wait_costs_its_owner_and_nobody_else(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever gave up waiting has not brought the thread back that asks."""
        monkeypatch.setattr(webhook_client, "_LOOKUP_LIMIT_S", 0.05)
        asked: list[str] = []
        released = asyncio.Event()

        async def resolve(host: str, _port: int) -> Sequence[str]:
            asked.append(host)
            if host == "slow.example":
                await released.wait()
            return [PUBLIC]

        client = _client(settings, resolve=resolve)
        for _ in range(4):
            with pytest.raises(WebhookUnanswered):
                await client.check("https://slow.example/", "usr_1")
        with pytest.raises(WebhookUnanswered):
            await client.check("https://shop.example/", "usr_1")
        assert asked == ["slow.example"] * 2
        await client.check("https://shop.example/", "usr_2")
        released.set()
        await client.check("https://shop.example/", "usr_1")

    async def test_reads_the_beginning_of_an_endless_body(self, settings: Settings) -> None:
        async with running_receiver() as receiver:
            receiver.answers(Reply(200, {"content-length": str(10**12)}, b"x" * 100_000))
            answer = await _client(settings).post(receiver.url(), {}, b"")
        assert answer.body == b"x" * 4096

    async def test_unpacks_nothing(self, settings: Settings) -> None:
        async with running_receiver() as receiver:
            receiver.answers(Reply(200, {"content-encoding": "gzip"}, b"\x1f\x8b no gzip"))
            assert (await _client(settings).post(receiver.url(), {}, b"")).body == b"\x1f\x8b no gzip"

    @pytest.mark.parametrize(
        "said",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 two hundred\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000,
            b"",
        ],
    )
    async def test_is_told_what_is_no_http(self, settings: Settings, said: bytes) -> None:
        async def answer(_received: Received) -> bytes:
            return said

        async with running_receiver() as receiver:
            receiver.answer = answer
            assert await _failure(_client(settings), receiver.url()) is Failure.PROTOCOL_ERROR

    async def test_is_told_that_nobody_listens(self, settings: Settings) -> None:
        async with running_receiver() as receiver:
            url = receiver.url()
        assert await _failure(_client(settings), url) is Failure.CONNECTION_FAILED


class TestCheck:
    async def test_gives_the_url_as_it_will_be_asked(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return [PUBLIC]

        client = _client(settings.model_copy(update={"webhook_allow_loopback": False}), resolve=resolve)
        url = await client.check("HTTPS://Müller.Example.:443/a%20b?c=d")
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
            await _client(settings, resolve=resolve).check(url)
        assert invalid.value.code == code

    async def test_logs_the_first_of_many_addresses_only(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return [f"10.0.0.{number}" for number in range(200)]

        with capture_logs() as lines, pytest.raises(WebhookUrlInvalid):
            await _client(settings, resolve=resolve).check("https://shop.example/")
        (line,) = lines
        assert (line["addresses"], line["of"]) == (["10.0.0.0", "10.0.0.1", "10.0.0.2"], 200)

    async def test_lets_loopback_be_asked_only_where_it_is_set(self, settings: Settings) -> None:
        assert (await _client(settings).check(f"http://{LOOPBACK}:9/")).port == 9
        strict = settings.model_copy(update={"webhook_allow_loopback": False})
        with pytest.raises(WebhookUrlInvalid):
            await _client(strict).check(f"https://{LOOPBACK}/")

    async def test_lets_nothing_but_loopback_do_without_tls(self, settings: Settings) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return [PUBLIC]

        client = _client(settings, resolve=resolve)
        for url in ("http://shop.example/", "https://shop.example:9/"):
            with pytest.raises(WebhookUrlInvalid):
                await client.check(url)
        assert (await client.check("https://shop.example/")).host == _NAME
