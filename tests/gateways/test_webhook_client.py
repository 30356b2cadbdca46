"""The client that goes where users say: to whom it proves what, how long it waits, how much it reads."""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress

import pytest

from service.gateways.webhook_addresses import Failure, Resolve, WebhookAddresses, WebhookUnanswered
from service.gateways.webhook_client import WebhookClient
from service.settings import Settings
from tests.certificates import Tls, make_tls
from tests.receivers import LOOPBACK, LOOPBACK_6, Received, Reply, running_receiver

_NAME = "shop.example"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make_tls(tmp_path_factory.mktemp("tls"), _NAME, LOOPBACK)


async def _on_loopback(_host: str, _port: int) -> Sequence[str]:
    return [LOOPBACK]


def _client(settings: Settings, resolve: Resolve = _on_loopback, tls: ssl.SSLContext | None = None) -> WebhookClient:
    return WebhookClient(WebhookAddresses(settings, resolve), settings.webhook_timeout_s, tls=tls)


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
