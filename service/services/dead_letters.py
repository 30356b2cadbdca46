"""Rows whose work keeps failing: they come back ever later, and in the end lie aside until a person has looked.

Counted is what a row's own work raised. A bank that gives no answer raises nothing (services/settlement.py), and while
MongoDB or Redis is away the rows wait as they are. A mail waits for its server ever longer, for a stated time; one that
the server refuses for good is put aside at once.
"""

import random
import traceback
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from service.database import OUTAGES, Client, run_in_transaction, says_it_is_away
from service.domain.audit_events import AuditAction
from service.domain.clock import utc_now
from service.domain.dead_letters import DeadLetter, DeadLetterState, Queue
from service.domain.holds import HoldStatus
from service.domain.identifiers import Prefix, new_id
from service.domain.operations import OperationStatus
from service.domain.outbox import OutboxTopic
from service.errors import DeadLetterEnded, DeadLetterNeeded, LedgerBusy, NotFound, Unavailable, WalletServiceError
from service.gateways.job_queue import JOBS, JobQueue
from service.gateways.mailbox import MailboxUnavailable, MailRefused
from service.log import hide_in_text
from service.outages import outages
from service.repositories import audit_events as audit_repository
from service.repositories import dead_letters as letter_repository
from service.repositories import records as record_repository
from service.repositories.dead_letters import Claimed as Claimed  # noqa: PLC0414 workers name it, and may not reach below
from service.repositories.dead_letters import DeadLetterFilter as DeadLetterFilter  # noqa: PLC0414 as above, for controllers
from service.services.audit_events import new_audit_event
from service.services.callers import Caller
from service.services.retries import retry_delay_s

log = structlog.get_logger()

_MESSAGE_LIMIT = 200
# How long a row that was put back waits at most. If the outage lasts longer, the row is put back again.
_PUT_BACK_S = 2.0
_OURS = ("service", "workers")
# In one transaction, which has to be done in seconds.
_AT_ONCE = 100

# In these a subject waits for the row: nothing else would bring it to its end.
_NEEDED_IN: Mapping[str, frozenset[str]] = {
    OutboxTopic.BANK_ORDER.value: frozenset({OperationStatus.PENDING.value, OperationStatus.PROCESSING.value}),
    # A payment that waits for its code, and a hold.
    OutboxTopic.EXPIRY.value: frozenset({OperationStatus.REQUIRES_APPROVAL.value, HoldStatus.HELD.value}),
}


class Reason(NamedTuple):
    """Of a failure, what may be kept and shown: the type of the error, and a text without anything of the data."""

    error_type: str
    message: str


class Replayed(NamedTuple):
    """How many went back to their queues, and whether there are more that fit."""

    letters: int
    has_more: bool


def is_outage(error: BaseException) -> bool:
    """Tells whether a server was away, or the ledger too busy, which says nothing about the row."""
    if isinstance(error, PyMongoError) and (error.timeout or error.has_error_label("TransientTransactionError")):
        return True
    return says_it_is_away(error) or isinstance(
        error, (*OUTAGES, RedisError, MailboxUnavailable, Unavailable, LedgerBusy)
    )


def reason_of(error: BaseException) -> Reason:
    """Texts of other errors than ours may hold anything, a whole document among them: of those it says where."""
    name = type(error).__name__
    if isinstance(error, WalletServiceError):
        return Reason(name, hide_in_text(error.message)[:_MESSAGE_LIMIT])
    code = getattr(error, "code", None)
    said = f"error {code} " if isinstance(code, int) else ""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if set(Path(frame.filename).parts) & set(_OURS)] or frames
    where = f"in {ours[-1].name} ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else "somewhere"
    return Reason(name, f"{said}{where}"[:_MESSAGE_LIMIT])


