"""Group commit: commands that arrive while one transaction commits share the next one.

There is no artificial delay. An idle ledger commits a lone command at once; a busy one commits what has
gathered. The idea is that of databases' own logs (DeWitt et al., "Implementation Techniques for Main Memory
Database Systems", 1984), applied one floor up, where it also spares the write conflicts.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import NamedTuple, TypeVar

import pymongo
import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from service.crash_points import CrashPoint, reach
from service.database import Client, abort_transaction
from service.domain.idempotency import Answer
from service.domain.policy import Policy
from service.domain.records import Record
from service.errors import (
    HouseFundsExhausted,
    IdempotencyKeyInFlight,
    InternalError,
    LedgerBusy,
    Unavailable,
    WalletServiceError,
)
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.dead_owners import LedgerSession
from service.ledger.fair_queue import FairQueue, Pending
from service.ledger.house_portions import PortionCache
from service.ledger.transaction import Attempt, GuardMissed, PortionMissed, prepare
from service.outages import outages
from service.tracing import span

log = structlog.get_logger()

_Kind = TypeVar("_Kind", bound=Record)

# After this many lost races the batch is halved: what loses is likely one wallet, the rest need not wait for it.
_CONFLICTS_BEFORE_HALVING = 6
# After this many lost races an attempt locks its wallets, by a write, before it reads them. A slow process that reads
# first and writes last loses to every quicker one. A process that locks first wins as soon as the wallet is free.
_CONFLICTS_BEFORE_LOCKING = 2
_BACKOFF_FIRST_S = 0.002
# A batch that waits for a wallet tries often: other processes hold it for some milliseconds.
_CONTENDED_BACKOFF_MAX_S = 0.03
_BACKOFF_MAX_S = 0.25
_RETRY_AFTER_S = 1
# Reading a socket, parsing the request, running its handler: measured, more turns gain nothing.
_TURNS_BETWEEN_BATCHES = 3
# The driver's own budget for retries is two minutes. An attempt has to end before the server ends the transaction
# (TRANSACTION_LIFETIME_S); much shorter, and a slow moment would make the driver throw connections away.
_ATTEMPT_S = 4.0
_SHORTEST_ATTEMPT_S = 1.0
# How much a committed batch adds to the weight limit, after a batch that took too long has halved it. It grows
# slowly and shrinks quickly, as windows do that look for what a network carries (Chiu and Jain, "Analysis of the
# Increase and Decrease Algorithms for Congestion Avoidance", 1989).
_WEIGHT_STEPS = 32
_DUPLICATE_KEY = 11000
_WRITE_CONFLICT = 112
# The server interrupted the command: another process took this one for dead and ended its session (dead_owners.py), or
# an operator killed it.
_INTERRUPTED = 11601


class Committed(NamedTuple):
    """What a transaction did, for the log and for waking the workers."""

    commands: int
    refused: int
    conflicts: int
    duration_s: float
    has_outbox_rows: bool
    has_events: bool
    # One currency for each command refused with HouseFundsExhausted.
    exhausted_currencies: tuple[str, ...] = ()


class Ledger:
    """The only thing that moves money. One per process; several processes work side by side."""

    def __init__(  # noqa: PLR0913 limits and hooks of its own, by name
        self,
        client: Client,
        *,
        policy: Policy,
        batch_limit: int,
        queue_limit: int,
        patience_s: float,
        on_committed: Callable[[Committed], None],
        user_share: int | None = None,
        let_in: Callable[[], Awaitable[None]] | None = None,
        require_clock: Callable[[], None] | None = None,
    ) -> None:
        """`user_share` is how much of the queue one user may fill; None for all of it.

        `let_in` waits, for a moment at most, for requests that are about to hand in a command for the next batch.

        `require_clock` raises ClockOff while this process's clock is wrong.
        """
        self._client = client
        self.policy = policy
        self._batch_limit = batch_limit
        # Current maximum weight of a batch. A batch that took too long has made it smaller than `batch_limit`.
        self._weight_limit = batch_limit
        self._patience_s = patience_s
        self._on_committed = on_committed
        self._let_in = let_in
        self._session = LedgerSession(client)
        self._portions = PortionCache(self._session.id)
        self._require_clock = require_clock
        self._waiting = FairQueue(queue_limit, user_share)
        self._claims_in_flight: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._closing = False
        self._runner: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._session.start()
        self._runner = asyncio.create_task(self._run(), name="ledger")
        self._runner.add_done_callback(lambda _: self._leave_nobody_waiting())

    async def close(self) -> None:
        """Ends after what was taken in is committed."""
        self._closing = True
        self._wake.set()
        if self._runner is not None:
            await self._runner
        await self._session.close()

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    def is_running(self) -> bool:
        return self._runner is not None and not self._runner.done() and not self._closing

    def _leave_nobody_waiting(self) -> None:
        """However the runner ended: who still waits is sent away instead of waiting for ever."""
        _answer_all(self._waiting.take_all(), Unavailable(retry_after_s=_RETRY_AFTER_S))

    async def execute(self, command: Command) -> Decided:
        """Decides and commits the command together with whatever else is waiting.

        Raises LedgerBusy, TooManyPending, ClockOff or Unavailable (nothing known to have happened: ask again with the
        same key), IdempotencyKeyInFlight, and for a command without a key the error it was refused with.
        A caller that goes away takes nothing back.
        """
        if self._runner is not None and self._runner.done():
            raise Unavailable(retry_after_s=_RETRY_AFTER_S)
        if self._require_clock is not None:
            self._require_clock()
        if self._closing:
            raise LedgerBusy(retry_after_s=_RETRY_AFTER_S)
        if command.claim is not None and command.claim.id in self._claims_in_flight:
            raise IdempotencyKeyInFlight(retry_after_s=_RETRY_AFTER_S)
        pending = Pending(command, perf_counter(), asyncio.get_running_loop().create_future())
        self._waiting.add(pending)
        self._wake.set()
        # Of a batch, which belongs to many traces, each trace has its own command's part.
        with span("ledger.commit", {"wallet.command": type(command).__name__}):
            decided = await pending.future
            if decided.error is not None:
                raise decided.error
        return decided

    async def answer(self, command: Command) -> Answer:
        """`execute` for commands with a key: a refusal is an answer too."""
        return (await self.execute(command)).given

    async def change(self, command: Command, kind: type[_Kind]) -> _Kind:
        """`execute` for commands without a key: their record as it stands afterwards. Raises what refused them."""
        record = (await self.execute(command)).record
        assert isinstance(record, kind), "a command without a key is refused or has its record"
        return record

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._take_batch()
            if not batch:
                continue
            self._claims_in_flight = frozenset(p.command.claim.id for p in batch if p.command.claim is not None)
            try:
                await self._settle(batch)
            except Exception:
                log.exception("ledger.batch_failed", size=len(batch))
                _answer_all(batch, InternalError())
            finally:
                # Where this task is cancelled, for those whom nothing above has answered.
                _answer_all(batch, Unavailable(retry_after_s=_RETRY_AFTER_S))
                self._claims_in_flight = frozenset()
            # No delay, only manners: clients who were just answered get to hand in their next command, so that
            # batches are of one size instead of a large and a small one in turn.
            await _stand_back()
            if self._let_in is not None:
                await self._let_in()
                await _stand_back()

    def _take_batch(self) -> list[Pending]:
        """Takes the next commands, from users in turn. Those that have waited for `patience_s` are refused."""
        overdue_s = perf_counter() - self._patience_s
        batch: list[Pending] = []
        weight = 0
        while (pending := self._waiting.take(self._weight_limit - weight if batch else None)) is not None:
            if pending.arrived_s <= overdue_s:
                _answer_all([pending], Unavailable(retry_after_s=_RETRY_AFTER_S))
            else:
                batch.append(pending)
                weight += pending.command.weight
        return batch

    async def _settle(self, batch: Sequence[Pending], *, is_contended: bool = False) -> None:
        """Brings a batch to its end, whole or in halves: each of its commands has its answer afterwards.

        `is_contended`: it has lost races for its wallets, so it locks them first.
        """
        tries = conflicts = duplicates = 0
        last_error: Exception | None = None
        while batch := self._without_overdue(batch, last_error):
            # Uses the youngest command's deadline: an older one must not take the time from the transaction of all.
            deadline_s = max(pending.arrived_s for pending in batch) + self._patience_s
            try:
                attempt = Attempt(after_duplicate=duplicates > 0, locks_first=is_contended)
                await self._commit(batch, deadline_s, conflicts, attempt)
            except Exception as error:  # noqa: BLE001 whatever it is, it must not hit the neighbours of its cause
                tries, last_error = tries + 1, error
                self._forget_portions(error)
                duplicates += is_duplicate(error)
                is_outage, is_too_large = _is_outage(error), False
                if is_outage:
                    self._session.drop()
                    is_too_large = await self._is_too_large(batch, error)
                else:
                    # An outage says nothing about who else wants the wallets.
                    conflicts += 1
                    is_contended = is_contended or conflicts >= _CONFLICTS_BEFORE_LOCKING
                    await self._session.end_the_dead()
                if _is_worth_repeating(error, duplicates):
                    is_stuck = is_too_large if is_outage else conflicts % _CONFLICTS_BEFORE_HALVING == 0
                    if len(batch) == 1 or not is_stuck:
                        is_race = is_contended and not is_outage
                        await asyncio.sleep(_backoff_s(tries, _CONTENDED_BACKOFF_MAX_S if is_race else _BACKOFF_MAX_S))
                        continue
                elif len(batch) == 1:
                    _log_failure("ledger.command_failed", error, command=_name(batch[0]))
                    return _answer_all(batch, InternalError())
                break
            else:
                return None
        else:
            return None
        middle = len(batch) // 2
        # Lost races are no trouble: a busy wallet in several processes halves a batch each second.
        tell = log.info if conflicts >= _CONFLICTS_BEFORE_HALVING else log.warning
        tell("ledger.batch_halved", size=len(batch), conflicts=conflicts, weight_limit=self._weight_limit)
        for half in (batch[:middle], batch[middle:]):
            await self._settle(half, is_contended=is_contended)
        return None

    def _without_overdue(self, batch: Sequence[Pending], error: Exception | None) -> Sequence[Pending]:
        """Refuses the commands that have waited for `patience_s`, and returns the others.

        A batch has commands of all ages, since users take turns. `error` is what the last attempt failed by.
        """
        overdue_s = perf_counter() - self._patience_s
        overdue = [pending for pending in batch if pending.arrived_s <= overdue_s]
        if not overdue:
            return batch
        if error is not None:
            outages.met("ledger", error)
        _answer_all(overdue, Unavailable(retry_after_s=_RETRY_AFTER_S))
        return [pending for pending in batch if pending.arrived_s > overdue_s]

    def _forget_portions(self, error: Exception) -> None:
        """Forgets the portions after a failed attempt, unless it lost a race for something else.

        A write conflict may be one on a portion. Its guard then tells in the next attempt.
        """
        if isinstance(error, GuardMissed):
            is_elsewhere = not isinstance(error, PortionMissed)
        else:
            is_elsewhere = isinstance(error, OperationFailure) and error.code == _WRITE_CONFLICT
        if not is_elsewhere:
            self._portions.forget()

    async def _is_too_large(self, batch: Sequence[Pending], error: Exception) -> bool:
        """Tells whether the batch ran out of time at a server that answers. If so, the next batches are smaller too.

        In an outage halving would gain nothing: the same batch passes once the server is back.
        """
        if len(batch) == 1 or not _has_run_out_of_time(error) or not await self._session.is_answered():
            return False
        weight = sum(pending.command.weight for pending in batch)
        self._weight_limit = max(1, min(self._weight_limit, weight) // 2)
        return True

    async def _commit(self, batch: Sequence[Pending], deadline_s: float, conflicts: int, attempt: Attempt) -> None:
        started = perf_counter()
        session = self._session.open()
        try:
            with pymongo.timeout(min(_ATTEMPT_S, max(_SHORTEST_ATTEMPT_S, deadline_s - started))):
                commands = [pending.command for pending in batch]
                prepared = await prepare(session, commands, self.policy, self._portions, attempt)
        except BaseException:  # a cancelled task too must not leave its documents locked
            await abort_transaction(session)
            raise
        reach(CrashPoint.LEDGER_WRITTEN)
        await self._commit_for_certain(session, deadline_s)
        reach(CrashPoint.LEDGER_COMMITTED)
        self._weight_limit = min(self._batch_limit, self._weight_limit + max(1, self._batch_limit // _WEIGHT_STEPS))
        self._portions.remember(prepared.portions)
        refused = 0
        for pending, outcome in zip(batch, prepared.decided, strict=True):
            refused += outcome.refused
            if not pending.future.done():
                pending.future.set_result(outcome)
        duration_s = perf_counter() - started
        errors = [outcome.error for outcome in prepared.decided]
        exhausted = tuple(str(one.facts["currency"]) for one in errors if isinstance(one, HouseFundsExhausted))
        committed = Committed(
            len(batch), refused, conflicts, duration_s, prepared.has_outbox_rows, prepared.has_events, exhausted
        )
        # By the loop, not from here: trouble in telling about a commit must not look like trouble in making it.
        asyncio.get_running_loop().call_soon(self._on_committed, committed)

    async def _commit_for_certain(self, session: AsyncClientSession, deadline_s: float) -> None:
        """Repeats the commit alone while its result is unknown: the server knows whether it has happened.

        Past the deadline the error leaves with its label, and the batch is answered with Unavailable.
        Running a batch again after that is safe: its keys and its operations' statuses tell.
        """
        attempt = 0
        while True:
            try:
                with pymongo.timeout(_ATTEMPT_S):
                    await session.commit_transaction()
            except PyMongoError as error:
                if not _is_commit_unknown(error) or perf_counter() >= deadline_s:
                    raise
                attempt += 1
                log.warning("ledger.commit_unknown", attempt=attempt, error=type(error).__name__)
                await asyncio.sleep(_backoff_s(attempt))
            else:
                return


def _log_failure(event: str, error: Exception, **facts: str | int) -> None:
    """Of the driver's errors the kind only: their texts quote whole documents, account numbers and all."""
    if isinstance(error, PyMongoError):
        log.error(event, error=type(error).__name__, code=getattr(error, "code", None), **facts)
    else:
        log.error(event, exc_info=error, **facts)


