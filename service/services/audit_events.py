"""Looking at what admins and services did."""

from service.domain.audit_events import AuditEvent
from service.repositories import audit_events as audit_repository
from service.repositories.audit_events import AuditFilter as AuditFilter  # noqa: PLC0414 controllers name it, and may not reach below


async def list_audit_events(wanted: AuditFilter, *, before_id: str | None, limit: int) -> list[AuditEvent]:
    """Newest first."""
    return await audit_repository.find_newest(wanted, before_id=before_id, limit=limit)
