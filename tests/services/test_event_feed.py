"""A feed by itself: what comes over Redis, what is read instead, and what is not kept any more."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.wallets import Wallet
from service.errors import TooManyStreams
from service.repositories import wallets
from service.services import event_feed
from service.services.callers import Caller
from service.services.event_feed import Ending, EventFeeds, Feed, Missed, StreamKind, Told
from service.startup import Resources
from tests.factories import current, deposit_of, make_account, make_wallet, run
from tests.servers import Admin, fail_point


def _feed(wallet: Wallet, position: int = 0) -> Feed:
    positions = {wallet.id: position}
    caller = Caller(wallet.user_id, ("user",), 0)
    return Feed(StreamKind.SSE, caller, utc_now() + timedelta(hours=1), positions, {wallet.id: position})


async def _told(databases: Databases, times: int) -> Wallet:
    """A wallet with so many events."""
    wallet = (await make_account(databases)).wallet
    await run(databases, *(deposit_of(wallet, 1) for _ in range(times)))
    return await current(wallet)


def _arriving(wallet: Wallet, sequence: int) -> Told:
    return Told(wallet.id, sequence, "deposit.pending", b"{}")


async def _heard(feed: Feed, count: int) -> list[Told | Missed]:
    heard: list[Told | Missed] = []
    async with aclosing(feed.batches(heartbeat_s=5)) as batches:
        async for batch in batches:
            heard += batch
            if len(heard) >= count or not batch:
                break
    return heard


def _numbers(heard: Sequence[Told | Missed]) -> list[int]:
    return [item.sequence for item in heard if isinstance(item, Told)]


class TestTheOrder:
    async def test_what_comes_twice_is_told_once_and_a_gap_is_read(self, databases: Databases) -> None:
        wallet = await _told(databases, 5)
        feed = _feed(wallet)
        for sequence in (1, 1, 2, 4, 3, 4):
            feed.offer(_arriving(wallet, sequence))
        # Who reads on after a gap finds all that there is.
        assert _numbers(await _heard(feed, 5)) == [1, 2, 3, 4, 5]
        assert feed.positions == {wallet.id: 5}

    async def test_what_a_look_finds_is_read_and_then_not_told_again(self, databases: Databases) -> None:
        wallet = await _told(databases, 3)
        feed = _feed(wallet, position=1)
        feed.note({wallet.id: 3})
        feed.offer(_arriving(wallet, 3))
        assert _numbers(await _heard(feed, 2)) == [2, 3]
        feed.offer(_arriving(wallet, 2))
        feed.offer(_arriving(wallet, 4))
        assert _numbers(await _heard(feed, 1)) == [4]

    async def test_a_wallet_that_is_opened_meanwhile_is_told_from_its_first(self, databases: Databases) -> None:
        account = await make_account(databases)
        feed = _feed(account.wallet)
        dollars = await make_wallet(databases, account.user, currency="USD")
        await run(databases, deposit_of(dollars, 1))
        feed.note({account.wallet.id: 0, dollars.id: 1})
        (told,) = await _heard(feed, 1)
        assert isinstance(told, Told)
        assert (told.wallet_id, told.sequence) == (dollars.id, 1)

    async def test_more_than_one_read_brings_is_read_in_order(self, databases: Databases) -> None:
        wallet = await _told(databases, 600)
        feed = _feed(wallet)
        feed.note({wallet.id: 600})
        assert _numbers(await _heard(feed, 600)) == list(range(1, 601))


class TestWhatIsNotKept:
    async def test_is_said_to_be_missed_where_it_was(self, databases: Databases) -> None:
        wallet = await _told(databases, 2)
        # A counter ahead of what is there, as after a month: nothing of 3 to 5 is kept.
        feed = _feed(wallet)
        feed.note({wallet.id: 5})
        heard = await _heard(feed, 3)
        assert _numbers(heard) == [1, 2]
        assert heard[-1] == Missed(wallet.id, 2, 6)
        assert feed.positions == {wallet.id: 5}

    @pytest.mark.parametrize("ending", [Ending.TOKEN_ENDED, Ending.RESTART])
    async def test_is_not_what_could_not_be_read_before_the_end(
        self, databases: Databases, admin: Admin, ending: Ending
    ) -> None:
        """Who comes again from the number that it was told last is going to hear them."""
        wallet = await _told(databases, 3)
        feed = _feed(wallet, position=1)
        feed.note({wallet.id: 3})
        namespace = f"{databases.wallet.name}.events"
        with (
            fail_point(admin, 100, failCommands=["find"], namespace=namespace, errorCode=50),
            capture_logs() as logged,
        ):
            listening = asyncio.create_task(_heard(feed, 1))
            async with asyncio.timeout(10):
                while not any(line["event"] == "events.not_read" for line in logged):  # noqa: ASYNC110 a list has no event
                    await asyncio.sleep(0.01)
                feed.end(ending)
                assert await listening == []
        assert feed.positions == {wallet.id: 1}


class TestTheChannel:
    async def test_is_kept_for_a_stream_that_opens_while_the_one_before_closes(
        self, databases: Databases, resources: Resources, admin: Admin
    ) -> None:
        feeds = EventFeeds(resources.settings, resources.ended_tokens)
        again, other = [Caller((await make_account(databases)).user.id, ("user",), 0) for _ in range(2)]
        blocked = {"blockConnection": True, "blockTimeMS": 300}
        namespace = f"{databases.wallet.name}.wallets"

        async def open_one(caller: Caller) -> Feed:
            return await feeds.open(StreamKind.SSE, caller, utc_now() + timedelta(hours=1), None)

        async with Redis.from_url(resources.settings.redis_url.get_secret_value()) as redis:

            async def wait_until_listened_for(caller: Caller) -> None:
                async with asyncio.timeout(10):
                    while not await _listeners(redis, resources, caller):  # noqa: ASYNC110 Redis tells nobody
                        await asyncio.sleep(0.01)

            try:
                before = await open_one(again)
                await wait_until_listened_for(again)
                with fail_point(admin, 100, failCommands=["find", "aggregate"], namespace=namespace, **blocked):
                    opening = asyncio.create_task(open_one(again))
                    await asyncio.sleep(0)
                    feeds.close_feed(before)
                    after = await opening
                # What was asked for on one connection is done in that order.
                await open_one(other)
                await wait_until_listened_for(other)
                assert await _listeners(redis, resources, again) == 1
                feeds.close_feed(after)
                feeds.close_feed(after)
                feeds.close_feed(await open_one(other))
                async with asyncio.timeout(10):
                    while await _listeners(redis, resources, again):  # noqa: ASYNC110 as above
                        await asyncio.sleep(0.01)
            finally:
                await feeds.close()

    async def test_what_comes_while_a_stream_opens_is_found_by_the_next_look(
        self, databases: Databases, resources: Resources, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its message went past a feed that was not there yet; by the clock nobody looks, here."""
        monkeypatch.setattr(event_feed, "_TICKS_BETWEEN_LOOKS", 1_000_000)
        wallet = await _told(databases, 1)
        caller, ends_at = Caller(wallet.user_id, ("user",), 0), utc_now() + timedelta(hours=1)
        read = wallets.event_sequences
        feeds = EventFeeds(resources.settings, resources.ended_tokens)

        async def read_too_early(user_ids: Sequence[str]) -> dict[str, dict[str, int]]:
            latest = await read(user_ids)
            await run(databases, deposit_of(await current(wallet), 1))
            return latest

        try:
            await feeds.open(StreamKind.SSE, caller, ends_at, None)
            async with asyncio.timeout(10):
                while not feeds._subscription.is_live or feeds._joined:  # noqa: ASYNC110 nobody says that it has looked
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(wallets, "event_sequences", read_too_early)
            feed = await feeds.open(StreamKind.SSE, caller, ends_at, None)
            monkeypatch.setattr(wallets, "event_sequences", read)
            assert _numbers(await _heard(feed, 1)) == [2]
        finally:
            await feeds.close()


async def _listeners(redis: Redis, resources: Resources, caller: Caller) -> int:
    ((_, listeners),) = await redis.pubsub_numsub(resources.event_channel.prefix + caller.user_id)
    return int(listeners)


class TestRoom:
    async def test_the_last_fifth_is_for_those_who_have_no_stream(
        self, databases: Databases, resources: Resources
    ) -> None:
        feeds = EventFeeds(resources.settings.model_copy(update={"streams_limit": 5}), resources.ended_tokens)
        busy, late = [Caller((await make_account(databases)).user.id, ("user",), 0) for _ in range(2)]

        async def open_one(caller: Caller) -> Feed:
            return await feeds.open(StreamKind.SSE, caller, utc_now() + timedelta(hours=1), None)

        try:
            for _ in range(4):
                await open_one(busy)
            with pytest.raises(TooManyStreams):
                await open_one(busy)
            feeds.close_feed(await open_one(late))
        finally:
            await feeds.close()
