"""What admins and services did, and what befell accounts: making events, and looking at them."""

import asyncio

import structlog
from pymongo.errors import PyMongoError

from service.background import end
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.repositories import audit_events as audit_repository
from service.repositories.audit_events import AuditFilter as AuditFilter  # noqa: PLC0414 controllers name it, and may not reach below

log = structlog.get_logger()

# Who was refused, or sent what was not theirs, and may have been anybody.
ANYBODY = "anybody"
# Who runs the service, at the command line.
OPERATOR = "operator"

# Long enough that no answer waits for it, short enough that a killed process loses a second's refusals at most.
_PAUSE_S = 1.0
_WRITING_LIMIT_S = 5.0
# Minutes of a flood at the pace at which passwords can be checked.
_WAITING_LIMIT = 10_000
_AT_ONCE = 500


async def list_audit_events(wanted: AuditFilter, *, before_id: str | None, limit: int) -> list[AuditEvent]:
    """Newest first."""
    return await audit_repository.find_newest(wanted, before_id=before_id, limit=limit)


def new_audit_event(
    action: AuditAction,
    *,
    actor_id: str,
    subject_id: str,
    request_id: str | None,
    reason: str | None = None,
    **details: str | int | bool | None,
) -> AuditEvent:
    """For deeds outside the ledger: insert it in the transaction of the deed, with the repository's `insert`."""
    now = utc_now()
    return AuditEvent(new_id(Prefix.AUDIT_EVENT), now, actor_id, action, subject_id, reason, details, request_id)


class AuditTrail:
    """For events that must not be felt in the time of an answer: kept for a moment, then written together.

    A process that is killed loses them, and one that has too many drops the rest. The log has each of them.
    """

    def __init__(self) -> None:
        self._waiting: list[AuditEvent] = []
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def note(self, event: AuditEvent) -> None:
        if len(self._waiting) >= _WAITING_LIMIT:
            log.error("audit.event_dropped", action=event.action, subject_id=event.subject_id)
            return
        self._waiting.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_soon(), name="audit_trail")

    async def _write_soon(self) -> None:
        # The request that began it has nothing to do with what it writes.
        structlog.contextvars.clear_contextvars()
        while self._waiting:
            await asyncio.sleep(_PAUSE_S)
            await self.write()

    async def write(self) -> None:
        """Writes what is waiting. Where the database does not take it, it goes on waiting."""
        try:
            async with asyncio.timeout(_WRITING_LIMIT_S), self._writing:
                while self._waiting:
                    events = self._waiting[:_AT_ONCE]
                    await audit_repository.ensure_many(events)
                    del self._waiting[: len(events)]
        except (PyMongoError, TimeoutError) as error:
            log.warning("audit.write_failed", waiting=len(self._waiting), error=repr(error))

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
        await self.write()
        if self._waiting:
            log.error("audit.events_lost", events=len(self._waiting))
