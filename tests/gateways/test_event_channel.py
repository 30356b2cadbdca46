"""Channels on a real Redis: whoever has joined is listened for, whenever that was."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from service.gateways.event_channel import EventChannel, Subscription
from service.settings import Settings


class Ear:
    """A subscription, and whose messages and joinings it has heard."""

    def __init__(self, settings: Settings) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.joined: asyncio.Queue[str] = asyncio.Queue()
        self.subscription = Subscription(
            settings, lambda user_id, _message: self.heard.put_nowait(user_id), self.joined.put_nowait
        )

    async def wait_for_joined(self, *user_ids: str) -> None:
        waiting = set(user_ids)
        while waiting:
            waiting.discard(await asyncio.wait_for(self.joined.get(), 10))


@pytest.fixture
async def ear(settings: Settings) -> AsyncIterator[Ear]:
    ear = Ear(settings)
    yield ear
    await ear.subscription.close()


@pytest.fixture
async def channel(settings: Settings) -> AsyncIterator[EventChannel]:
    channel = EventChannel(settings)
    yield channel
    await channel.close()


def _somebody() -> str:
    return f"usr_{uuid4().hex}"


async def test_who_joins_while_the_connection_is_being_made_is_heard(
    ear: Ear, channel: EventChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, subscribe = _somebody(), _somebody(), PubSub.subscribe
    is_asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def slowly(pubsub: PubSub, *channels: str) -> Any:
        answer = await subscribe(pubsub, *channels)
        is_asked.set()
        await may_go_on.wait()
        return answer

    monkeypatch.setattr(PubSub, "subscribe", slowly)
    ear.subscription.join(first)
    await is_asked.wait()
    ear.subscription.join(second)
    may_go_on.set()
    await ear.wait_for_joined(first, second)
    await channel.publish({first: b"1", second: b"1"})
    assert {await ear.heard.get() for _ in range(2)} == {first, second}


async def test_who_has_joined_twice_is_heard_until_they_have_left_twice(
    settings: Settings, ear: Ear, channel: EventChannel
) -> None:
    often = _somebody()
    async with Redis.from_url(settings.redis_url.get_secret_value()) as redis:

        async def is_listened_for() -> bool:
            # What was asked for on one connection is done in that order.
            other = _somebody()
            ear.subscription.join(other)
            await ear.wait_for_joined(other)
            ((_, listeners),) = await redis.pubsub_numsub(channel.prefix + often)
            return bool(listeners)

        ear.subscription.join(often)
        ear.subscription.join(often)
        assert await is_listened_for()
        ear.subscription.leave(often)
        assert await is_listened_for()
        ear.subscription.leave(often)
        assert not await is_listened_for()
