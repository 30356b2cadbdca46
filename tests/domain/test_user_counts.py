"""What a payment counts for over all wallets of its sender, and the counters after it: example by example."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.domain.holds import Hold, HoldStatus, Taking
from service.domain.limits import Limits, Usage
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.operations import Operation, OperationStatus, OperationType
from service.domain.quotes import Rate
from service.domain.time_zones import ZoneSource
from service.domain.transfers import Transfer
from service.domain.user_counts import Sent, Share, apply_charge, limit_charge_of, share_of
from service.domain.user_limits import (
    LimitCharge,
    OtherUsage,
    ReferenceLimits,
    UserLimits,
    latest_time,
    limits_in_force,
    new_user_limits,
    no_rate,
    reference_zone,
    reference_zone_name,
    reference_zone_source,
    usage_in,
    worth,
)
from service.domain.wallets import new_wallet
from tests.records import build_hold, build_operation, build_transfer, build_voucher

# Two in the morning in UTC: in New York it is still the day before, and in Kolkata half past seven.
_NOW = datetime(2026, 11, 1, 2, 30, tzinfo=UTC)
_RATE = Rate(1, 80, "test", _NOW)
_COUNTED = LimitCharge(100, "USD", _RATE, _NOW)
_DOLLARS = Usage("2026-11-01T02", 3, "2026-10-31", 500, "2026-10", 700, 0, 0, _NOW, _NOW)


def withdrawal(**fields: Any) -> Operation:
    defaults: dict[str, Any] = {"id": "wdr_1", "type": OperationType.WITHDRAWAL, "status": OperationStatus.PENDING}
    return build_operation(**defaults | {"counted": _COUNTED} | fields)


def transfer(**fields: Any) -> Transfer:
    return build_transfer(**{"counted": _COUNTED} | fields)


def hold(**fields: Any) -> Hold:
    defaults: dict[str, Any] = {"status": HoldStatus.HELD, "captured_amount": 0, "takings": (), "counted": _COUNTED}
    return build_hold(**defaults | fields)


def counters(**fields: Any) -> UserLimits:
    defaults: dict[str, Any] = {"usage": _DOLLARS, "usage_currency": "USD"}
    return new_user_limits("usr_asha", _NOW)._replace(**defaults | fields)


class TestTheShare:
    @pytest.mark.parametrize(
        ("sent", "amount", "operations"),
        [
            (withdrawal(), 100, 1),
            (withdrawal(status=OperationStatus.SUCCESS), 100, 1),
            (withdrawal(status=OperationStatus.FAILED), 0, 0),
            (withdrawal(status=OperationStatus.CANCELED), 0, 0),
            (withdrawal(status=OperationStatus.SUCCESS, return_id="rtn_1"), 0, 0),
            (withdrawal(counted=None), 0, 0),
            (transfer(), 100, 1),
            (transfer(status=OperationStatus.CANCELED), 0, 0),
            (transfer(reversal_id="rev_1"), 0, 0),
            (transfer(counted=None), 0, 0),
            (hold(), 100, 1),
            (hold(takings=(Taking("rtn_1", 150),)), 50, 1),
            # Of 300 that count for 100 one counts for a third of one: rounded up.
            (hold(takings=(Taking("rtn_1", 299),)), 1, 1),
            (hold(status=HoldStatus.CAPTURED, captured_amount=300), 100, 1),
            (hold(status=HoldStatus.CAPTURED, captured_amount=151), 51, 1),
            (hold(status=HoldStatus.RELEASED), 0, 0),
            (None, 0, 0),
        ],
    )
    def test_is_in_proportion_to_what_is_left(self, sent: Sent | None, amount: int, operations: int) -> None:
        assert share_of(sent) == Share(amount, operations)

    def test_is_only_that_of_payments(self) -> None:
        assert [limit_charge_of(one) for one in (withdrawal(), transfer(), hold())] == [_COUNTED] * 3
        assert limit_charge_of(withdrawal(counted=None)) is None
        assert limit_charge_of(build_voucher()) is None


class TestANewPayment:
    def test_begins_counters_in_its_currency(self) -> None:
        after = apply_charge(None, withdrawal(), None)
        # The days of dollars are New York's.
        usage = Usage("2026-11-01T02", 1, "2026-10-31", 100, "2026-10", 100, 0, 0, _NOW, _NOW)
        assert after == UserLimits(
            "ulm_asha", "usr_asha", None, _NOW, _NOW, usage=usage, usage_currency="USD", usage_since=_NOW
        )

    def test_is_added_at_its_time_in_the_zone_of_the_user(self) -> None:
        at = _NOW + timedelta(minutes=5)
        known = counters(time_zone="Asia/Kolkata", limits=Limits(per_day=9), limits_currency="USD")
        after = apply_charge(None, withdrawal(counted=_COUNTED._replace(at=at)), known)
        usage = Usage("2026-11-01T02", 4, "2026-11-01", 100, "2026-11", 100, 0, 0, at, at)
        assert after == known._replace(usage=usage, updated_at=at)

    def test_is_added_to_what_was_counted_on_the_same_day(self) -> None:
        after = apply_charge(None, hold(takings=(Taking("rtn_1", 150),)), counters())
        usage = _DOLLARS._replace(hour_count=4, day_amount=550, month_amount=750)
        assert after == counters(usage=usage)

    def test_of_another_currency_sets_the_counters_aside(self) -> None:
        at = _NOW + timedelta(minutes=5)
        counted = LimitCharge(7, "INR", _RATE, at)
        known = counters(usage_since=_NOW)
        after = apply_charge(None, withdrawal(counted=counted), known)
        assert after == known._replace(
            usage=Usage("2026-11-01T02", 1, "2026-11-01", 7, "2026-11", 7, 0, 0, at, at),
            usage_currency="INR",
            usage_since=at,
            other_usage=OtherUsage("USD", _DOLLARS, _NOW),
            updated_at=at,
        )

    def test_of_the_currency_set_aside_goes_on_with_those_counters(self) -> None:
        rupees = Usage("2026-11-01T02", 1, "2026-11-01", 7, "2026-11", 7, 0, 0, _NOW, _NOW)
        since = _NOW - timedelta(days=1)
        known = counters(usage=rupees, usage_currency="INR", other_usage=OtherUsage("USD", _DOLLARS, since))
        after = apply_charge(None, withdrawal(), known)
        assert after == known._replace(
            usage=_DOLLARS._replace(hour_count=4, day_amount=600, month_amount=800),
            usage_currency="USD",
            usage_since=since,
            other_usage=OtherUsage("INR", rupees, None),
        )

    def test_of_a_third_currency_forgets_the_eldest(self) -> None:
        known = counters(other_usage=OtherUsage("EUR", _DOLLARS, _NOW))
        after = apply_charge(None, withdrawal(counted=LimitCharge(7, "INR", _RATE, _NOW)), known)
        assert after is not None
        assert (after.usage_currency, after.usage.day_total, after.usage_since) == ("INR", 7, _NOW)
        assert after.other_usage == OtherUsage("USD", _DOLLARS, None)

    def test_is_no_earlier_than_the_last(self) -> None:
        known = counters(updated_at=_NOW + timedelta(microseconds=1))
        with pytest.raises(AssertionError, match=r"^ulm_asha "):
            apply_charge(None, withdrawal(), known)

    @pytest.mark.parametrize("after", [withdrawal(counted=None), withdrawal(status=OperationStatus.FAILED)])
    def test_that_does_not_count_changes_nothing(self, after: Sent) -> None:
        assert apply_charge(None, after, counters()) is None


class TestAPaymentThatComesToNothing:
    _FAILED = withdrawal(status=OperationStatus.FAILED)

    def test_gives_back_all_of_it(self) -> None:
        usage = _DOLLARS._replace(hour_count=2, day_amount=400, month_amount=600)
        assert apply_charge(withdrawal(), self._FAILED, counters()) == counters(usage=usage)

    def test_in_part_gives_back_the_rest_and_stays_one_payment(self) -> None:
        captured = hold(status=HoldStatus.CAPTURED, captured_amount=180)
        usage = _DOLLARS._replace(day_amount=460, month_amount=660)
        assert apply_charge(hold(), captured, counters()) == counters(usage=usage)

    def test_gives_back_to_the_counters_of_its_currency_wherever_they_are(self) -> None:
        rupees = Usage("2026-11-01T02", 1, "2026-11-01", 7, "2026-11", 7)
        other = OtherUsage("USD", _DOLLARS, _NOW)
        known = counters(usage=rupees, usage_currency="INR", other_usage=other)
        usage = _DOLLARS._replace(hour_count=2, day_amount=400, month_amount=600)
        assert apply_charge(withdrawal(), self._FAILED, known) == known._replace(
            other_usage=other._replace(usage=usage)
        )

    @pytest.mark.parametrize("other", [None, OtherUsage("EUR", _DOLLARS, None)])
    def test_gives_nothing_back_where_nobody_counts_in_its_currency(self, other: OtherUsage | None) -> None:
        known = counters(usage_currency="INR", other_usage=other)
        assert apply_charge(withdrawal(), self._FAILED, known) is None
        assert apply_charge(withdrawal(), self._FAILED, None) is None

    def test_gives_nothing_back_to_counters_that_began_after_it(self) -> None:
        later = _NOW + timedelta(microseconds=1)
        known = counters(usage_since=later)
        assert apply_charge(withdrawal(), self._FAILED, known) == known
        aside = counters(usage_currency="INR", other_usage=OtherUsage("USD", _DOLLARS, later))
        assert apply_charge(withdrawal(), self._FAILED, aside) == aside
        begun_with_it = counters(usage_since=_NOW)
        assert apply_charge(withdrawal(), self._FAILED, begun_with_it) != begun_with_it

    def test_is_not_counted_by_what_does_not_count(self) -> None:
        assert apply_charge(withdrawal(), withdrawal(status=OperationStatus.SUCCESS), counters()) is None
        uncounted = withdrawal(counted=None)
        assert apply_charge(uncounted, uncounted._replace(status=OperationStatus.FAILED), counters()) is None


class TestWorth:
    @pytest.mark.parametrize(
        ("amount", "currency", "reference", "rate", "expected"),
        [
            (8_000, "INR", "USD", (1, 80), 100),
            (8_001, "INR", "USD", (1, 80), 101),
            (100, "USD", "INR", (80, 1), 8_000),
            # Yen have no minor unit, dinars of Kuwait three digits.
            (5, "JPY", "USD", (1, 150), 4),
            (5, "USD", "JPY", (150, 1), 8),
            (1_000, "KWD", "USD", (3, 1), 300),
            (0, "USD", "USD", (1, 1), 1),
            (100, "INR", "USD", (0, 1), 1),
            (MAX_AMOUNT_MINOR, "USD", "USD", (1, 1), MAX_AMOUNT_MINOR),
            (MAX_AMOUNT_MINOR, "USD", "USD", (2, 1), MAX_AMOUNT_MINOR),
        ],
    )
    def test_is_rounded_up_and_bounded(
        self, amount: int, currency: str, reference: str, rate: tuple[int, int], expected: int
    ) -> None:
        assert worth(amount, currency, reference, Rate(*rate, "test", _NOW)) == expected

    def test_without_a_rate_is_one(self) -> None:
        assert no_rate(_NOW) == Rate(0, 1, "none", _NOW)


class TestLimitsInForce:
    _USUAL = ReferenceLimits("USD", Limits(100, 200, 300, 4), {"EUR": Rate(2, 1, "test", _NOW)})

    def test_are_the_usual_without_an_override(self) -> None:
        assert (
            limits_in_force(self._USUAL, None) == limits_in_force(self._USUAL, counters()) == Limits(100, 200, 300, 4)
        )
        assert self._USUAL.apply_to_everybody
        assert not ReferenceLimits().apply_to_everybody
        assert ReferenceLimits().currency == "USD"

    def test_are_the_override_where_it_says_something(self) -> None:
        known = counters(limits=Limits(per_day=50, per_month=0), limits_currency="USD")
        assert limits_in_force(self._USUAL, known) == Limits(100, 50, 0, 4)
        # Of an earlier release: it was set in the reference of now.
        assert limits_in_force(self._USUAL, known._replace(limits_currency=None)) == Limits(100, 50, 0, 4)

    def test_of_another_currency_are_converted_but_for_the_number(self) -> None:
        known = counters(limits=Limits(7, 0, None, 9), limits_currency="EUR")
        assert limits_in_force(self._USUAL, known) == Limits(14, 0, 300, 9)

    def test_of_a_currency_without_a_rate_are_unknown(self) -> None:
        known = counters(limits=Limits(per_day=7), limits_currency="CHF")
        assert limits_in_force(self._USUAL, known) is None
        number = counters(limits=Limits(per_day=0, count_per_hour=3), limits_currency="CHF")
        assert limits_in_force(self._USUAL, number) == Limits(100, 0, 300, 3)


class TestWhatIsKnown:
    def test_of_nobody_is_nothing(self) -> None:
        assert usage_in("USD", None) == Usage()
        assert latest_time(None) == datetime(1, 1, 1, tzinfo=UTC)
        assert reference_zone_name(None, "USD") == "America/New_York"
        assert reference_zone_source(None, "USD") is ZoneSource.CURRENCY

    def test_are_the_counters_of_the_currency(self) -> None:
        rupees = Usage("2026-11-01T02", 1)
        known = counters(other_usage=OtherUsage("INR", rupees, None), updated_at=_NOW + timedelta(days=1))
        assert usage_in("USD", known) == _DOLLARS
        assert usage_in("INR", known) == rupees
        assert usage_in("EUR", known) == usage_in("EUR", counters()) == Usage()
        assert latest_time(known) == _NOW + timedelta(days=1)

    def test_are_there_with_an_override_or_something_counted(self) -> None:
        bare = new_user_limits("usr_asha", _NOW)
        assert bare == UserLimits("ulm_asha", "usr_asha", None, _NOW, _NOW)
        assert not bare.has_counters
        assert bare._replace(limits=Limits()).has_counters
        assert bare._replace(usage_currency="USD").has_counters

    def test_goes_with_a_wallet_from_its_opening(self) -> None:
        opened = new_wallet("wal_asha", "usr_asha", "USD", _NOW, "Asia/Tokyo", counts_for_owner=True)
        assert (opened.counts_for_owner, opened.owner_time_zone) == (True, "Asia/Tokyo")
        assert not new_wallet("wal_asha", "usr_asha", "USD", _NOW).counts_for_owner

    def test_is_the_users_zone_before_the_currencys(self) -> None:
        known, without = counters(time_zone="Asia/Tokyo"), counters()
        assert reference_zone(known, "USD") == ZoneInfo("Asia/Tokyo")
        assert reference_zone(without, "USD") == ZoneInfo("America/New_York")
        assert reference_zone(without, "XAF") == ZoneInfo("UTC")
        assert [reference_zone_source(one, "USD") for one in (known, without)] == [ZoneSource.USER, ZoneSource.CURRENCY]
        assert reference_zone_source(without, "XAF") is ZoneSource.DEFAULT
