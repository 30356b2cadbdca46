"""Who is told what: every status of every kind of record has its word, and its side of the story."""

import re
from datetime import UTC, datetime
from typing import get_args

from service.domain.audit_events import AuditEvent
from service.domain.day_sums import DaySum
from service.domain.events import TOLD_OF, EventType, event_id
from service.domain.identifiers import Prefix, first_id_at, made_at
from service.domain.incidents import Incident
from service.domain.operations import TRANSITIONS, OperationStatus, OperationType
from service.domain.quotes import Quote
from service.domain.records import Record
from service.domain.user_limits import UserLimits
from service.domain.vouchers import Voucher, VoucherUse

_AT = datetime(2026, 2, 24, 12, 34, 56, 789000, tzinfo=UTC)
# What no wallet's owner is told of: the house's own, and what leads to another record at once.
_SILENT = {Quote, Voucher, VoucherUse, AuditEvent, Incident, UserLimits, DaySum}


class TestTheWords:
    def test_every_kind_of_record_is_told_of_or_silent_on_purpose(self) -> None:
        assert set(get_args(Record)) == TOLD_OF | _SILENT
        assert not TOLD_OF & _SILENT

    def test_every_status_of_a_deposit_or_a_withdrawal_has_one(self) -> None:
        never = {"deposit.requires_approval", "deposit.canceled", "deposit.blocked"}
        words = {status: "succeeded" if status is OperationStatus.SUCCESS else status.value for status in TRANSITIONS}
        names = {f"{kind}.{word}" for kind in OperationType for word in words.values()} - never
        assert names <= {event_type.value for event_type in EventType}

    def test_they_are_of_the_form_that_consumers_filter_by(self) -> None:
        assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", event_type) for event_type in EventType)


class TestTheId:
    def test_it_is_the_same_for_the_same_number_and_another_for_another(self) -> None:
        assert event_id("wal_1", 7, _AT) == event_id("wal_1", 7, _AT)
        assert len({event_id("wal_1", 7, _AT), event_id("wal_1", 8, _AT), event_id("wal_2", 7, _AT)}) == 3

    def test_it_sorts_by_time_as_other_ids_do(self) -> None:
        made = event_id("wal_1", 7, _AT)
        assert made_at(made) == _AT
        assert first_id_at(Prefix.EVENT, _AT) <= made
