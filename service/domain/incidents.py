"""Incidents: what the bank said that cannot be, given how things stand here. Money is moved by none of them."""

from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from service.domain.clock import to_rfc3339
from service.domain.identifiers import Prefix
from service.domain.operations import Operation, OperationStatus
from service.domain.returns import Return

_ID_DIGITS = 32


class IncidentKind(StrEnum):
    SUCCESS_AFTER_FAILURE = "success_after_failure"
    FAILURE_AFTER_SUCCESS = "failure_after_success"
    OTHER_AMOUNT = "other_amount"
    OTHER_BANK_REFERENCE = "other_bank_reference"
    UNKNOWN_REFERENCE = "unknown_reference"
    # It speaks of an order that it never got from us.
    NEVER_SUBMITTED = "never_submitted"
    RETURN_OF_UNSETTLED = "return_of_unsettled"
    RETURN_OF_OTHER_AMOUNT = "return_of_other_amount"
    SECOND_RETURN = "second_return"
    # Money that had come back is there again, as when a dispute was won: it is credited by people.
    SETTLED_AFTER_RETURN = "settled_after_return"
    # A return as it should be, which the wallet could not cover or take.
    RETURN_NOT_BOOKED = "return_not_booked"
    # Two different bodies under one webhook-id.
    MESSAGE_ID_REUSED = "message_id_reused"
    # Asked about one order, the bank spoke of another.
    ANSWER_ABOUT_ANOTHER_ORDER = "answer_about_another_order"


class IncidentStatus(StrEnum):
    OPEN = "open"
    # It is known how it came to be; what has to be done about it is not done.
    EXPLAINED = "explained"
    RESOLVED = "resolved"


class SaidEvent(StrEnum):
    """What the bank speaks of, in a callback or in an answer."""

    SETTLED = "payment.settled"
    RETURNED = "payment.returned"


class Said(NamedTuple):
    """The bank's words. `amount` and `currency` are None where it refused an order without speaking of them.

    `callback_id` is the webhook-id; None where it was an answer.
    """

    event: SaidEvent
    status: str | None
    amount: int | None
    currency: str | None
    bank_reference: str | None
    code: str | None = None
    message: str | None = None
    callback_id: str | None = None


class Stands(NamedTuple):
    """What stood here when it was said."""

    status: str
    amount: int
    currency: str
    bank_reference: str | None
    return_id: str | None


class Incident(NamedTuple):
    """`operation_id` and those that follow are None where the bank's reference is nobody's.

    `note` is the reason of who explained or resolved it last.
    """

    id: str
    kind: IncidentKind
    status: IncidentStatus
    reference: str
    operation_id: str | None
    user_id: str | None
    wallet_id: str | None
    said: Said
    stands: Stands | None
    note: str | None
    decided_by: str | None
    decided_at: datetime | None
    request_id: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 0


def incident_id(reference: str, said: Said, kind: IncidentKind | None = None) -> str:
    """The same words about the same reference are one incident, however often and under which id they come.

    Where the id itself is what is wrong, it counts. That a return could not be booked is another incident than the
    contradiction that the same words were before.
    """
    words = [reference, said.event, said.status, said.amount, said.currency, said.bank_reference]
    match kind:
        case IncidentKind.MESSAGE_ID_REUSED:
            words.append(said.callback_id)
        case IncidentKind.RETURN_NOT_BOOKED:
            words.append(kind)
        case IncidentKind.ANSWER_ABOUT_ANOTHER_ORDER:
            words += (kind, said.code, said.message)
        case _:
            pass
    return f"{Prefix.INCIDENT}_{sha256(orjson.dumps(words)).hexdigest()[:_ID_DIGITS]}"


def kind_of(said: Said, operation: Operation | None, known: Return | None) -> IncidentKind:
    """Says what is wrong with it. `known` is the operation's return, where it has one."""
    if operation is None:
        return IncidentKind.UNKNOWN_REFERENCE
    if was_never_submitted(operation):
        return IncidentKind.NEVER_SUBMITTED
    if said.event is SaidEvent.RETURNED:
        return _kind_of_return(operation, known)
    if known is not None and said.status == OperationStatus.SUCCESS:
        return IncidentKind.SETTLED_AFTER_RETURN
    return _kind_of_end(said, operation)


def _kind_of_return(operation: Operation, known: Return | None) -> IncidentKind:
    if operation.status is not OperationStatus.SUCCESS:
        return IncidentKind.RETURN_OF_UNSETTLED
    return IncidentKind.RETURN_OF_OTHER_AMOUNT if known is None else IncidentKind.SECOND_RETURN


def _kind_of_end(said: Said, operation: Operation) -> IncidentKind:
    is_ours = (said.amount, said.currency) == (operation.amount, operation.currency)
    if operation.status is OperationStatus.SUCCESS and said.status != OperationStatus.SUCCESS:
        return IncidentKind.FAILURE_AFTER_SUCCESS
    if operation.status in (OperationStatus.FAILED, OperationStatus.CANCELED) and said.status != OperationStatus.FAILED:
        return IncidentKind.SUCCESS_AFTER_FAILURE
    return IncidentKind.OTHER_BANK_REFERENCE if is_ours or said.amount is None else IncidentKind.OTHER_AMOUNT


def was_never_submitted(operation: Operation) -> bool:
    """An attempt is noted before each call, so without one the bank can know nothing of it."""
    return operation.attempts == 0


def stands_of(operation: Operation) -> Stands:
    return Stands(operation.status, operation.amount, operation.currency, operation.bank_reference, operation.return_id)


def incident_view(incident: Incident) -> dict[str, Any]:
    """Returns the incident as admins see it."""
    return {
        "id": incident.id,
        "kind": incident.kind,
        "status": incident.status,
        "reference": incident.reference,
        "operation_id": incident.operation_id,
        "user_id": incident.user_id,
        "wallet_id": incident.wallet_id,
        "said": incident.said._asdict(),
        "stands": None if incident.stands is None else incident.stands._asdict(),
        "note": incident.note,
        "decided_by": incident.decided_by,
        "decided_at": None if incident.decided_at is None else to_rfc3339(incident.decided_at),
        "request_id": incident.request_id,
        "created_at": to_rfc3339(incident.created_at),
        "updated_at": to_rfc3339(incident.updated_at),
    }
