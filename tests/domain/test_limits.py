"""Limits: windows of the calendar, what they count, what they give back, and when they start anew."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.limits import (
    Exceeded,
    LimitName,
    Limits,
    Usage,
    change_zone,
    charge,
    effective_limits,
    find_exceeded,
    give_back,
    limit_states,
    usage_at,
)

_NOON = datetime(2026, 11, 21, 12, 34, 56, 789000, tzinfo=UTC)
_NOTHING = Usage()
_DAY = timedelta(days=1)
_ZONES = st.sampled_from(
    ("UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago",
     "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu")
).map(ZoneInfo)  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class TestWindows:
    def test_name_the_hour_the_day_and_the_month(self) -> None:
        used = charge(_NOTHING, 5, _NOON)
        assert used == Usage("2026-11-21T12", 1, "2026-11-21", 5, "2026-11", 5, day_since=_NOON, month_since=_NOON)

    def test_add_up_what_falls_into_them(self) -> None:
        used = charge(charge(_NOTHING, 5, _NOON), 7, _NOON + timedelta(minutes=25))
        assert (used.hour_count, used.day_amount, used.month_amount) == (2, 12, 12)

    @pytest.mark.parametrize(
        ("later", "counts"),
        [
            ("2026-11-21T12:59:59.999", (1, 5, 5)),
            ("2026-11-21T13:00:00", (0, 5, 5)),
            ("2026-11-21T23:59:59.999", (0, 5, 5)),
            ("2026-11-22T00:00:00", (0, 0, 5)),
            ("2026-11-30T23:59:59.999", (0, 0, 5)),
            ("2026-12-01T00:00:00", (0, 0, 0)),
            # The same hour, day and month of another year are others.
            ("2027-11-21T12:34:56", (0, 0, 0)),
        ],
    )
    def test_end_with_the_calendar(self, later: str, counts: tuple[int, int, int]) -> None:
        used = usage_at(charge(_NOTHING, 5, _NOON), at(later))
        assert (used.hour_count, used.day_amount, used.month_amount) == counts

    @pytest.mark.parametrize(
        ("moment", "ends"),
        [
            ("2026-11-21T12:34:56.789", ("2026-11-21T13:00:00", "2026-11-22T00:00:00", "2026-12-01T00:00:00")),
            ("2026-12-31T23:59:59.999", ("2027-01-01T00:00:00", "2027-01-01T00:00:00", "2027-01-01T00:00:00")),
            ("2026-01-31T00:00:00", ("2026-01-31T01:00:00", "2026-02-01T00:00:00", "2026-02-01T00:00:00")),
            ("2026-02-28T23:00:00", ("2026-03-01T00:00:00", "2026-03-01T00:00:00", "2026-03-01T00:00:00")),
            ("2028-02-28T23:00:00", ("2028-02-29T00:00:00", "2028-02-29T00:00:00", "2028-03-01T00:00:00")),
            ("2028-02-29T12:00:00", ("2028-02-29T13:00:00", "2028-03-01T00:00:00", "2028-03-01T00:00:00")),
        ],
    )
    def test_start_anew_when_the_next_one_begins(self, moment: str, ends: tuple[str, str, str]) -> None:
        states = {state.limit: state.resets_at for state in limit_states(Limits(), _NOTHING, at(moment))}
        assert states == {
            LimitName.PER_TRANSACTION: None,
            LimitName.COUNT_PER_HOUR: at(ends[0]),
            LimitName.PER_DAY: at(ends[1]),
            LimitName.PER_MONTH: at(ends[2]),
        }

    @given(st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 given one by the strategy
    def test_a_window_ends_where_its_name_changes(self, moment: datetime) -> None:
        used = charge(_NOTHING, 1, moment)
        for state in limit_states(Limits(), used, moment):
            if state.resets_at is not None:
                before, after = (
                    {one.limit: one.used for one in limit_states(Limits(), used, then)}[state.limit]
                    for then in (state.resets_at - timedelta(milliseconds=1), state.resets_at)
                )
                assert (before, after) == (1, 0)


def zoned(name: str, moment: str) -> dict[LimitName, datetime | None]:
    return {one.limit: one.resets_at for one in limit_states(Limits(), _NOTHING, at(moment), ZoneInfo(name))}


class TestZones:
    @pytest.mark.parametrize(
        ("zone", "moment", "day_ends", "month_ends"),
        [
            ("Asia/Kolkata", "2026-11-30T18:29:59.999", "2026-11-30T18:30:00", "2026-11-30T18:30:00"),
            ("Asia/Kolkata", "2026-11-30T18:30:00", "2026-12-01T18:30:00", "2026-12-31T18:30:00"),
            # The clocks go on: a day of 23 hours, and a month that ends in summer time.
            ("Europe/Berlin", "2026-03-28T23:00:00", "2026-03-29T22:00:00", "2026-03-31T22:00:00"),
            # And back: 25 hours.
            ("Europe/Berlin", "2026-10-24T22:00:00", "2026-10-25T23:00:00", "2026-10-31T23:00:00"),
            ("America/New_York", "2026-11-01T04:00:00", "2026-11-02T05:00:00", "2026-12-01T05:00:00"),
            # Midnight is left out: the day begins at one o'clock.
            ("America/Santiago", "2026-09-05T12:00:00", "2026-09-06T04:00:00", "2026-10-01T03:00:00"),
        ],
    )
    def test_start_anew_at_their_own_midnight(self, zone: str, moment: str, day_ends: str, month_ends: str) -> None:
        ends = zoned(zone, moment)
        assert (ends[LimitName.PER_DAY], ends[LimitName.PER_MONTH]) == (at(day_ends), at(month_ends))
        assert ends[LimitName.COUNT_PER_HOUR] == at(moment[:13] + ":00:00") + timedelta(hours=1)

    @given(
        st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 given one by the strategy
        _ZONES,
    )
    def test_a_window_ends_at_the_first_moment_of_a_later_date(self, moment: datetime, zone: ZoneInfo) -> None:
        used = charge(_NOTHING, 1, moment, zone)
        for state in limit_states(Limits(), used, moment, zone):
            if state.resets_at is not None:
                before, after = (
                    {one.limit: one.used for one in limit_states(Limits(), used, then, zone)}[state.limit]
                    for then in (state.resets_at - timedelta(milliseconds=1), state.resets_at)
                )
                assert (before, after) == (1, 0)

    @given(st.lists(st.tuples(st.integers(0, 40), _ZONES, st.booleans()), min_size=1, max_size=30))
    def test_however_they_change_no_limit_begins_early_and_what_comes_back_was_counted(
        self, steps: list[tuple[int, ZoneInfo, bool]]
    ) -> None:
        """One after the other, as OverrideLimits lets them: what is counted in another zone is so at another time."""
        used, now, open_ones, passed = _NOTHING, at("2026-10-20T12:00:00"), [], list[datetime]()
        zone = ZoneInfo("UTC")
        for hours, chosen, comes_back in steps:
            now += timedelta(hours=hours, milliseconds=1)
            used, zone = change_zone(used, now, zone, chosen), chosen
            now += timedelta(milliseconds=1)
            if find_exceeded(Limits(per_day=10), used, 10, now, zone) is None:
                passed.append(now)
                used = charge(used, 10, now, zone)
                open_ones.append(now)
            if comes_back and open_ones:
                used = give_back(used, 10, count=1, charged_at=open_ones.pop(0))
            assert (used.hour_count, used.day_total, used.month_total) >= (0, 0, 0)
            assert min(used.day_total, used.month_total) >= 0
            counted = [made for made in open_ones if used.day_since is not None and made >= used.day_since]
            assert used.day_total == 10 * len(counted)
        if not any(comes_back for *_, comes_back in steps):
            # Between two limits in full lies a whole day, in which the clocks go on by an hour at most.
            for one, third in zip(passed, passed[2:], strict=False):
                assert third - one > timedelta(hours=23)

    def test_a_change_makes_the_running_day_and_month_longer(self) -> None:
        new_york, kiritimati = ZoneInfo("America/New_York"), ZoneInfo("Pacific/Kiritimati")
        used = charge(_NOTHING, 10, at("2026-11-30T12:00:00"), new_york)
        changed = change_zone(used, at("2026-11-30T12:00:01"), new_york, kiritimati)
        # The 30th would have ended at 05:00 in UTC, when the first is there until 10:00.
        assert (changed.day, changed.month) == ("2026-12-01", "2026-12")
        states = limit_states(Limits(per_day=10, per_month=10), changed, at("2026-11-30T12:00:02"), kiritimati)
        assert [(one.used, one.resets_at) for one in states[2:]] == [
            (10, at("2026-12-01T10:00:00")),
            (10, at("2026-12-31T10:00:00")),
        ]
        # Changed back within the day it ends as it would have, however often that is done.
        for _ in range(3):
            changed = change_zone(changed, at("2026-11-30T12:00:03"), kiritimati, new_york)
            assert (changed.day, changed.month) == (used.day, used.month)
            changed = change_zone(changed, at("2026-11-30T12:00:04"), new_york, kiritimati)
        assert (changed.day, changed.month) == ("2026-12-01", "2026-12")
        # A window of its own has no end from before.
        later = charge(changed, 3, at("2026-12-31T10:00:00"), kiritimati)
        assert (later.day_total, later.month_total, later.day_until, later.month_until) == (3, 3, None, None)

    def test_a_change_after_the_end_from_before_goes_by_the_end_of_the_longer_day(self) -> None:
        kiritimati, used = ZoneInfo("Pacific/Kiritimati"), charge(_NOTHING, 10, at("2026-11-21T12:00:00"))
        changed = change_zone(used, at("2026-11-21T12:00:01"), UTC, kiritimati)
        assert (changed.day, changed.day_until) == ("2026-11-22", at("2026-11-22T00:00:00"))
        back = change_zone(changed, at("2026-11-22T05:00:00"), kiritimati, UTC)
        assert (back.day, back.day_total, back.day_until) == ("2026-11-22", 10, at("2026-11-22T10:00:00"))

    def test_a_change_to_the_west_leaves_the_date_which_ends_later_there(self) -> None:
        used = charge(_NOTHING, 10, at("2026-11-30T12:00:00"))
        changed = change_zone(used, at("2026-11-30T12:00:01"), UTC, ZoneInfo("Pacific/Pago_Pago"))
        assert changed == used._replace(day_until=at("2026-12-01T00:00:00"), month_until=at("2026-12-01T00:00:00"))

    def test_a_change_after_the_end_of_a_day_begins_a_day_of_nothing(self) -> None:
        """Or the day at the change would be a short one, and a third limit would begin within a few hours."""
        kiritimati, then = ZoneInfo("Pacific/Kiritimati"), at("2026-11-22T00:00:01")
        used = change_zone(charge(_NOTHING, 10, at("2026-11-21T23:59:00")), then, UTC, kiritimati)
        assert (used.day, used.day_total, used.day_since, used.month_total) == ("2026-11-23", 0, then, 10)
        assert give_back(used, 10, count=1, charged_at=at("2026-11-21T23:59:00")).day_total == 0

    def test_a_change_before_anything_was_counted_leaves_the_counters_empty(self) -> None:
        assert change_zone(_NOTHING, _NOON, UTC, ZoneInfo("Pacific/Kiritimati")) == _NOTHING

    def test_of_counters_that_no_change_was_written_to_each_date_has_its_limit_once(self) -> None:
        """The release before did not carry them over."""
        india, new_york = ZoneInfo("Asia/Kolkata"), ZoneInfo("America/New_York")
        used = charge(_NOTHING, 10, at("2026-11-21T19:00:00"), new_york)
        used = charge(used, 7, at("2026-11-21T19:00:01"), india)
        assert (used.day, used.day_total, used.month_total) == ("2026-11-22", 7, 17)
        for moment, zone in (("2026-11-21T19:00:02", new_york), ("2026-11-22T18:00:00", india)):
            assert usage_at(used, at(moment), zone).day_total == 7
        # It was counted in the day before.
        assert give_back(used, 10, count=1, charged_at=at("2026-11-21T19:00:00")).day_total == 7
        assert usage_at(used, at("2026-11-22T18:30:00"), india).day_total == 0

    def test_counters_of_before_there_were_zones_are_read_on(self) -> None:
        old = Usage("2026-11-21T12", 1, "2026-11-21", 5, "2026-11", 9)
        assert charge(old, 1, _NOON, ZoneInfo("Asia/Kolkata")).day_total == 6
        assert give_back(old, 5, count=1, charged_at=_NOON)[:6] == ("2026-11-21T12", 0, "2026-11-21", 0, "2026-11", 4)
        assert give_back(old, 3, count=1, charged_at=_NOON - _DAY).month_total == 6


class TestGivingBack:
    def test_undoes_what_was_charged(self) -> None:
        used = charge(charge(_NOTHING, 5, _NOON), 7, _NOON)
        assert give_back(used, 7, count=1, charged_at=_NOON) == charge(_NOTHING, 5, _NOON)

    def test_of_a_part_gives_no_count_back(self) -> None:
        used = give_back(charge(_NOTHING, 5, _NOON), 2, count=0, charged_at=_NOON)
        assert (used.hour_count, used.day_amount, used.month_amount) == (1, 3, 3)

    @pytest.mark.parametrize(
        ("later", "counts"),
        [
            # In the new hour, day or month something was charged already: the old one's share is not its to give.
            ("2026-11-21T13:00:00", (1, 9, 9)),
            ("2026-11-22T00:00:00", (1, 9, 9)),
            ("2026-12-01T00:00:00", (1, 9, 9)),
        ],
    )
    def test_leaves_a_window_alone_that_has_begun_since(self, later: str, counts: tuple[int, int, int]) -> None:
        moment = at(later)
        used = charge(charge(_NOTHING, 5, _NOON), 9, moment)
        after = give_back(used, 5, count=1, charged_at=_NOON)
        assert (after.hour_count, after.day_amount, after.month_amount) == counts

    @given(
        st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 100 * 3600)), max_size=30),
        st.data(),
    )
    def test_never_makes_a_counter_negative_and_in_the_end_leaves_nothing(
        self, steps: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        used, now, open_ones = _NOTHING, at("2026-10-30T22:00:00"), []
        for amount, pause_s in steps:
            now += timedelta(seconds=pause_s)
            used = charge(used, amount, now)
            open_ones.append((amount, now))
            if data.draw(st.booleans()):
                amount_back, charged_at = open_ones.pop(data.draw(st.integers(0, len(open_ones) - 1)))
                now += timedelta(seconds=data.draw(st.integers(0, 3600)))
                used = give_back(used, amount_back, count=1, charged_at=charged_at)
            assert min(used.hour_count, used.day_amount, used.month_amount) >= 0
        for amount, charged_at in open_ones:
            used = give_back(used, amount, count=1, charged_at=charged_at)
        assert (used.hour_count, used.day_amount, used.month_amount) == (0, 0, 0)


_BIG = st.one_of(st.integers(2**53 - 3, 2**53 - 1), st.integers(1, 1_000))


class TestASumBeyond64Bits:
    def test_is_counted_in_words_of_which_none_overflows(self) -> None:
        used = _NOTHING
        for _ in range(2_049):
            used = charge(used, 2**53 - 1, _NOON)
        assert used.month_total == used.day_total == 2_049 * (2**53 - 1)
        assert max(value for value in used if isinstance(value, int)) < 2**53

    def test_as_an_older_release_wrote_it_is_read_on(self) -> None:
        old = Usage("2026-11-21T12", 1_024, "2026-11-21", 1_024 * (2**53 - 1), "2026-11", 1_024 * (2**53 - 1))
        assert charge(old, 2**53 - 1, _NOON).month_total == 1_025 * (2**53 - 1)

    @given(
        st.integers(0, 3_000),
        st.lists(st.tuples(_BIG, st.booleans()), max_size=25),
        st.integers(1, 2**53 - 1),
        _BIG,
    )
    def test_given_back_leaves_exactly_the_rest_and_lets_no_more_through_than_the_limit(
        self, before: int, steps: list[tuple[int, bool]], ceiling: int, wanted: int
    ) -> None:
        """Against plain integers, which have no bound: whatever was counted and given back before."""
        used, counted, open_ones = _NOTHING, 0, []
        if before:
            counted = before * (2**53 - 1)
            used = charge(used, counted, _NOON)
        for amount, comes_back in steps:
            used, counted = charge(used, amount, _NOON), counted + amount
            open_ones.append(amount)
            if comes_back:
                back = open_ones.pop(0)
                used, counted = give_back(used, back, count=1, charged_at=_NOON), counted - back
            assert (used.day_total, used.month_total) == (counted, counted)
            assert all(0 <= value < 2**53 for value in used if isinstance(value, int))
        exceeded = find_exceeded(Limits(per_month=ceiling), used, wanted, _NOON)
        assert (exceeded is None) == (counted + wanted <= ceiling)
        assert exceeded is None or exceeded.left == max(0, ceiling - counted)


class TestOverrides:
    def test_replace_what_they_name_and_leave_the_rest(self) -> None:
        usual = Limits(per_transaction=10, per_day=20, per_month=30, count_per_hour=4)
        assert effective_limits(usual, None) == usual
        assert effective_limits(usual, Limits(per_day=25, count_per_hour=0)) == Limits(10, 25, 30, 0)

    def test_of_nought_take_a_limit_away(self) -> None:
        usual = Limits(per_day=20)
        assert find_exceeded(effective_limits(usual, Limits(per_day=0)), _NOTHING, 10**12, _NOON) is None


class TestExceeding:
    def test_nothing_is_beyond_no_limit(self) -> None:
        assert find_exceeded(Limits(), charge(_NOTHING, 2**53 - 1, _NOON), 2**53 - 1, _NOON) is None

    @pytest.mark.parametrize(
        ("limits", "last", "exceeded"),
        [
            (Limits(per_transaction=10), 10, Exceeded(LimitName.PER_TRANSACTION, 10, 10, None)),
            (Limits(per_day=10), 4, Exceeded(LimitName.PER_DAY, 10, 4, at("2026-11-22T00:00:00"))),
            (Limits(per_month=10), 4, Exceeded(LimitName.PER_MONTH, 10, 4, at("2026-12-01T00:00:00"))),
        ],
        ids=["per_transaction", "per_day", "per_month"],
    )
    def test_the_last_unit_passes_and_one_more_does_not(self, limits: Limits, last: int, exceeded: Exceeded) -> None:
        used = charge(_NOTHING, 6, _NOON)
        assert find_exceeded(limits, used, last, _NOON) is None
        assert find_exceeded(limits, used, last + 1, _NOON) == exceeded

    def test_the_count_of_an_hour_is_one_of_payments_not_of_money(self) -> None:
        limits = Limits(count_per_hour=2)
        used = charge(_NOTHING, 1_000, _NOON)
        assert find_exceeded(limits, used, 10**9, _NOON) is None
        exceeded = find_exceeded(limits, charge(used, 1, _NOON), 1, _NOON)
        assert exceeded == Exceeded(LimitName.COUNT_PER_HOUR, 2, 0, at("2026-11-21T13:00:00"))
        assert find_exceeded(limits, charge(used, 1, _NOON), 1, at("2026-11-21T13:00:00")) is None

    def test_what_helps_soonest_is_named_first(self) -> None:
        limits = Limits(per_transaction=5, per_day=5, per_month=5, count_per_hour=1)
        used = charge(_NOTHING, 5, _NOON)
        named = []
        for name in LimitName:
            exceeded = find_exceeded(limits, used, 6, _NOON)
            assert exceeded is not None, name
            named.append(exceeded.limit.value)
            limits = limits._replace(**{exceeded.limit.value: 0})
        assert named == ["per_transaction", "count_per_hour", "per_day", "per_month"]
        assert find_exceeded(limits, used, 6, _NOON) is None

    def test_a_limit_lowered_below_what_was_used_has_nothing_left(self) -> None:
        exceeded = find_exceeded(Limits(per_day=3), charge(_NOTHING, 5, _NOON), 1, _NOON)
        assert exceeded is not None
        assert exceeded.left == 0


class TestGivingBackToTheRightWindow:
    def test_counters_that_never_counted_have_nothing_to_give_back(self) -> None:
        at = datetime(2026, 2, 24, 12, tzinfo=UTC)
        assert give_back(Usage(), 5, count=1, charged_at=at) == Usage()

    def test_a_month_that_began_later_has_not_counted_it(self) -> None:
        """After a change of the zone a counter may begin within its month."""
        since = datetime(2026, 2, 24, 12, tzinfo=UTC)
        usage = Usage("", 0, "2026-02-24", 7, "2026-02", 9, day_since=since, month_since=since)
        before, after = since - timedelta(seconds=1), since
        assert give_back(usage, 5, count=0, charged_at=before) == usage
        assert give_back(usage, 5, count=0, charged_at=after) == usage._replace(day_amount=2, month_amount=4)


@pytest.mark.usefixtures("in_kolkata")
def test_windows_end_in_utc_wherever_the_machine_is() -> None:
    states = limit_states(
        Limits(1, 1, 1, 1), Usage(), datetime(2026, 2, 24, 12, 30, tzinfo=UTC), ZoneInfo("Asia/Tokyo")
    )
    ends = [None if state.resets_at is None else state.resets_at.isoformat() for state in states]
    assert ends == [None, "2026-02-24T13:00:00+00:00", "2026-02-24T15:00:00+00:00", "2026-02-28T15:00:00+00:00"]
