"""Rate limits: `limits`' sliding window counter, in Redis for all processes together, in memory while Redis is away.

The library asks Redis once for each limit of each request, and once more for what is left. Here what waits is asked
about together, by one script over the library's own keys: a request's limits are all charged or none is, and what a
request costs is a fraction of a round trip.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service.gateways.quick_redis import QuickRedis, RedisAwayError

# About a millisecond of Redis' time, in which it answers nobody else.
_BATCH_LIMIT = 256
_REMEMBERED_KEYS = 10_000
# Four times what an answer takes.
_MOMENT_S = 0.002
# As the ledger between two batches.
_TURNS_BEFORE_ASKING = 3
_TOGETHER = "all"

# How long a computed share is used again. Until it is computed anew, callers may exceed it a little.
_SHARE_LIVES_MS = 250
# With up to so many sharers the script reads each one's count, which takes 2 ms of Redis' time. Of more than that
# everybody may have the same.
_SHARERS_LIMIT = 5_000

# As limits' acquire_sliding_window.lua keeps and moves the two windows of a limit, but for many requests in one go.
# KEYS: the running and the last window of each limit; then of each shared limit the counts of those who share it, in
# both windows, and the share that was worked out last.
# ARGV: the number of limits, how long a share lives, and the most whose counts are looked at; the amount, the ms, and
# the number among the shared ones (or 0) of each limit; then for each request the number of its limits, their places,
# who it is among those who share one, and how much it costs beyond the one that it was charged before, or 0.
# Returns four numbers for each limit (counts and times to live of its last and its running window), then for each
# request the place of the limit that refuses it, or 0, and what is left of its share, or -1 where shares do not matter.
_TAKE = """
local limits, share_lives_ms, sharers_limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local amount, window_ms, at_shared = {}, {}, {}
local last, last_ttl, running, running_ttl, taken = {}, {}, {}, {}, {}
local function shared_key(i, which)
  return KEYS[2 * limits + 3 * (at_shared[i] - 1) + which]
end
for i = 1, limits do
  local running_key, last_key = KEYS[2 * i - 1], KEYS[2 * i]
  amount[i], window_ms[i] = tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  at_shared[i] = tonumber(ARGV[3 * i + 3])
  local ttl = redis.call('pttl', running_key)
  if ttl > 0 and ttl < window_ms[i] then
    redis.call('rename', running_key, last_key)
    redis.call('set', running_key, 0, 'px', ttl + window_ms[i])
    if at_shared[i] > 0 then
      redis.call('del', shared_key(i, 2))
      if redis.call('exists', shared_key(i, 1)) == 1 then
        redis.call('rename', shared_key(i, 1), shared_key(i, 2))
      end
    end
    ttl = ttl + window_ms[i]
  end
  local counts = redis.call('mget', last_key, running_key)
  last[i], running[i], taken[i] = tonumber(counts[1]) or 0, tonumber(counts[2]) or 0, 0
  last_ttl[i] = last[i] > 0 and math.max(redis.call('pttl', last_key), 0) or 0
  running_ttl[i] = math.max(ttl, 0)
end
local used_before, new_of, shares = {}, {}, {}
local function used_of(i, who)
  local used = used_before[i]
  if not used[who] then
    local then_used, now_used = redis.call('hget', shared_key(i, 2), who), redis.call('hget', shared_key(i, 1), who)
    used[who] = math.floor((tonumber(then_used) or 0) * last_ttl[i] / window_ms[i]) + (tonumber(now_used) or 0)
  end
  return used[who] + (new_of[i][who] or 0)
end
local function work_out(i)
  local sharers = redis.call('hlen', shared_key(i, 1)) + redis.call('hlen', shared_key(i, 2))
  if sharers > sharers_limit then
    return math.floor(amount[i] / sharers)
  end
  local used, people, most, exactly = {}, 0, 0, {}
  local found = redis.call('hgetall', shared_key(i, 1))
  for k = 1, #found, 2 do
    used[found[k]] = tonumber(found[k + 1])
  end
  found = redis.call('hgetall', shared_key(i, 2))
  for k = 1, #found, 2 do
    used[found[k]] = (used[found[k]] or 0) + math.floor(tonumber(found[k + 1]) * last_ttl[i] / window_ms[i])
  end
  for _, count in pairs(used) do
    if count > 0 then
      people, most, exactly[count] = people + 1, math.max(most, count), (exactly[count] or 0) + 1
    end
  end
  local share, filled = 0, 0
  while share < most and filled + people <= amount[i] do
    share, filled = share + 1, filled + people
    people = people - (exactly[share] or 0)
  end
  return share
end
local function share_of(i)
  if not shares[i] then
    shares[i] = tonumber(redis.call('get', shared_key(i, 3)) or '')
    if not shares[i] then
      shares[i] = work_out(i)
      if share_lives_ms > 0 then
        redis.call('set', shared_key(i, 3), shares[i], 'px', share_lives_ms)
      end
    end
  end
  return shares[i]
end
for i = 1, limits do
  used_before[i], new_of[i] = {}, {}