def _is_worth_repeating(error: Exception, duplicates: int) -> bool:
    """Lost races and outages: read and decided again, the batch may well pass."""
    if isinstance(error, GuardMissed) or _is_outage(error):
        return True
    if is_duplicate(error):
        # Somebody else's commit came between; read again, it shows. If it does not, something is broken.
        return duplicates < _CONFLICTS_BEFORE_HALVING
    return isinstance(error, PyMongoError) and error.has_error_label("TransientTransactionError")


def is_duplicate(error: Exception) -> bool:
    """Tells whether an insert met a document with the same unique key."""
    if isinstance(error, BulkWriteError):
        return any(e["code"] == _DUPLICATE_KEY for e in error.details.get("writeErrors", ()))
    return isinstance(error, DuplicateKeyError)


def _is_outage(error: Exception) -> bool:
    """Tells whether the server did not answer, or not in time."""
    return isinstance(error, ConnectionFailure) or (
        isinstance(error, PyMongoError) and (error.timeout or _is_commit_unknown(error))
    )


def _has_run_out_of_time(error: Exception) -> bool:
    """Tells whether the batch timed out before its commit.

    A slow commit does not depend on the size of the batch.
    """
    return isinstance(error, PyMongoError) and error.timeout and not _is_commit_unknown(error)


def _is_commit_unknown(error: PyMongoError) -> bool:
    """Tells whether the server may have committed the transaction all the same.

    Interruptions carry no label of the driver's and leave it just as open. Either the server has committed and waits
    for a majority, or it has aborted and answers the next try with NoSuchTransaction.
    """
    return (
        error.has_error_label("UnknownTransactionCommitResult")
        or isinstance(error, WriteConcernError)
        or getattr(error, "code", None) == _INTERRUPTED
    )


def _backoff_s(attempt: int, max_s: float = _BACKOFF_MAX_S) -> float:
    """Full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015)."""
    return random.uniform(0, min(max_s, _BACKOFF_FIRST_S * 2**attempt))  # noqa: S311 no secret


def _answer_all(batch: Sequence[Pending], error: WalletServiceError) -> None:
    for pending in batch:
        if not pending.future.done():
            pending.future.set_result(Decided(None, None, error, refused=True))


def _name(pending: Pending) -> str:
    return type(pending.command).__name__


async def _stand_back() -> None:
    for _ in range(_TURNS_BETWEEN_BATCHES):
        await asyncio.sleep(0)
