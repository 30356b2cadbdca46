"""What is wrong with the bank's words, and what people say of it: rules of incidents, in memory."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.incidents import (
    Incident,
    IncidentKind,
    IncidentStatus,
    Said,
    SaidEvent,
    Stands,
    incident_id,
    kind_of,
    stands_of,
)
from service.domain.operations import Operation, OperationStatus
from service.domain.returns import Return
from service.errors import IllegalTransition, NotFound
from service.ledger.commands import Command
from service.ledger.incidents import DecideIncident, OpenIncident
from tests.books import Books
from tests.records import at, build_incident, build_operation, build_return, build_said, build_wallet

_SETTLED, _RETURNED = SaidEvent.SETTLED, SaidEvent.RETURNED


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("said", "operation", "known", "kind"),
        [
            ({}, None, None, "unknown_reference"),
            ({}, {"attempts": 0}, None, "never_submitted"),
            ({"event": _RETURNED}, {"attempts": 0}, None, "never_submitted"),
            ({"event": _RETURNED}, {"status": OperationStatus.PROCESSING}, None, "return_of_unsettled"),
            ({"event": _RETURNED}, {"status": OperationStatus.FAILED}, build_return(), "return_of_unsettled"),
            ({"event": _RETURNED}, {}, None, "return_of_other_amount"),
            ({"event": _RETURNED}, {}, build_return(), "second_return"),
            ({}, {}, build_return(), "settled_after_return"),
            ({"status": "failed"}, {}, build_return(), "failure_after_success"),
            ({"status": "failed"}, {}, None, "failure_after_success"),
            ({"status": "failed", "amount": 1}, {}, None, "failure_after_success"),
            ({}, {"status": OperationStatus.FAILED}, None, "success_after_failure"),
            ({}, {"status": OperationStatus.CANCELED}, None, "success_after_failure"),
            ({"amount": 501}, {"status": OperationStatus.FAILED}, None, "success_after_failure"),
            ({"amount": 501}, {}, None, "other_amount"),
            ({"currency": "USD"}, {}, None, "other_amount"),
            ({"amount": 501}, {"status": OperationStatus.PROCESSING}, None, "other_amount"),
            ({"bank_reference": "bnk_2"}, {}, None, "other_bank_reference"),
            ({"status": "failed", "bank_reference": "bnk_2"}, {"status": OperationStatus.FAILED}, None, None),
        ],
    )
    def test_is_told_by_how_the_operation_stands(
        self, said: dict[str, Any], operation: dict[str, Any] | None, known: Return | None, kind: str | None
    ) -> None:
        found = kind_of(build_said(**said), None if operation is None else build_operation(**operation), known)
        assert found == (kind or "other_bank_reference")


class TestTheId:
    def test_other_words_are_another_incident(self) -> None:
        others: list[dict[str, Any]] = [
            {},
            {"event": _RETURNED},
            {"status": "failed"},
            {"amount": 1},
            {"currency": "USD"},
            {"bank_reference": None},
        ]
        ids = [incident_id("dep_1", build_said(**one)) for one in others]
        assert len({*ids, incident_id("dep_2", build_said())}) == len(ids) + 1

    def test_is_of_the_form_of_all_ids_and_the_same_in_every_process(self) -> None:
        # Stored incidents are found again by it.
        assert incident_id("dep_1", build_said()) == "inc_37cbe70b3b3ba9043174868b28ed202f"
        assert (
            incident_id("dep_1", build_said(), IncidentKind.RETURN_NOT_BOOKED) == "inc_025468de5fc522b7b5df5917d665cf90"
        )

    @pytest.mark.parametrize("kind", [None, IncidentKind.OTHER_AMOUNT])
    def test_the_message_it_came_in_makes_no_difference(self, kind: IncidentKind | None) -> None:
        others = ({"callback_id": "cb_2"}, {"code": None}, {"message": None})
        assert {incident_id("dep_1", build_said(**one), kind) for one in others} == {incident_id("dep_1", build_said())}

    @pytest.mark.parametrize(
        ("kind", "telling"),
        [
            (IncidentKind.MESSAGE_ID_REUSED, {"callback_id"}),
            (IncidentKind.RETURN_NOT_BOOKED, set()),
            (IncidentKind.ANSWER_ABOUT_ANOTHER_ORDER, {"code", "message"}),
        ],
    )
    def test_of_some_kinds_more_counts(self, kind: IncidentKind, telling: set[str]) -> None:
        usual, this = incident_id("dep_1", build_said()), incident_id("dep_1", build_said(), kind)
        assert usual != this
        for field in ("callback_id", "code", "message"):
            other = incident_id("dep_1", build_said(**{field: "other"}), kind)
            assert (other != this) == (field in telling)
        assert incident_id("dep_2", build_said(), kind) != this
        assert incident_id("dep_1", build_said(amount=1), kind) != this

    def test_kinds_whose_words_are_alike_are_still_other_incidents(self) -> None:
        said = build_said(callback_id=None, code=None, message=None)
        kinds = (None, IncidentKind.RETURN_NOT_BOOKED, IncidentKind.ANSWER_ABOUT_ANOTHER_ORDER)
        for one, other in combinations(kinds, 2):
            assert incident_id("dep_1", said, one) != incident_id("dep_1", said, other)


def test_what_stood_here_is_kept_with_it() -> None:
    operation = build_operation(return_id="rtn_1")
    assert stands_of(operation) == Stands("success", 500, "INR", "bnk_1", "rtn_1")


def _opening(**overrides: Any) -> OpenIncident:
    fields: dict[str, Any] = {
        "now": at(20),
        "transaction_id": "txn_9",
        "request_id": "req_9",
        "incident_id": "inc_1",
        "audit_event_id": "aud_1",
        "reference": "dep_1",
        "said": build_said(amount=501),
    }
    return OpenIncident(**(fields | overrides))


def _books(*records: Operation | Return | Incident) -> Books:
    return Books(
        {"usr_admin": 3, "usr_asha": 0},
        {"wal_asha": build_wallet()},
        records={record.id: record for record in records},
    )


class TestOpening:
    def test_keeps_the_words_and_how_the_operation_stands(self) -> None:
        books = _books(build_operation())
        (decided,) = books.run([_opening()])
        expected = Incident(
            id="inc_1",
            kind=IncidentKind.OTHER_AMOUNT,
            status=IncidentStatus.OPEN,
            reference="dep_1",
            operation_id="dep_1",
            user_id="usr_asha",
            wallet_id="wal_asha",
            said=build_said(amount=501),
            stands=stands_of(build_operation()),
            note=None,
            decided_by=None,
            decided_at=None,
            request_id="req_9",
            created_at=at(20),
            updated_at=at(20),
        )
        assert decided.record == books.records["inc_1"] == expected
        details = {"kind": "other_amount", "operation_id": "dep_1", "callback_id": "cb_1"}
        assert books.records["aud_1"] == AuditEvent(
            "aud_1", at(20), "bank", AuditAction.INCIDENT_OPENED, "inc_1", None, details, "req_9"
        )

    def test_of_what_nobody_knows_keeps_the_words_alone(self) -> None:
        books = _books()
        (decided,) = books.run([_opening(reference="dep_0")])
        assert isinstance(decided.record, Incident)
        found = decided.record
        assert found.kind is IncidentKind.UNKNOWN_REFERENCE
        assert (found.reference, found.operation_id, found.user_id, found.wallet_id, found.stands) == (
            "dep_0",
            None,
            None,
            None,
            None,
        )

    def test_looks_at_the_operations_return(self) -> None:
        books = _books(build_operation(), build_return())
        (decided,) = books.run([_opening(said=build_said())])
        assert isinstance(decided.record, Incident)
        assert decided.record.kind is IncidentKind.SETTLED_AFTER_RETURN

    def test_takes_the_kind_that_it_is_told(self) -> None:
        books = _books(build_operation())
        (decided,) = books.run([_opening(kind=IncidentKind.MESSAGE_ID_REUSED)])
        assert isinstance(decided.record, Incident)
        assert decided.record.kind is IncidentKind.MESSAGE_ID_REUSED

    def test_said_again_it_is_the_same_and_nobody_is_told_twice(self) -> None:
        books = _books(build_operation())
        first = _opening()
        books.run([first])
        known = books.records["inc_1"]
        (again,) = books.run([replace(first, audit_event_id="aud_2", now=at(21))])
        assert again.record == known
        assert not again.refused
        assert "aud_2" not in books.records


def _decision(status: IncidentStatus, **overrides: Any) -> DecideIncident:
    fields: dict[str, Any] = {
        "now": at(40),
        "transaction_id": "txn_9",
        "request_id": "req_9",
        "user_id": "usr_admin",
        "token_version": 3,
        "audit_event_id": "aud_1",
        "reason": "The bank corrected it",
        "incident_id": "inc_1",
        "status": status,
    }
    return DecideIncident(**(fields | overrides))


class TestDeciding:
    @pytest.mark.parametrize(
        ("before", "status", "action"),
        [
            (IncidentStatus.OPEN, IncidentStatus.EXPLAINED, AuditAction.INCIDENT_EXPLAINED),
            (IncidentStatus.OPEN, IncidentStatus.RESOLVED, AuditAction.INCIDENT_RESOLVED),
            (IncidentStatus.EXPLAINED, IncidentStatus.RESOLVED, AuditAction.INCIDENT_RESOLVED),
        ],
    )
    @pytest.mark.parametrize(("minute", "written"), [(40, 40), (5, 31)])
    def test_is_noted_with_its_reason_and_who_said_it(
        self, before: IncidentStatus, status: IncidentStatus, action: AuditAction, minute: int, written: int
    ) -> None:
        known = build_incident(status=before, note=None, decided_by=None, decided_at=None)
        books = _books(known)
        (decided,) = books.run([_decision(status, now=at(minute))])
        assert decided.record == known._replace(
            status=status,
            note="The bank corrected it",
            decided_by="usr_admin",
            decided_at=at(written),
            updated_at=at(written),
        )
        assert books.records["aud_1"] == AuditEvent(
            "aud_1",
            at(written),
            "usr_admin",
            action,
            "inc_1",
            "The bank corrected it",
            {"kind": "other_amount", "operation_id": "dep_1"},
            "req_9",
        )

    @pytest.mark.parametrize(
        ("before", "status"),
        [
            (IncidentStatus.EXPLAINED, IncidentStatus.EXPLAINED),
            (IncidentStatus.RESOLVED, IncidentStatus.EXPLAINED),
            (IncidentStatus.RESOLVED, IncidentStatus.RESOLVED),
        ],
    )
    def test_goes_forward_only(self, before: IncidentStatus, status: IncidentStatus) -> None:
        error = self._refusal(_decision(status), build_incident(status=before))
        assert isinstance(error, IllegalTransition)
        assert error.message == f"inc_1 is {before} and cannot become {status}"
        assert error.facts == {"status_now": before}

    def test_nobody_decides_about_their_own_money(self) -> None:
        incident = build_incident(status=IncidentStatus.OPEN, user_id="usr_admin")
        assert self._refusal(_decision(IncidentStatus.RESOLVED), incident).code == "second_admin_required"

    def test_somebody_who_may_act_no_more_decides_nothing(self) -> None:
        incident = build_incident(status=IncidentStatus.OPEN)
        gone = self._refusal(_decision(IncidentStatus.RESOLVED, user_id="usr_gone"), incident)
        assert gone.code == "account_deactivated"
        ended = self._refusal(_decision(IncidentStatus.RESOLVED, token_version=2), incident)
        assert (ended.code, ended.message) == ("unauthenticated", "The access token is no longer valid")

    def test_one_that_is_not_there_is_not_found(self) -> None:
        error = self._refusal(_decision(IncidentStatus.RESOLVED))
        assert isinstance(error, NotFound)
        assert error.message == "There is no incident inc_1"

    def _refusal(self, command: Command, *incidents: Incident) -> Any:
        books = _books(*incidents)
        before = dict(books.records)
        (decided,) = books.run([command])
        assert decided.refused
        assert books.records == before
        return decided.error


def test_every_word_of_the_bank_is_kept() -> None:
    """One that is added has to be thought of in the id of the incident."""
    assert set(Said._fields) == {
        "event", "status", "amount", "currency", "bank_reference", "code", "message", "callback_id",
    }  # fmt: skip
