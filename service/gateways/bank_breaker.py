"""A circuit breaker around the bank: while it is down nobody asks it, and when it is back it is not run over.

purgatory's state machine decides: closed, opened, half-opened. Around it stands what purgatory 3.0.1 leaves open:

- Its half-open state lets everybody through at once, and learns of it only when they are back. Here one visit at a
  time is let through, over all workers, and then ever more of them.
- Its repository in Redis reads twice before each call and writes after it, without a limit of time; whatever Redis
  raises would take the place of the bank's own answer, and a flush in between leaves a row that it can never read
  again. Here each process decides from memory. What changes is told to the others through Redis, in the background.
- It counts failures in a row, whoever's they are. Here an order counts once, and one account half as much as is needed.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from datetime import date
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar
from uuid import uuid4

import structlog
from purgatory.domain.model import CLOSED, OPENED, ClosedState, Context, HalfOpenedState, OpenedState

from service.background import end
from service.gateways.bank import (
    Bank,
    BankOrder,
    BankOutcomeUnknown,
    BankRejected,
    BankReport,
    BankUnavailable,
    StatementLine,
)
from service.gateways.quick_redis import QuickRedis, RedisAwayError
from service.settings import Settings

log = structlog.get_logger()

Answer = TypeVar("Answer")

# What others have found out is known so much later at most.
_LOOK_S: Final = 1.0
# Of what is kept in Redis when nobody looks any more.
_KEPT_MS: Final = 3_600_000
# Beyond its half, one account needs ten times as many failures: it may be its own trouble.
_ALONE_FACTOR: Final = 10
# Visits at once when the bank is back; doubled whenever so many have succeeded.
_FIRST_PLACES: Final = 1
_LONGEST_WAIT_S: Final = 1.0
# While somebody else is trying whether the bank is back.
_SOON_S: Final = 0.5
# Whoever sets a call the same limit of time as we do may be a little faster.
_NEARLY: Final = 0.95

# The newer change wins, by Redis' own clock: no process's clock takes part. ARGV: our state; since when, as Redis has
# said before (ms; 0: it does not know of it yet); how old it is (ms; -1: nothing has ever changed); how long to keep
# it. Returns the state that holds, since when, how old it is, and whether it is ours.
_SHARE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ours, age = tonumber(ARGV[2]), tonumber(ARGV[3])
if ours == 0 and age >= 0 then ours = now - age end
ours = math.min(ours, now)
local since, state = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):(%a+)$')
if state == 'closed' or state == 'opened' then
  since = tonumber(since)
  if since > ours and since <= now then return {state, since, now - since, 0} end
end
if ours > 0 then redis.call('SET', KEYS[1], string.format('%.0f:%s', ours, ARGV[1]), 'PX', ARGV[4]) end
return {ARGV[1], ours, now - ours, 1}
"""
_TAKE_PROBE: Final = "return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0"
_LEAVE_PROBE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class _Visit:
    """What came of the last call of a visit; None where the bank was not asked, or nothing is known of it."""

    def __init__(self, account: str | None, *, is_probe: bool) -> None:
        self.account = None if account is None else hash(account)
        self.is_probe = is_probe
        self.succeeded: bool | None = None
        # Of the order that failed, and of its account.
        self.failed: tuple[str, int] = ("", 0)


_visit: ContextVar[_Visit | None] = ContextVar("_visit", default=None)


def visiting(bank: Bank, account: str) -> AbstractAsyncContextManager[bool]:
    """For the calls about one order of that account; whether it is to find out if the bank is back.

    Raises BankUnavailable where nobody is let through for now.
    """
    return bank.visit(account) if isinstance(bank, BankBreaker) else nullcontext(enter_result=False)


def retry_after_s(bank: Bank) -> float:
    """0 while the bank is not known to be down."""
    return bank.retry_after_s() if isinstance(bank, BankBreaker) else 0.0


