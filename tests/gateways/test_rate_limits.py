"""Rate limits on a real Redis: they count as `limits` does, for all processes together, and outlive Redis."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from scripts.embedded import RedisServer, free_port, start_redis
from service.gateways import quick_redis, rate_limits
from service.gateways.quick_redis import QuickRedis, RedisAwayError
from service.gateways.rate_limits import Claim, RateLimits, Window, claim, shared_claim
from tests.logs import own_logs
from tests.servers import Servers, make_settings


def per_minute(amount: int, name: str = "test") -> RateLimitItem:
    return RateLimitItemPerMinute(amount, namespace=name)


def someone() -> str:
    return uuid4().hex


@pytest.fixture
async def redis(servers: Servers) -> AsyncIterator[QuickRedis]:
    redis = QuickRedis(make_settings(servers))
    yield redis
    await redis.close()


@pytest.fixture
def limits(redis: QuickRedis) -> RateLimits:
    return RateLimits(redis)


@pytest.fixture
async def library(servers: Servers, redis: QuickRedis) -> AsyncIterator[SlidingWindowCounterRateLimiter]:
    storage: Any = RedisStorage(f"async+{servers.redis.url}", implementation="redispy", key_prefix=redis.prefix)
    yield SlidingWindowCounterRateLimiter(storage)
    await storage.bridge.storage.aclose()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that may be stopped."""
    with start_redis(tmp_path / "redis", free_port()) as server:
        yield server