end
local verdicts = {}
local at = 3 * limits + 4
while ARGV[at] do
  local past = at + tonumber(ARGV[at])
  local who, further = ARGV[past + 1], tonumber(ARGV[past + 2])
  local first = further == 0 and 1 or 0
  local refused_by, share_left = 0, -1
  for j = at + 1, past do
    local i = tonumber(ARGV[j])
    local used = math.floor(last[i] * last_ttl[i] / window_ms[i]) + running[i] + taken[i]
    if used + first > amount[i] then
      local left = at_shared[i] > 0 and share_of(i) - used_of(i, who) - first or -1
      if left < 0 then
        refused_by = i
        break
      end
      share_left = left
    end
  end
  if refused_by == 0 then
    for j = at + 1, past do
      local i = tonumber(ARGV[j])
      taken[i] = taken[i] + first + further
      if at_shared[i] > 0 then
        new_of[i][who] = (new_of[i][who] or 0) + first + further
      end
    end
  end
  verdicts[#verdicts + 1] = refused_by
  verdicts[#verdicts + 1] = share_left
  at = past + 3
end
local answer = {}
for i = 1, limits do
  if taken[i] > 0 then
    if running_ttl[i] > 0 then
      redis.call('incrby', KEYS[2 * i - 1], taken[i])
    else
      running_ttl[i] = 2 * window_ms[i]
      redis.call('set', KEYS[2 * i - 1], taken[i], 'px', running_ttl[i])
    end
    if at_shared[i] > 0 then
      for who, count in pairs(new_of[i]) do
        redis.call('hincrby', shared_key(i, 1), who, count)
      end
      redis.call('pexpire', shared_key(i, 1), running_ttl[i])
    end
  end
  answer[#answer + 1] = last[i]
  answer[#answer + 1] = last_ttl[i]
  answer[#answer + 1] = running[i] + taken[i]
  answer[#answer + 1] = running_ttl[i]
end
for i = 1, #verdicts do
  answer[#answer + 1] = verdicts[i]
end
return answer
"""


class Claim(NamedTuple):
    """One limit that a request falls under, and whose count it is there.

    A limit that many share has a `sharer`: once it is reached, who has had less than their share still passes. The
    share is that of max-min fairness, the largest number of which all together may have as much, where those who want
    less leave the rest to the others (Bertsekas and Gallager, Data Networks, 6.5.2). A request has one such limit.
    """

    limit: RateLimitItem
    who: str
    key: str
    sharer: str | None = None


class Window(NamedTuple):
    """The counts of a limit, as `limits` keeps them: the running one lives for twice its time, and becomes the last."""

    last: int
    last_ttl_s: float
    running: int
    running_ttl_s: float
    window_s: int

    @property
    def ends_in_s(self) -> float:
        return max(0.0, self.running_ttl_s - self.window_s)

    def left_of(self, amount: int) -> int:
        return max(0, amount - math.floor(self.last * self.last_ttl_s / self.window_s) - self.running)

    def next_in_s(self, amount: int) -> float:
        """Until one more would pass, if nobody else comes; for one that is exhausted."""
        if self.running >= amount:
            # Charges beyond the limit also count in the next window.
            return self.ends_in_s + self.window_s * (1 - amount / self.running)
        if not self.last:
            return self.ends_in_s
        # What the last window weighs falls evenly, to nothing at the end of the running one.
        return max(0.0, self.last_ttl_s - (amount - self.running) * self.window_s / self.last)


class Standing(NamedTuple):
    """How a request stands after its limits were looked at: by the one that refuses it, or that is nearest to it."""

    is_granted: bool
    name: str
    amount: int
    left: int
    # Until there is more of it: the end of the running window, or, where nothing is left, until one more would pass.
    reset_in_s: float

    @property
    def retry_after_s(self) -> int:
        return math.floor(self.reset_in_s) + 1


def claim(limit: RateLimitItem, who: str) -> Claim:
    return Claim(limit, who, limit.key_for(who))


def shared_claim(limit: RateLimitItem, sharer: str) -> Claim:
    """Of a limit that everybody has together."""
    return Claim(limit, _TOGETHER, limit.key_for(_TOGETHER), sharer)


class _Asked(NamedTuple):
    claims: Sequence[Claim]
    further: int
    answer: asyncio.Future[Standing]


class RateLimits:
    """Counts requests. Those that come while Redis is being asked are asked about together, next."""

    def __init__(self, redis: QuickRedis) -> None:
        self._redis = redis
        self._take = redis.script(_TAKE)
        self._memory = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._memory)
        self._waiting: list[_Asked] = []
        self._asking: asyncio.Task[None] | None = None
        # Digests of API keys that have held, oldest first.
        self._known: dict[str, None] = {}

    def remember(self, digest: str) -> None:
        self._known.pop(digest, None)
        self._known[digest] = None
        if len(self._known) > _REMEMBERED_KEYS:
            del self._known[next(iter(self._known))]

    def knows(self, digest: str) -> bool:
        return digest in self._known

    async def take(self, claims: Sequence[Claim], further: int = 0) -> Standing:
        """Charges all of the limits, or none where one refuses. Answers within 0.2 s, Redis or not.

        `further` is what a request costs that was charged 1 before and turns out to be larger. It passes where that 1
        was within the limits, and its whole cost is charged then, also beyond them.
        """
        if self._redis.is_away:
            return await self._take_locally(claims, further)
        answer: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(claims, further, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="rate-limits")
        return await answer

    async def until_answered(self) -> None:
        """Waits for the call to Redis that runs, 2 ms at most, so that further requests join the next one."""
        if self._asking is not None:
            await asyncio.wait((self._asking,), timeout=_MOMENT_S)

    async def _ask(self) -> None:
        try:
            while self._waiting:
                # Who comes at the same moment goes on at the same moment: otherwise the ledger's batches fall apart.
                for _ in range(_TURNS_BEFORE_ASKING):
                    await asyncio.sleep(0)
                batch, self._waiting = self._waiting[:_BATCH_LIMIT], self._waiting[_BATCH_LIMIT:]
                await self._answer(batch)
        finally:
            self._asking = None

    async def _answer(self, batch: Sequence[_Asked]) -> None:
        try:
            try:
                standings = await self._take_from_redis(batch)
            except RedisAwayError:
                standings = [await self._take_locally(one.claims, one.further) for one in batch]
        except Exception as error:  # noqa: BLE001 whoever waits would wait for ever, and so would those after them
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, standing in zip(batch, standings, strict=True):
            # Done already: its client has hung up.
            if not one.answer.done():
                one.answer.set_result(standing)

    async def _take_from_redis(self, requests: Sequence[_Asked]) -> list[Standing]:
        places: dict[str, int] = {}
        shared: list[str] = []
        windows_s: list[int] = []
        terms: list[int] = []
        asked: list[int | str] = []
        for claims, further, _ in requests:
            asked.append(len(claims))
            sharing = ""
            for limit, _, key, sharer in claims:
                place = places.get(key)
                if place is None:
                    place = places[key] = len(places) + 1
                    windows_s.append(limit.get_expiry())
                    if sharer is not None:
                        shared.append(key)
                    terms += (limit.amount, windows_s[-1] * 1000, 0 if sharer is None else len(shared))
                asked.append(place)
                if sharer is not None:
                    sharing = sharer
            asked += (sharing, further)
        # As RedisStorage names them: in braces, so that a cluster keeps both windows of a limit together.
        keys = [f"{self._redis.prefix}:{{{key}}}{end}" for key in places for end in ("", "/-1")]
        keys += [f"{self._redis.prefix}:{{{key}}}{end}" for key in shared for end in ("/of", "/of/-1", "/share")]
        heading = (len(places), _SHARE_LIVES_MS, _SHARERS_LIMIT)
        found = await self._redis.run(self._take, keys, [*heading, *terms, *asked])
        windows = {
            key: Window(found[at], found[at + 1] / 1000, found[at + 2], found[at + 3] / 1000, window_s)
            for key, window_s, at in zip(places, windows_s, range(0, 4 * len(places), 4), strict=True)
        }
        by_place = [None, *places]
        verdicts = found[4 * len(places) :]
        return [
            _standing(one.claims, by_place[refused_by], windows, share_left)
            for one, refused_by, share_left in zip(requests, verdicts[::2], verdicts[1::2], strict=True)
        ]

    async def _take_locally(self, claims: Sequence[Claim], further: int) -> Standing:
        """Never waits, so that nobody else comes in between. Looks at no shares.

        Charges only as much of a further cost as is left: the library counts nothing beyond a limit. Charges it to the
        caller's own limits alone: without shares, two callers with a large batch each would use up what all have.
        """
        refused_by = None
        for limit, who, key, _ in claims:
            if not await self._limiter.test(limit, who, cost=0 if further else 1):
                refused_by = key
                break
        else:
            for limit, who, key, sharer in claims:
                if further and sharer is not None:
                    continue
                cost = min(further, (await self._window_here(limit, key)).left_of(limit.amount)) if further else 1
                if cost:
                    await self._limiter.hit(limit, who, cost=cost)
        windows = {key: await self._window_here(limit, key) for limit, _, key, _ in claims}
        return _standing(claims, refused_by, windows)

    async def _window_here(self, limit: RateLimitItem, key: str) -> Window:
        window_s = limit.get_expiry()
        return Window(*await self._memory.get_sliding_window(key, window_s), window_s)


def _standing(
    claims: Sequence[Claim], refused_by: str | None, windows: Mapping[str, Window], share_left: int = -1
) -> Standing:
    """`share_left` is what a shared limit that is reached leaves to this one alone; -1 where none is."""
    nearest, fewest = claims[0], -1
    for one in claims:
        if refused_by == one.key:
            nearest, fewest = one, 0
            break
        left = windows[one.key].left_of(one.limit.amount)
        if share_left >= 0 and one.sharer is not None:
            left = share_left
        if fewest < 0 or left < fewest:
            nearest, fewest = one, left
    amount, window = nearest.limit.amount, windows[nearest.key]
    reset_in_s = window.ends_in_s if fewest else window.next_in_s(amount)
    return Standing(refused_by is None, nearest.limit.namespace, amount, fewest, reset_in_s)
