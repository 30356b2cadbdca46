"""Rails: by when an order is to be done, over week-ends and holidays, and when it is asked about."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.operations import OperationType
from service.domain.rails import Rail, expected_by, pause_until_asked_s, rail_of

_INSTANT = timedelta(minutes=1)
# A Thursday and a Friday of which nothing is carried out.
_HOLIDAYS = frozenset({date(2026, 12, 24), date(2026, 12, 25)})
_MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 hypothesis adds the zone


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 12, day, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rail", "submitted_at", "expected"),
    [
        (Rail.INSTANT, at(1), at(1) + _INSTANT),
        (Rail.SAME_DAY, at(1), at(2, 0)),
        # A Saturday, and a holiday before a week-end.
        (Rail.SAME_DAY, at(5), at(8, 0)),
        (Rail.SAME_DAY, at(24), at(29, 0)),
        # From a Tuesday to a Friday, from a Friday to a Wednesday, from a Sunday to a Wednesday.
        (Rail.THREE_BANKING_DAYS, at(1), at(5, 0)),
        (Rail.THREE_BANKING_DAYS, at(4), at(10, 0)),
        (Rail.THREE_BANKING_DAYS, at(6), at(10, 0)),
        (Rail.THREE_BANKING_DAYS, at(23), at(31, 0)),
    ],
)
def test_is_expected_by(rail: Rail, submitted_at: datetime, expected: datetime) -> None:
    assert expected_by(rail, submitted_at, _HOLIDAYS, _INSTANT) == expected


@given(rail=st.sampled_from(Rail), submitted_at=_MOMENTS)
def test_is_never_in_the_past_and_slower_rails_are_never_faster(rail: Rail, submitted_at: datetime) -> None:
    due = expected_by(rail, submitted_at, _HOLIDAYS, _INSTANT)
    assert submitted_at < due <= submitted_at + timedelta(days=9)
    if rail is Rail.SAME_DAY:
        assert due < expected_by(Rail.THREE_BANKING_DAYS, submitted_at, _HOLIDAYS, _INSTANT)


def test_the_most_special_name_tells_the_rail() -> None:
    rails = {"INR:withdrawal": "three_banking_days", "INR": "same_day", "deposit": "instant"}
    told = [
        rail_of(rails, "same_day", kind, currency)
        for kind, currency in (
            (OperationType.WITHDRAWAL, "INR"),
            (OperationType.DEPOSIT, "INR"),
            (OperationType.DEPOSIT, "EUR"),
            (OperationType.WITHDRAWAL, "EUR"),
        )
    ]
    assert told == [Rail.THREE_BANKING_DAYS, Rail.SAME_DAY, Rail.INSTANT, Rail.SAME_DAY]


@given(made_at=_MOMENTS, waited_s=st.floats(0, 10**6), left_s=st.floats(1, 10**6), recheck_s=st.floats(1, 600))
def test_is_asked_about_in_time(made_at: datetime, waited_s: float, left_s: float, recheck_s: float) -> None:
    """At least so often as hourly, and soon after it was expected."""
    now = made_at + timedelta(seconds=waited_s)
    pause_s = pause_until_asked_s(made_at, now, now + timedelta(seconds=left_s), recheck_s)
    assert recheck_s <= pause_s <= 3600
    assert pause_s <= max(recheck_s, left_s + 1)
