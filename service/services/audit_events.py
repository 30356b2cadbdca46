"""What admins and services did, and what befell accounts: making events, and looking at them."""

from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.repositories import audit_events as audit_repository
from service.repositories.audit_events import AuditFilter as AuditFilter  # noqa: PLC0414 controllers name it, and may not reach below


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
