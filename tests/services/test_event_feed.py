"""A feed by itself: what comes over Redis, what is read instead, and what is not kept any more."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.wallets import Wallet
from service.errors import TooManyStreams
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
                while not any(line["event"] == "events.not_read" for line in logged):
                    await asyncio.sleep(0.01)
                feed.end(ending)
                assert await listening == []
        assert feed.positions == {wallet.id: 1}


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
