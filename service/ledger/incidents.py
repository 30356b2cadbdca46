"""Incidents: opened in a transaction of the ledger, explained and resolved by people. None of them moves money."""

from dataclasses import dataclass
from datetime import datetime

from service.domain.accounts import SystemAccount
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.incidents import Incident, IncidentKind, IncidentStatus, Said, kind_of, stands_of
from service.domain.operations import Operation
from service.domain.returns import Return, return_id_of
from service.errors import IllegalTransition, NotFound
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Command, Needs, State
from service.ledger.rules import require_anothers, require_requester

_CLOSING = {
    IncidentStatus.EXPLAINED: (AuditAction.INCIDENT_EXPLAINED, frozenset({IncidentStatus.OPEN})),
    IncidentStatus.RESOLVED: (
        AuditAction.INCIDENT_RESOLVED,
        frozenset({IncidentStatus.OPEN, IncidentStatus.EXPLAINED}),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident(Command):
    """The bank said what cannot be. Said once more, it is the same incident: its id is made of what was said.

    `kind` where it is known already; else how the operation stands tells it.
    """

    incident_id: str
    audit_event_id: str
    reference: str
    said: Said
    kind: IncidentKind | None = None

    @property
    def needs(self) -> Needs:
        return Needs(records=(self.incident_id, self.reference, return_id_of(self.reference)))

    def decide(self, state: State) -> Changes:
        known = state.record(self.incident_id, Incident)
        if known is not None:
            return Changes(known)
        operation = state.record(self.reference, Operation)
        returned = state.record(return_id_of(self.reference), Return)
        kind = self.kind or kind_of(self.said, operation, returned)
        incident = new_incident(self.incident_id, kind, self.reference, self.said, operation, self, self.now)
        return Changes(incident, also=(opened_event(incident, self.audit_event_id),))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideIncident(AuditedCommand):
    """An admin says how it came to be, or that it is put right."""

    incident_id: str
    status: IncidentStatus

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), records=(self.incident_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        incident = state.record(self.incident_id, Incident)
        if incident is None:
            raise NotFound(f"There is no incident {self.incident_id}")
        require_anothers(self.user_id, incident.user_id)
        action, before = _CLOSING[self.status]
        if incident.status not in before:
            raise IllegalTransition(
                f"{incident.id} is {incident.status} and cannot become {self.status}", status_now=incident.status
            )
        at = max(self.now, incident.updated_at)
        decided = incident._replace(
            status=self.status, note=self.reason, decided_by=self.user_id, decided_at=at, updated_at=at
        )
        event = self.event(action, incident.id, at, kind=incident.kind, operation_id=incident.operation_id)
        return Changes(decided, also=(event,))


def new_incident(
    incident_id: str,
    kind: IncidentKind,
    reference: str,
    said: Said,
    operation: Operation | None,
    command: Command,
    at: datetime,
) -> Incident:
    return Incident(
        id=incident_id,
        kind=kind,
        status=IncidentStatus.OPEN,
        reference=reference,
        operation_id=None if operation is None else operation.id,
        user_id=None if operation is None else operation.user_id,
        wallet_id=None if operation is None else operation.wallet_id,
        said=said,
        stands=None if operation is None else stands_of(operation),
        note=None,
        decided_by=None,
        decided_at=None,
        request_id=command.request_id,
        created_at=at,
        updated_at=at,
    )


def opened_event(incident: Incident, audit_event_id: str) -> AuditEvent:
    """The bank is who did it."""
    details = {"kind": incident.kind, "operation_id": incident.operation_id, "callback_id": incident.said.callback_id}
    return AuditEvent(
        id=audit_event_id,
        at=incident.created_at,
        actor_id=SystemAccount.BANK,
        action=AuditAction.INCIDENT_OPENED,
        subject_id=incident.id,
        reason=None,
        details=details,
        request_id=incident.request_id,
    )