@pytest.fixture
async def own_limits(servers: Servers, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(quick_redis, "_PROBE_S", 0.05)
    redis = QuickRedis(make_settings(servers, redis_url=own_redis.url))
    yield RateLimits(redis)
    await redis.close()


async def take_all(limits: RateLimits, claims: list[Claim], times: int) -> int:
    return sum(standing.is_granted for standing in await asyncio.gather(*(limits.take(claims) for _ in range(times))))


class TestCounting:
    async def test_lets_through_as_many_as_the_limit_says_and_tells_what_is_left(self, limits: RateLimits) -> None:
        claims = [claim(per_minute(3), someone())]
        standings = [await limits.take(claims) for _ in range(5)]
        assert [(one.is_granted, one.left) for one in standings] == [
            (True, 2), (True, 1), (True, 0), (False, 0), (False, 0),
        ]  # fmt: skip
        assert all(59 < one.reset_in_s <= 60 for one in standings)

    async def test_is_exact_among_many_at_the_same_time(self, limits: RateLimits) -> None:
        assert await take_all(limits, [claim(per_minute(100), someone())], 1000) == 100

    async def test_is_exact_over_two_processes(self, servers: Servers) -> None:
        settings = make_settings(servers)
        both = [QuickRedis(settings), QuickRedis(settings)]
        claims = [claim(per_minute(100), someone())]
        granted = await asyncio.gather(*(take_all(RateLimits(redis), claims, 300) for redis in both))
        assert sum(granted) == 100
        for redis in both:
            await redis.close()

    async def test_charges_all_limits_or_none(self, limits: RateLimits) -> None:
        everybody = claim(per_minute(10, "everybody"), someone())
        greedy = [claim(per_minute(4, "caller"), someone()), everybody]
        modest = [claim(per_minute(8, "caller"), someone()), everybody]
        assert await take_all(limits, greedy, 50) == 4
        assert await take_all(limits, modest, 50) == 6
        # Of the modest one's eight, the six are gone: what the other limit refused cost nothing.
        assert (await limits.take(modest[:1])).left == 1

    async def test_tells_of_the_limit_that_is_nearest_to_being_reached(self, limits: RateLimits) -> None:
        wide, narrow = claim(per_minute(100, "wide"), someone()), claim(per_minute(5, "narrow"), someone())
        standing = await limits.take([wide, narrow])
        assert (standing.amount, standing.left) == (5, 4)

    async def test_counts_people_apart(self, limits: RateLimits) -> None:
        people = [[claim(per_minute(7), someone())] for _ in range(40)]
        granted = await asyncio.gather(*(take_all(limits, claims, 20) for claims in people))
        assert granted == [7] * 40

    async def test_a_client_that_hangs_up_leaves_the_others_their_answers(self, limits: RateLimits) -> None:
        claims = [claim(per_minute(100), someone())]
        takes = [asyncio.ensure_future(limits.take(claims)) for _ in range(10)]
        await asyncio.sleep(0)
        takes[3].cancel()
        answers = await asyncio.gather(*takes, return_exceptions=True)
        assert [isinstance(one, BaseException) for one in answers] == [number == 3 for number in range(10)]
        assert (await limits.take(claims)).is_granted

    async def test_who_waits_for_those_being_asked_about_has_them_with_it(
        self, limits: RateLimits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rate_limits, "_MOMENT_S", 10.0)
        takes = [asyncio.ensure_future(limits.take([claim(per_minute(7), someone())])) for _ in range(3)]
        await asyncio.sleep(0)
        await limits.until_answered()
        await asyncio.sleep(0)
        assert all(one.done() for one in takes)

    async def test_nobody_waits_longer_than_a_moment(self, limits: RateLimits) -> None:
        limits._asking = asyncio.create_task(asyncio.sleep(60))
        await asyncio.wait_for(limits.until_answered(), 10)
        assert not limits._asking.done()
        limits._asking.cancel()


class TestWindowsOfSeveralLengths:
    async def test_count_by_themselves_in_one_request(
        self, redis: QuickRedis, limits: RateLimits, library: SlidingWindowCounterRateLimiter
    ) -> None:
        """A minute that is over has weighed itself down to nothing; in the hour that holds it, all still counts."""
        item, who = RateLimitItemPerHour(5, namespace="test"), someone()
        minute, hour = claim(per_minute(5), who), claim(item, who)
        assert await take_all(limits, [minute, hour], 4) == 4
        for key in (minute.key, hour.key):
            await redis._client.pexpire(f"{redis.prefix}:{{{key}}}", 1_000)
        standing = await limits.take([hour, minute])
        assert (standing.is_granted, standing.left, await library.hit(item, who)) == (True, 4, True)
        who = someone()
        minute, hour = claim(per_minute(100), who), claim(item, who)
        assert await take_all(limits, [minute, hour], 8) == 5
        refused = await limits.take([minute, hour])
        assert (refused.is_granted, refused.amount, await library.hit(item, who)) == (False, 5, False)
        assert 3_590 < refused.reset_in_s <= 3_600

    async def test_count_in_memory_too(self, own_limits: RateLimits, own_redis: RedisServer) -> None:
        own_redis.kill()
        hour = [claim(RateLimitItemPerHour(5, namespace="test"), someone())]
        assert await take_all(own_limits, hour, 8) == 5
        assert 0 < (await own_limits.take(hour)).reset_in_s <= 3_600


class TestAgainstTheLibrary:
    """The script is a batch of what `limits` does one by one, on the same keys."""

    async def test_decides_and_leaves_behind_what_the_library_does(
        self, redis: QuickRedis, limits: RateLimits, library: SlidingWindowCounterRateLimiter
    ) -> None:
        shuffle = random.Random(8)  # noqa: S311 cases, not secrets
        item = per_minute(12)
        decided = []
        for _ in range(300):
            last, last_ttl_ms = shuffle.randrange(20), shuffle.randrange(1, 60_000)
            running, running_ttl_ms = shuffle.randrange(13), shuffle.randrange(1, 120_000)
            has_moved = running_ttl_ms < 60_000
            weight = (running * running_ttl_ms if has_moved else last * last_ttl_ms) / 60_000
            if not 0.1 < weight % 1 < 0.9:
                # The two are asked a moment apart, in which it may become another number.
                continue
            both = [someone(), someone()]
            for who in both:
                key = f"{redis.prefix}:{{{item.key_for(who)}}}"
                await redis._client.set(key, running, px=running_ttl_ms)
                await redis._client.set(f"{key}/-1", last, px=last_ttl_ms)
            ours = (await limits.take([claim(item, both[0])])).is_granted
            assert ours == await library.hit(item, both[1])
            left = [(await library.get_window_stats(item, who)).remaining for who in both]
            assert left[0] == left[1]
            decided.append(ours)
        assert 0.2 < sum(decided) / len(decided) < 0.8

    async def test_the_library_reads_what_we_count(
        self, limits: RateLimits, library: SlidingWindowCounterRateLimiter
    ) -> None:
        item, who = per_minute(9), someone()
        await take_all(limits, [claim(item, who)], 4)
        assert await library.hit(item, who)
        assert (await library.get_window_stats(item, who)).remaining == 4
        assert (await limits.take([claim(item, who)])).left == 3


class TestTheWindow:
    @pytest.mark.parametrize(
        ("window", "amount", "left", "next_in_s"),
        [
            # Ten in the running window: one more when it ends.
            (Window(0, 0.0, 10, 100.0, 60), 10, 0, 40.0),
            # The last window's ten weigh five by now; one less in a tenth of its time.
            (Window(10, 30.0, 5, 90.0, 60), 10, 0, 0.0),
            (Window(10, 36.0, 5, 96.0, 60), 10, 0, 6.0),
            (Window(10, 30.0, 1, 90.0, 60), 10, 4, 0.0),
        ],
    )
    def test_tells_what_is_left_and_when_there_is_more(
        self, window: Window, amount: int, left: int, next_in_s: float
    ) -> None:
        assert window.left_of(amount) == left
        assert window.next_in_s(amount) == pytest.approx(next_in_s)


class TestWithoutRedis:
    async def test_goes_on_in_memory_and_says_so_once_each_way(
        self, own_limits: RateLimits, own_redis: RedisServer
    ) -> None:
        claims = [claim(per_minute(20), someone())]
        assert (await own_limits.take(claims)).left == 19
        with own_logs() as logs:
            own_redis.stop()
            assert await take_all(own_limits, claims, 100) == 20
            assert not (await own_limits.take(claims)).is_granted
            own_redis.start()
            await until_back(own_limits)
        assert [line["event"] for line in logs] == ["redis.lost", "redis.back"]
        assert (await own_limits.take([claim(per_minute(20), someone())])).left == 19

    async def test_large_batches_of_two_callers_shut_nobody_else_out(
        self, own_limits: RateLimits, own_redis: RedisServer
    ) -> None:
        own_redis.kill()
        all_callers = per_minute(100, someone())
        for _ in range(2):
            caller = someone()
            claims = [claim(per_minute(60), caller), shared_claim(all_callers, caller)]
            assert (await own_limits.take(claims)).is_granted
            assert (await own_limits.take(claims, 499)).is_granted
            # The batch used up the caller's own limit.
            assert not (await own_limits.take(claims)).is_granted
        stranger = someone()
        assert (
            await own_limits.take([claim(per_minute(60), stranger), shared_claim(all_callers, stranger)])
        ).is_granted

    async def test_one_that_hangs_is_waited_for_once(
        self, own_limits: RateLimits, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quick_redis, "_PROBE_S", 60.0)
        claims = [claim(per_minute(20), someone())]
        await own_limits.take(claims)
        assert own_redis.process is not None
        own_redis.process.send_signal(signal.SIGSTOP)
        try:
            with own_logs() as logs:
                async with asyncio.timeout(20):
                    assert (await own_limits.take(claims)).is_granted
                monkeypatch.setattr(own_limits._redis, "_in_time", _never)
                for _ in range(19):
                    assert (await own_limits.take(claims)).is_granted
                assert not (await own_limits.take(claims)).is_granted
                with pytest.raises(RedisAwayError):
                    await own_limits._redis.run(own_limits._take, [], [])
            assert [line["event"] for line in logs] == ["redis.lost"]
        finally:
            own_redis.process.send_signal(signal.SIGCONT)

    async def test_one_that_takes_nothing_is_not_back(
        self, own_limits: RateLimits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Full, or a replica by now: it answers a ping, and each second would be told of twice."""
        monkeypatch.setattr(quick_redis, "_PROBE_S", 0.05)
        claims = [claim(per_minute(20), someone())]
        client = own_limits._redis._client
        await client.config_set("maxmemory", 1)
        with own_logs() as logs:
            for _ in range(10):
                assert (await own_limits.take(claims)).is_granted
                await asyncio.sleep(0.05)
            assert [line["event"] for line in logs] == ["redis.lost"]
            await client.config_set("maxmemory", 0)
            await until_back(own_limits)
        assert [line["event"] for line in logs] == ["redis.lost", "redis.back"]

    async def test_a_connection_that_fails_as_uvloop_says_it_is_one_that_failed(
        self, own_limits: RateLimits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quick_redis, "_PROBE_S", 0.05)
        left = 3
        redis = own_limits._redis
        really = redis._in_time

        async def in_time(call: Any) -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                call.close()
                raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
            return await really(call)

        monkeypatch.setattr(redis, "_in_time", in_time)
        claims = [claim(per_minute(20), someone())]
        assert (await own_limits.take(claims)).is_granted
        await until_back(own_limits)
        assert (await own_limits.take(claims)).left == 19

    async def test_a_redis_that_lost_its_scripts_gets_them_again(self, own_limits: RateLimits) -> None:
        claims = [claim(per_minute(20), someone())]
        await own_limits.take(claims)
        await own_limits._redis._client.script_flush()
        with own_logs() as logs:
            assert (await own_limits.take(claims)).left == 18
        assert not logs


async def _never(*_: Any) -> None:
    raise AssertionError("Redis was asked again")


async def until_back(limits: RateLimits) -> None:
    async with asyncio.timeout(20):
        while limits._redis._probing is not None:
            await asyncio.wait((limits._redis._probing,))
