"""The reference that group commit has to beat: one transaction for each request, as it is usually written.

It makes the same reads, decides by the same rules and writes the same documents under the same validators, concerns
and durability; what it does not do is share a transaction. Nothing outside the bench uses it.
"""

import asyncio
import os
import random
from time import perf_counter
from uuid import uuid4

import structlog
from pymongo.errors import BulkWriteError, PyMongoError

from service.database import Client
from service.domain.policy import Policy
from service.errors import Unavailable
from service.gateways.job_queue import Job, JobQueue
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.house_portions import PortionCache
from service.ledger.transaction import GuardMissed, Prepared, prepare
from service.repositories import ledger_processes as process_repository

log = structlog.get_logger()

# Far above what a person would wait for, so that no request fails and all the work is counted.
_PATIENCE_S = 60.0
# The drivers' own, as MongoDB specifies it for `with_transaction` (Convenient API for Transactions, 2025).
_BACKOFF_FIRST_S = 0.005
_BACKOFF_GROWTH = 1.5
_BACKOFF_MAX_S = 0.5
_RETRY_AFTER_S = 1


class PlainLedger:
    """Takes the place of the service's Ledger; as there, a command that lost a race is decided again."""

    def __init__(self, client: Client, jobs: JobQueue, policy: Policy) -> None:
        self._client = client
        self._jobs = jobs
        self.policy = policy
        # One for each command at a time, or all of them would wait for one document.
        self._idle: list[PortionCache] = []

    async def execute(self, command: Command) -> Decided:
        deadline_s = perf_counter() + _PATIENCE_S
        attempt = 0
        while True:
            try:
                prepared = await self._commit_alone(command)
            except (GuardMissed, PyMongoError) as error:
                if not _is_lost_race(error) or perf_counter() >= deadline_s:
                    log.exception("plain.gave_up", attempt=attempt)
                    raise Unavailable(retry_after_s=_RETRY_AFTER_S) from error
                attempt += 1
                await asyncio.sleep(_backoff_s(attempt))
                continue
            if prepared.has_outbox_rows:
                self._jobs.wake(Job.DRAIN_OUTBOX)
            decided = prepared.decided[0]
            if decided.error is not None:
                raise decided.error
            return decided

    async def _commit_alone(self, command: Command) -> Prepared:
        own = self._idle.pop() if self._idle else await _new_portions()
        try:
            async with self._client.start_session() as session:
                try:
                    prepared = await prepare(session, [command], self.policy, own)
                except BaseException:  # a cancelled task too must not leave its documents locked
                    if session.in_transaction:
                        await session.abort_transaction()
                    raise
                await session.commit_transaction()
        except BaseException:  # also a cancelled task cannot know whether it has committed
            own.forget()
            raise
        finally:
            self._idle.append(own)
        own.remember(prepared.portions)
        return prepared


async def _new_portions() -> PortionCache:
    """With a heartbeat: portions of owners without one are taken by others."""
    own = PortionCache(uuid4().hex)
    await process_repository.beat(own.owner, "bench", os.getpid(), None, [])
    return own


def _is_lost_race(error: Exception) -> bool:
    # A bulk write fails on a key that somebody else's commit has taken meanwhile.
    return isinstance(error, (GuardMissed, BulkWriteError)) or (
        isinstance(error, PyMongoError) and error.has_error_label("TransientTransactionError")
    )


def _backoff_s(attempt: int) -> float:
    ceiling_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * _BACKOFF_GROWTH ** min(attempt, 20))
    return random.uniform(0, ceiling_s)  # noqa: S311 no secret