async def note_failure(
    queue: Queue, claimed: Claimed, error: Exception, client: Client, failure_limit: int, mail_retry_for_s: float
) -> None:
    """The row comes back later; after the last failure it is buried. Safe to repeat at any point.

    A row that an outage interrupted is put back, and no failure is counted; for a mail server that is away only for
    `mail_retry_for_s`.
    """
    if is_outage(error) and not isinstance(error, MailboxUnavailable):
        # Told first: where MongoDB is away the row comes back when its claim ends.
        outages.put_back(queue.value, claimed.id, error)
        # The attempt still counts, since the bank may have the order. Spread out, so that not all come back at once.
        due_at = utc_now() + timedelta(seconds=random.uniform(_PUT_BACK_S / 2, _PUT_BACK_S))  # noqa: S311 no secret
        await letter_repository.give_back(queue, [claimed], due_at, was_begun=True)
        return
    row = await letter_repository.find_claimed(queue, claimed)
    if row is None:
        return
    failures, now = row.get("failures", 0) + 1, utc_now()
    if isinstance(error, MailboxUnavailable):
        is_last = now - row.get("first_failed_at", now) >= timedelta(seconds=mail_retry_for_s)
    else:
        is_last = failures >= failure_limit or isinstance(error, MailRefused)
    if is_last:
        await bury(queue, claimed, reason_of(error), failures, client)
        return
    due_at = now + timedelta(seconds=retry_delay_s(failures))
    await letter_repository.come_back(queue, claimed, due_at, now, is_first=failures == 1)


async def bury(queue: Queue, claimed: Claimed, reason: Reason, failures: int, client: Client) -> DeadLetter | None:
    """Out of its queue and into the dead letters in one transaction. None where it has gone meanwhile."""
    letter_id, now = new_id(Prefix.DEAD_LETTER), utc_now()

    async def move(session: AsyncClientSession) -> DeadLetter | None:
        row = await letter_repository.find_claimed(queue, claimed, session=session)
        if row is None:
            return None
        letter = DeadLetter(
            id=letter_id,
            queue=queue,
            row_id=claimed.id,
            subject_id=letter_repository.subject_of(queue, row),
            topic=row.get("topic"),
            error_type=reason.error_type,
            message=reason.message,
            attempts=failures if claimed.attempts is None else claimed.attempts,
            failures=failures,
            request_id=row.get("request_id"),
            first_failed_at=row.get("first_failed_at") or now,
            last_failed_at=now,
            row=letter_repository.kept_of(queue, row),
        )
        await letter_repository.bury(letter, session=session)
        return letter

    letter = await run_in_transaction(client, move)
    if letter is not None:
        log.error("dead_letter.buried", dead_letter_id=letter.id, queue=queue, error=reason.error_type)
    return letter


async def give_back(queue: Queue, claimed: list[Claimed], *, was_begun: bool) -> None:
    """By a worker that ends: due at once for others."""
    await letter_repository.give_back(queue, claimed, utc_now(), was_begun=was_begun)


async def list_dead_letters(wanted: DeadLetterFilter, *, before_id: str | None, limit: int) -> list[DeadLetter]:
    """Newest first."""
    return await letter_repository.find_newest(wanted, before_id=before_id, limit=limit)


async def get_dead_letter(letter_id: str) -> DeadLetter:
    """Raises NotFound."""
    return _there(await letter_repository.find(letter_id), letter_id)


def _there(letter: DeadLetter | None, letter_id: str) -> DeadLetter:
    if letter is None:
        raise NotFound(f"There is no dead letter {letter_id}")
    return letter


async def replay(client: Client, admin: Caller, letter_id: str, request_id: str | None, jobs: JobQueue) -> DeadLetter:
    """Back to its queue with fresh attempts. Of several at once one does it, and the others see that it is done.

    Raises NotFound, DeadLetterEnded where it was discarded, Unavailable.
    """
    now = utc_now()

    async def do(session: AsyncClientSession) -> tuple[DeadLetter, bool]:
        letter = _there(await letter_repository.find(letter_id, session=session), letter_id)
        if letter.state is DeadLetterState.DISCARDED:
            raise DeadLetterEnded(state=letter.state)
        if letter.state is DeadLetterState.REPLAYED:
            return letter, False
        await _replay_those([letter], admin, now, request_id, session)
        return letter._replace(state=DeadLetterState.REPLAYED, ended_by=admin.user_id, ended_at=now), True

    letter, is_done_now = await run_in_transaction(client, do)
    if is_done_now:
        log.info("dead_letter.replayed", dead_letter_id=letter.id, queue=letter.queue, by=admin.user_id)
        jobs.wake(JOBS[letter.queue])
    return letter