class BankBreaker:
    """A Bank. One for each process; those of all processes tell each other."""

    def __init__(
        self,
        bank: Bank,
        redis: QuickRedis,
        settings: Settings,
        on_change: Callable[[BreakerState, float], None] = lambda _state, _retry_after_s: None,
    ) -> None:
        """`on_change` hears of each new state, and in how many seconds the next try is due."""
        self._bank = bank
        self._redis = redis
        self._on_change = on_change
        self._threshold = settings.bank_breaker_failures
        self._open_s = settings.bank_breaker_open_s
        self._call_s = settings.bank_timeout_s
        self._visit_ms = math.ceil(settings.bank_recheck_s * 1000)
        self._most_places = settings.worker_concurrency
        self._circuit = Context("bank", max(1, self._threshold), self._open_s)
        # When the state changed last: by the monotonic clock, and by Redis' once it has been told.
        self._changed_s: float | None = None
        self._since_ms = 0
        self._is_probing = False
        # Failures since the last success.
        self._orders: set[str] = set()
        self._accounts: Counter[int] = Counter()
        # Since the bank is back: how many may visit it at once, None for all, and how many of them have succeeded.
        self._places: int | None = None
        self._succeeded = 0
        self._visitors = 0
        self._left = asyncio.Event()
        self._key = f"bank_breaker:{settings.database}"
        self._share = redis.script(_SHARE)
        self._take_probe, self._leave_probe = redis.script(_TAKE_PROBE), redis.script(_LEAVE_PROBE)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """From here on what other processes find out is heard of."""
        if self._threshold:
            self._in_background(self._listen)

    async def close(self) -> None:
        await end(*self._tasks)

    # --- What others want to know

    @property
    def state_now(self) -> BreakerState:
        """From memory: at most a second behind the process that found it out."""
        if self._circuit.state == CLOSED:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._wait_s() > 0 else BreakerState.HALF_OPEN

    def retry_after_s(self) -> float:
        """When the bank is tried again; 0 while it is not known to be down."""
        return 0.0 if self._circuit.state == CLOSED else max(self._wait_s(), _SOON_S)

    def places(self, most: int) -> int:
        """How many of `most` may be at the bank at once: none while it is down, then one, then ever more."""
        match self.state_now:
            case BreakerState.OPEN:
                return 0
            case BreakerState.HALF_OPEN:
                return 1
            case BreakerState.CLOSED:
                return most if self._places is None else min(most, self._places)

    # --- The bank

    async def submit(self, order: BankOrder) -> BankReport:
        return await self._ask(partial(self._bank.submit, order), order.reference, hash(order.account))

    async def find(self, reference: str) -> BankReport | None:
        return await self._ask(partial(self._bank.find, reference), reference, hash(reference))

    async def statement(self, day: date) -> Sequence[StatementLine]:
        """No visit, and within whatever time the caller gives it: how it fares tells nothing of how orders do."""
        if self._circuit.state != CLOSED:
            raise BankUnavailable(self.retry_after_s())
        return await self._bank.statement(day)

    @asynccontextmanager
    async def visit(self, account: str | None = None) -> AsyncIterator[bool]:
        """Raises BankUnavailable; nothing has happened then. The last call in it tells whether the bank is well.

        With an `account`, whatever is asked in it is about that one: a question by reference names none.
        """
        visit = _Visit(account, is_probe=await self._let_in())
        token = _visit.set(visit)
        self._visitors += 1
        try:
            yield visit.is_probe
        finally:
            _visit.reset(token)
            self._visitors -= 1
            self._learn(visit)
            self._left.set()

    async def _ask(self, call: Callable[[], Awaitable[Answer]], order: str, account: int) -> Answer:
        visit = _visit.get()
        if visit is None:
            async with self.visit():
                return await self._ask(call, order, account)
        started = time.monotonic()
        visit.succeeded, visit.failed = None, (order, account if visit.account is None else visit.account)
        try:
            async with asyncio.timeout(self._call_s):
                answer = await call()
        except BankRejected:
            # A bank that says no is well.
            visit.succeeded = True
            raise
        except TimeoutError as silence:
            visit.succeeded = False
            raise BankOutcomeUnknown("no answer from the bank in time") from silence
        except BankUnavailable:
            raise
        except asyncio.CancelledError:
            if time.monotonic() - started >= self._call_s * _NEARLY:
                visit.succeeded = False
            raise
        except Exception:
            visit.succeeded = False
            raise
        visit.succeeded = True
        return answer

    # --- Who is let through

    async def _let_in(self) -> bool:
        """Whether it is to find out if the bank is back."""
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while self._circuit.state == CLOSED:
            if self._places is None or self._visitors < self._places:
                return False
            self._left.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._left.wait()
            except TimeoutError as error:
                raise BankUnavailable(_SOON_S) from error
        if self._wait_s() > 0:
            raise BankUnavailable(self._wait_s())
        if self._is_probing:
            raise BankUnavailable(_SOON_S)
        self._is_probing = True
        try:
            is_ours = await self._take_turn()
        except BaseException:
            self._is_probing = False
            raise
        if not is_ours or self._circuit.state == CLOSED or self._wait_s() > 0:
            # Another process is at it, or was and has told us.
            self._is_probing = False
            raise BankUnavailable(max(self._wait_s(), _SOON_S))
        # Not left to purgatory, which goes by the machine's clock.
        self._circuit.set_state(HalfOpenedState())
        return True

    async def _take_turn(self) -> bool:
        """One at a time over all processes; of this process where Redis is away."""
        self._turn = uuid4().hex
        try:
            return bool(await self._redis.run(self._take_probe, [f"{self._key}:probe"], [self._turn, self._visit_ms]))
        except RedisAwayError:
            return True

    async def _leave_turn(self, turn: str) -> None:
        await self._redis.run(self._leave_probe, [f"{self._key}:probe"], [turn])

    def _wait_s(self) -> float:
        if self._circuit.state != OPENED or self._changed_s is None:
            return 0.0
        return self._changed_s + self._open_s - time.monotonic()

    # --- What is learned

    def _learn(self, visit: _Visit) -> None:
        before = self._circuit.state
        if visit.is_probe:
            self._is_probing = False
            self._in_background(partial(self._leave_turn, self._turn))
        elif before != CLOSED:
            # It began before the bank was known to be down: old news.
            return
        if visit.succeeded:
            self._orders.clear()
            self._accounts.clear()
            self._circuit.handle_end_request()
            self._make_room()
        elif visit.succeeded is False and (visit.is_probe or self._counts(*visit.failed)):
            self._circuit.handle_exception(BankOutcomeUnknown())
        # purgatory's news for its own repository, which nobody reads here.
        self._circuit.messages.clear()
        if self._circuit.state != before:
            self._has_changed(time.monotonic(), was_closed=before == CLOSED)

    def _counts(self, order: str, account: int) -> bool:
        """Whether a failure speaks against the bank, and not only against one order or one account."""
        if not self._threshold:
            return False
        if self._places is not None:
            self._places, self._succeeded = max(_FIRST_PLACES, self._places // 2), 0
        if order in self._orders:
            return False
        self._orders.add(order)
        self._accounts[account] += 1
        of_account = self._accounts[account]
        return of_account <= max(1, self._threshold // 2) or of_account % _ALONE_FACTOR == 0

    def _make_room(self) -> None:
        if self._places is None:
            return
        self._succeeded += 1
        if self._succeeded >= self._places:
            self._places, self._succeeded = self._places * 2, 0
        if self._places >= self._most_places:
            self._places = None

    def _has_changed(self, changed_s: float, since_ms: int = 0, *, was_closed: bool) -> None:
        self._changed_s, self._since_ms = changed_s, since_ms
        self._orders.clear()
        self._accounts.clear()
        if self._circuit.state == CLOSED:
            self._places, self._succeeded = _FIRST_PLACES, 0
            log.warning("bank.breaker_closed")
        elif was_closed:
            log.error("bank.breaker_open", retry_after_s=round(self.retry_after_s(), 1))
        else:
            log.info("bank.still_down", retry_after_s=round(self.retry_after_s(), 1))
        self._left.set()
        self._in_background(self._tell)
        self._on_change(self.state_now, self.retry_after_s())

    # --- The other processes

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            # By a task of its own: whatever it stumbles over, the next one looks again.
            self._in_background(self._tell)

    async def _tell(self) -> None:
        """Tells what we know last, and hears what others do. Without Redis everybody finds out for themselves."""
        ours = CLOSED if self._circuit.state == CLOSED else OPENED
        changed_s, told_s = self._changed_s, time.monotonic()
        age_ms = -1 if changed_s is None else round((told_s - changed_s) * 1000)
        try:
            known = await self._redis.run(self._share, [self._key], [ours, self._since_ms, age_ms, _KEPT_MS])
        except RedisAwayError:
            return
        if self._changed_s != changed_s:
            # Meanwhile: that change is told by itself.
            return
        state, since_ms, age_ms, is_ours = known
        if is_ours:
            self._since_ms = since_ms
        else:
            self._adopt(told_s - age_ms / 1000, since_ms, is_closed=bytes(state).decode() == CLOSED)

    def _adopt(self, changed_s: float, since_ms: int, *, is_closed: bool) -> None:
        """Newer than what we know ourselves. A change to the same state only moves the next try."""
        was_closed = self._circuit.state == CLOSED
        if is_closed and was_closed:
            self._changed_s, self._since_ms = changed_s, since_ms
            return
        self._circuit.set_state(ClosedState() if is_closed else OpenedState(self._circuit.name))
        self._circuit.messages.clear()
        self._has_changed(changed_s, since_ms, was_closed=was_closed)

    def _in_background(self, call: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                # Begun only here: a task that is canceled before it runs leaves nothing behind that nobody awaited.
                await call()
            except RedisAwayError:
                pass
            except Exception:
                log.exception("bank.breaker_failed")

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
