"""Incidents: opening them where the bank says what cannot be, and what admins do about them."""

from datetime import UTC, datetime, timedelta

import structlog

from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Incident, IncidentKind, IncidentStatus, Said, incident_id
from service.ledger.committer import Ledger
from service.ledger.incidents import DecideIncident, OpenIncident
from service.repositories import incidents as incident_repository
from service.repositories.incidents import IncidentFilter as IncidentFilter  # noqa: PLC0414 controllers name it, and may not reach below
from service.services.orders import Requester

log = structlog.get_logger()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def open_incident(
    reference: str, said: Said, request_id: str | None, ledger: Ledger, kind: IncidentKind | None = None
) -> str:
    """Its id; where the same was said before, that of then. Raises what Ledger.change raises."""
    incident = await ledger.change(
        OpenIncident(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            incident_id=incident_id(reference, said, kind),
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reference=reference,
            said=said,
            kind=kind,
        ),
        Incident,
    )
    log.error("incident.open", incident_id=incident.id, kind=incident.kind, reference=reference)
    return incident.id


async def decide_incident(
    ledger: Ledger, user: Requester, named: str, status: IncidentStatus, reason: str, request_id: str | None
) -> Incident:
    """Raises NotFound, SecondAdminRequired, IllegalTransition where it was decided already."""
    incident = await ledger.change(
        DecideIncident(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reason=reason,
            incident_id=named,
            status=status,
            **user._asdict(),
        ),
        Incident,
    )
    log.info("incident.decided", incident_id=incident.id, status=status, by=user.user_id)
    return incident


async def list_incidents(wanted: IncidentFilter, *, before: str | None, limit: int) -> list[Incident]:
    """Newest first; `before` is the position of the last one of the page before."""
    position = None
    if before is not None:
        milliseconds, _, named = before.partition(":")
        position = _EPOCH + timedelta(milliseconds=int(milliseconds)), named
    return await incident_repository.find_newest(wanted, before=position, limit=limit)


def position_of(incident: Incident) -> str:
    """Ids are made of what was said, so that the time comes first."""
    return f"{(incident.created_at - _EPOCH) // timedelta(milliseconds=1)}:{incident.id}"
