"""Events over real HTTP and WebSockets: two processes of the API, a worker, Redis between them."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from scripts.service_stack import Stack
from tests.person import Person
from tests.streams import frames_of, hear, hear_until, listening, numbers, positions_text, socket_url, ticket_of

_FUNDED = 3


async def _last(person: Person) -> int:
    events = (await person.get(f"/events?wallet_id={person.wallet_id}&limit=1")).json()["data"]
    return int(events[0]["sequence"]) if events else 0


async def _funded(http: httpx.AsyncClient, amount: int = 10_000) -> Person:
    person = await Person.register(http)
    await person.fund(amount)
    return person


class TestTheSocket:
    async def test_a_withdrawal_is_told_step_by_step_as_the_list_shows_it(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        person = await _funded(payment_http)
        async with listening(payment_stack.base_url, person) as socket:
            withdrawal = (await person.withdraw(500)).json()
            heard = await hear_until(socket, person.wallet_id, _FUNDED + 3)
        assert [event["type"] for event in heard] == [
            "withdrawal.pending",
            "withdrawal.processing",
            "withdrawal.succeeded",
        ]
        assert heard[0]["data"] == withdrawal
        listed = (await person.get(f"/events?wallet_id={person.wallet_id}&after_sequence={_FUNDED}")).json()
        assert listed["data"] == heard

    async def test_both_sides_hear_of_a_transfer_and_nobody_else(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        sender = await _funded(payment_http)
        recipient, stranger = await Person.register(payment_http), await Person.register(payment_http)
        base_url = payment_stack.base_url
        async with (
            listening(base_url, sender) as hers,
            listening(base_url, recipient) as his,
            listening(base_url, stranger) as nobodys,
        ):
            await sender.transfer(100, recipient)
            assert (await hear(hers))["type"] == "transfer.succeeded"
            received = await hear(his)
            await stranger.deposit(1)
            first = await hear(nobodys)
        assert (received["type"], received["wallet_id"], received["sequence"]) == (
            "transfer.received",
            recipient.wallet_id,
            1,
        )
        assert (first["type"], first["wallet_id"]) == ("deposit.pending", stranger.wallet_id)

    async def test_under_load_with_breaks_and_returns_each_number_comes_once_and_in_order(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        sender, recipient = await _funded(payment_http), await Person.register(payment_http)
        base_url, transfers, listeners = payment_stack.base_url, 80, 3

        async def pay() -> None:
            for _ in range(transfers // 4):
                answer = await sender.transfer(1, recipient)
                assert answer.status_code == 201, answer.text

        async def follow(number: int) -> list[dict[str, Any]]:
            """Breaks off every few messages, and goes on from where it was: in whichever process."""
            heard: list[dict[str, Any]] = []
            position = 0
            while position < transfers:
                async with listening(base_url, recipient, {recipient.wallet_id: position}) as socket:
                    for _ in range(7 + number * 5):
                        message = await hear(socket)
                        heard.append(message)
                        position = message["sequence"]
                        if position >= transfers:
                            break
            return heard

        followers = [asyncio.create_task(follow(number)) for number in range(listeners)]
        await asyncio.gather(*(pay() for _ in range(4)))
        for heard in await asyncio.gather(*followers):
            assert numbers(heard) == {recipient.wallet_id: list(range(1, transfers + 1))}

    async def test_who_is_away_while_things_happen_hears_them_on_return(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        person = await _funded(payment_http)
        for _ in range(3):
            await person.withdraw(1)
        async with listening(payment_stack.base_url, person, {person.wallet_id: 2}) as socket:
            heard = await hear_until(socket, person.wallet_id, _FUNDED + 9)
        assert numbers(heard) == {person.wallet_id: list(range(3, _FUNDED + 10))}


class TestTheHandshake:
    @pytest.mark.parametrize("ticket", [None, "made-up", "A" * 600])
    async def test_without_a_ticket_that_holds_it_is_401(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient, ticket: str | None
    ) -> None:
        del payment_http
        await _refused(socket_url(payment_stack.base_url, ticket), 401)

    async def test_a_ticket_opens_one_and_no_second(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        person = await Person.register(payment_http)
        ticket = await ticket_of(person)
        url = socket_url(payment_stack.base_url, ticket)
        async with connect(url, proxy=None):
            await _refused(url, 401)
        # Nor in another spelling of the same bytes.
        await _refused(f"{url}=", 401)

    async def test_of_many_at_once_with_one_ticket_one_gets_in(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        url = socket_url(payment_stack.base_url, await ticket_of(await Person.register(payment_http)))

        async def come() -> int:
            try:
                async with connect(url, proxy=None):
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        assert sorted(await asyncio.gather(*(come() for _ in range(8)))) == [101, *([401] * 7)]

    async def test_somebody_elses_wallet_is_404_and_a_number_to_come_422(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        person, other = await Person.register(payment_http), await Person.register(payment_http)
        base_url = payment_stack.base_url
        await _refused(socket_url(base_url, await ticket_of(person), {other.wallet_id: 0}), 404)
        await _refused(socket_url(base_url, await ticket_of(person), {person.wallet_id: 9}), 422)
        await _refused(socket_url(base_url, await ticket_of(person)) + "&after=nonsense", 422)
        await _refused(socket_url(base_url, await ticket_of(person)) + "&user_id=x", 422)

    async def test_a_page_of_another_origin_is_403_and_ones_own_gets_in(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        person = await Person.register(payment_http)
        base_url = payment_stack.base_url
        for origin in ("https://evil.example", "null", "http://[", base_url.replace("http", "ftp")):
            await _refused(socket_url(base_url, await ticket_of(person)), 403, origin=origin)
        async with listening(base_url, person, origin=base_url):
            pass


class TestTheEnd:
    async def test_logging_out_closes_it(self, payment_stack: Stack, payment_http: httpx.AsyncClient) -> None:
        person = await Person.register(payment_http)
        async with listening(payment_stack.base_url, person) as socket:
            await person.http.post("/api/v1/auth/logout", headers=person.headers, json={})
            with pytest.raises(ConnectionClosed):
                await hear(socket)
            assert socket.close_code == 4401

    async def test_whoever_says_something_is_closed_with_1008_and_at_length_with_1009(
        self, payment_stack: Stack, payment_http: httpx.AsyncClient
    ) -> None:
        person = await Person.register(payment_http)
        for said, code in (("hello", 1008), ("x" * 100_000, 1009)):
            async with listening(payment_stack.base_url, person) as socket:
                await socket.send(said)
                with pytest.raises(ConnectionClosed):
                    await hear(socket)
                assert socket.close_code == code


class TestServerSentEvents:
    async def test_they_tell_the_same_and_go_on_from_the_last_id(self, payment_http: httpx.AsyncClient) -> None:
        person = await _funded(payment_http)
        await person.withdraw(1)
        seen = {"Last-Event-ID": positions_text({person.wallet_id: _FUNDED})}
        async with payment_http.stream("GET", "/api/v1/events/stream", headers={**person.headers, **seen}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            frames = frames_of(response)
            first = await anext(frames)
            told = [await asyncio.wait_for(anext(frames), 20) for _ in range(3)]
        assert (first["event"], first["id"]) == ("stream.ready", f"{person.wallet_id}:{_FUNDED}")
        assert [frame["event"] for frame in told] == [
            "withdrawal.pending",
            "withdrawal.processing",
            "withdrawal.succeeded",
        ]
        assert [frame["id"] for frame in told] == [f"{person.wallet_id}:{_FUNDED + n}" for n in (1, 2, 3)]
        listed = await person.get(f"/events?wallet_id={person.wallet_id}&after_sequence={_FUNDED}")
        assert [json.loads(frame["data"]) for frame in told] == listed.json()["data"]

    async def test_logging_out_ends_them_with_a_word(self, payment_http: httpx.AsyncClient) -> None:
        person = await Person.register(payment_http)
        async with payment_http.stream("GET", "/api/v1/events/stream", headers=person.headers) as response:
            frames = frames_of(response)
            await anext(frames)
            await person.http.post("/api/v1/auth/logout", headers=person.headers, json={})
            rest = [frame async for frame in frames]
        assert [frame["event"] for frame in rest] == ["stream.ended"]
        assert json.loads(rest[0]["data"])["reason"] == "token_ended"


async def _refused(url: str, status: int, **options: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, proxy=None, **options):
            pass
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["content-type"] == "application/problem+json"