async def replay_many(
    client: Client, admin: Caller, wanted: DeadLetterFilter, limit: int, request_id: str | None, jobs: JobQueue
) -> Replayed:
    """The oldest first, up to so many. Raises Unavailable, where some may have gone already."""
    count, queues, has_more = 0, set(), True
    while has_more and count < limit:
        at_once, now = min(_AT_ONCE, limit - count), utc_now()

        async def do(session: AsyncClientSession, at_once: int = at_once, now: datetime = now) -> list[DeadLetter]:
            found = await letter_repository.find_oldest_dead(wanted, at_once + 1, session=session)
            await _replay_those(found[:at_once], admin, now, request_id, session)
            return found

        found = await run_in_transaction(client, do)
        has_more = len(found) > at_once
        count += min(len(found), at_once)
        queues |= {letter.queue for letter in found[:at_once]}
    log.info("dead_letters.replayed", letters=count, has_more=has_more, by=admin.user_id)
    for queue in queues:
        jobs.wake(JOBS[queue])
    return Replayed(count, has_more)


async def _replay_those(
    letters: list[DeadLetter], admin: Caller, now: datetime, request_id: str | None, session: AsyncClientSession
) -> None:
    if not letters:
        return
    await letter_repository.end_many(
        letters, DeadLetterState.REPLAYED, by=admin.user_id, at=now, reason=None, session=session
    )
    await letter_repository.return_to_queues(letters, now, session=session)
    events = [
        new_audit_event(
            AuditAction.DEAD_LETTER_REPLAYED,
            actor_id=admin.user_id,
            subject_id=letter.id,
            request_id=request_id,
            queue=letter.queue,
            row_id=letter.row_id,
        )
        for letter in letters
    ]
    await audit_repository.insert_many(events, session=session)


async def discard(client: Client, admin: Caller, letter_id: str, reason: str, request_id: str | None) -> DeadLetter:
    """For good: the row does not come back. Repeating it is harmless.

    Raises NotFound, DeadLetterEnded where it was replayed, DeadLetterNeeded where its subject would stay open for ever,
    Unavailable.
    """
    now = utc_now()

    async def do(session: AsyncClientSession) -> tuple[DeadLetter, bool]:
        letter = _there(await letter_repository.find(letter_id, session=session), letter_id)
        if letter.state is DeadLetterState.REPLAYED:
            raise DeadLetterEnded(state=letter.state)
        if letter.state is DeadLetterState.DISCARDED:
            return letter, False
        status = await _needed_in(letter, session)
        if status is not None:
            raise DeadLetterNeeded(subject_id=letter.subject_id, status=status)
        state = DeadLetterState.DISCARDED
        await letter_repository.end_many([letter], state, by=admin.user_id, at=now, reason=reason, session=session)
        event = new_audit_event(
            AuditAction.DEAD_LETTER_DISCARDED,
            actor_id=admin.user_id,
            subject_id=letter.id,
            request_id=request_id,
            reason=reason,
            queue=letter.queue,
            row_id=letter.row_id,
        )
        await audit_repository.insert(event, session=session)
        return letter._replace(state=state, ended_by=admin.user_id, ended_at=now, reason=reason), True

    letter, is_done_now = await run_in_transaction(client, do)
    if is_done_now:
        log.info("dead_letter.discarded", dead_letter_id=letter.id, queue=letter.queue, by=admin.user_id)
    return letter


async def _needed_in(letter: DeadLetter, session: AsyncClientSession) -> str | None:
    """Returns the subject's status, where nothing but this row would bring it to its end."""
    statuses = _NEEDED_IN.get(letter.topic or "", frozenset())
    if not statuses:
        return None
    found: Any = (await record_repository.find_named([letter.subject_id], session=session)).get(letter.subject_id)
    status = None if found is None else str(getattr(found, "status", ""))
    return status if status in statuses else None
