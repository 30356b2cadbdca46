"""Commands that leave an audit event, in the transaction of what they do."""

from dataclasses import dataclass
from datetime import datetime

from service.domain.audit_events import AuditAction, AuditEvent
from service.errors import WalletServiceError
from service.ledger.commands import PersonalCommand


class Unchanged(WalletServiceError):
    """It is so already: nothing to do and nothing to account for. Services take it for success; no client sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedCommand(PersonalCommand):
    """Somebody does what has to be accounted for."""

    audit_event_id: str
    reason: str | None

    def event(
        self, action: AuditAction, subject_id: str, at: datetime, **details: str | int | bool | None
    ) -> AuditEvent:
        return AuditEvent(
            id=self.audit_event_id,
            at=at,
            actor_id=self.user_id,
            action=action,
            subject_id=subject_id,
            reason=self.reason,
            details=details,
            request_id=self.request_id,
        )
