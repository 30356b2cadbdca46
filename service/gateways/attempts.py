"""Counting attempts that had better not be many: each one more makes the next wait longer.

An attempt is counted before it is made and given back where it was right, so that many at the same time are bounded as
those one after the other are. In Redis for all processes together; in this process's memory while Redis is away.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from service.gateways.quick_redis import QuickRedis, RedisAwayError

_FIRST_DELAY_S = 1.0
# What memory holds of each kind; the oldest goes first.
_REMEMBERED = 20_000

# KEYS: the place's mark (known or not), then the counts. ARGV: how many counts matter at a known place, then free
# attempts, longest delay and time to live of each count, in ms; at the end, how many attempts these are. More than one
# are counted up to the last free one. Returns the wait in ms, how many counts were counted, and by how much the last.
_BEGIN = """
local clock = redis.call('time')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local past = #KEYS
if redis.call('exists', KEYS[1]) == 1 then
  past = 1 + tonumber(ARGV[1])
end
local wait = 0
for i = 2, past do
  wait = math.max(wait, (tonumber(redis.call('hget', KEYS[i], 'until')) or 0) - now)
end
if wait > 0 then
  return {wait, 0, 0}
end
local number = tonumber(ARGV[#ARGV])
local added = 0
for i = 2, past do
  local free, longest, lives = tonumber(ARGV[3 * i - 4]), tonumber(ARGV[3 * i - 3]), tonumber(ARGV[3 * i - 2])
  added = math.min(number, math.max(1, free - (tonumber(redis.call('hget', KEYS[i], 'count')) or 0)))
  local count = redis.call('hincrby', KEYS[i], 'count', added)
  if count >= free then
    -- 2^30 seconds are long enough for anybody, and exact.
    local delay = math.min(longest, 1000 * 2 ^ math.min(count - free, 30))
    redis.call('hset', KEYS[i], 'until', string.format('%.0f', now + delay))
  end
  redis.call('pexpire', KEYS[i], lives)
end
return {0, past - 1, added}
"""

# KEYS: the place's mark, then the counts that were counted. ARGV: how many of them are forgotten altogether, how long
# the place is known from now on in ms, 0 for not at all, and by how much was counted.
_GIVE_BACK = """
for i = 2, #KEYS do
  if i <= 1 + tonumber(ARGV[1]) then
    redis.call('del', KEYS[i])
  elseif redis.call('exists', KEYS[i]) == 1 then
    redis.call('hincrby', KEYS[i], 'count', -tonumber(ARGV[3]))
    redis.call('hdel', KEYS[i], 'until')
  end
end
if tonumber(ARGV[2]) > 0 then
  redis.call('set', KEYS[1], 1, 'px', ARGV[2])
end
return 0
"""


class Count(NamedTuple):
    """What attempts are counted under. From the `free`th on each makes the next wait: 1, 2, 4 … seconds."""

    key: str
    free: int
    longest_delay_s: int
    # After the last attempt.
    lives_s: int


class Attempt(NamedTuple):
    """One that may be made and is counted; or, with a wait, one that may not."""

    wait_s: float
    place: str
    counted: tuple[Count, ...]
    is_in_redis: bool
    # By how much each count was raised.
    number: int = 1


class _Held(NamedTuple):
    number: int
    until_s: float
    expires_s: float


class Attempts:
    def __init__(self, redis: QuickRedis) -> None:
        self._redis = redis
        self._begin = redis.script(_BEGIN)
        self._give_back = redis.script(_GIVE_BACK)
        self._held: dict[str, _Held] = {}
        self._places: dict[str, float] = {}

    async def begin(self, place: str, counts: Sequence[Count], *, at_known_place: int, number: int = 1) -> Attempt:
        """At a place that is known, only the first `at_known_place` counts are looked at, and count.

        A `number` of attempts at once, under one count, is counted as far as they are free: the last of these sets a
        wait, as it would have after the others.
        """
        arguments = [at_known_place]
        for count in counts:
            arguments += (count.free, count.longest_delay_s * 1000, count.lives_s * 1000)
        arguments.append(number)
        try:
            wait_ms, counted, added = await self._redis.run(self._begin, self._keys(place, counts), arguments)
        except RedisAwayError:
            return self._begin_locally(place, counts, at_known_place, number)
        return Attempt(wait_ms / 1000, place, tuple(counts[:counted]), is_in_redis=True, number=added)

    async def give_back(self, attempt: Attempt, *, forgotten: int = 0, known_for_s: int = 0) -> None:
        """It was right, or no attempt at all. The first `forgotten` counts begin anew; the others lose this one."""
        if not attempt.is_in_redis:
            self._give_back_locally(attempt, forgotten, known_for_s)
            return
        try:
            keys = self._keys(attempt.place, attempt.counted)
            await self._redis.run(self._give_back, keys, [forgotten, known_for_s * 1000, attempt.number])
        except RedisAwayError:
            # It dies there by itself.
            return

    def _keys(self, place: str, counts: Sequence[Count]) -> list[str]:
        return [f"{self._redis.prefix}:{key}" for key in (place, *(count.key for count in counts))]

    def _begin_locally(self, place: str, counts: Sequence[Count], at_known_place: int, number: int) -> Attempt:
        now_s = time.monotonic()
        if self._places.get(place, 0.0) > now_s:
            counts = counts[:at_known_place]
        held = [self._held_now(count, now_s) for count in counts]
        wait_s = max((one.until_s - now_s for one in held), default=0.0)
        if wait_s > 0:
            return Attempt(wait_s, place, (), is_in_redis=False)
        added = 1
        for count, before in zip(counts, held, strict=True):
            added = min(number, max(1, count.free - before.number))
            total = before.number + added
            delay_s = min(count.longest_delay_s, _FIRST_DELAY_S * 2 ** min(total - count.free, 30))
            until_s = now_s + delay_s if total >= count.free else 0.0
            self._hold(count.key, _Held(total, until_s, now_s + count.lives_s))
        return Attempt(0.0, place, tuple(counts), is_in_redis=False, number=added)

    def _held_now(self, count: Count, now_s: float) -> _Held:
        held = self._held.get(count.key)
        return held if held is not None and held.expires_s > now_s else _Held(0, 0.0, 0.0)

    def _hold(self, key: str, held: _Held) -> None:
        self._held.pop(key, None)
        self._held[key] = held
        if len(self._held) > _REMEMBERED:
            del self._held[next(iter(self._held))]

    def _give_back_locally(self, attempt: Attempt, forgotten: int, known_for_s: int) -> None:
        for number, count in enumerate(attempt.counted):
            held = self._held.pop(count.key, None)
            if held is not None and number >= forgotten:
                self._hold(count.key, held._replace(number=held.number - attempt.number, until_s=0.0))
        if known_for_s:
            self._places[attempt.place] = time.monotonic() + known_for_s
            if len(self._places) > _REMEMBERED:
                del self._places[next(iter(self._places))]
