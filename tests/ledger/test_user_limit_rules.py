"""Limits over all wallets of a user, as commands set them and as a payment asks for them: no server is needed."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.limits import Limits, Usage
from service.domain.policy import Policy
from service.domain.quotes import Rate
from service.domain.user_counts import limit_charge_of
from service.domain.user_limits import LimitCharge, ReferenceLimits, UserLimits, new_user_limits
from service.domain.wallets import Wallet
from service.errors import LimitExceeded, NotFound, RateUnavailable, SecondAdminRequired
from service.ledger.audit_events import Unchanged
from service.ledger.batch import Batch, Draft, Loaded
from service.ledger.commands import Changes, Needs
from service.ledger.holds import RequestHold
from service.ledger.user_counts import charge_for_user
from service.ledger.user_limits import OverrideUserLimits, SetTimeZone
from tests.factories import transfer_of, withdrawal_of
from tests.records import at, build_wallet

_NO_LIMIT = Limits()
_OF_AUDITED = ("audit_event_id", "reason")
_MOMENT = timedelta(milliseconds=1)
_RUPEES = build_wallet(updated_at=at(20))
_DOLLARS = build_wallet(id="wal_dollars", currency="USD")
_KNOWN = new_user_limits("usr_asha", at(0))._replace(limits=Limits(per_day=7), limits_currency="EUR")
_RATES = {"USD": Rate(1, 1, "test", at(0)), "INR": Rate(1, 80, "test", at(0))}


def _state(
    *wallets: Wallet,
    known: UserLimits | None = None,
    limits: Limits = _NO_LIMIT,
    rates: dict[str, Rate] = _RATES,
) -> Draft:
    records = {} if known is None else {known.id: known}
    loaded = Loaded({"usr_boss": 0, "usr_asha": 0}, {one.id: one for one in wallets}, records, {})
    owners = {(one.user_id, one.currency): one.id for one in wallets}
    return Draft(None, loaded, owners, Policy(user_limits=ReferenceLimits("USD", limits, rates)))


def _common(user_id: str, minute: int) -> dict[str, Any]:
    return {
        "now": at(minute),
        "transaction_id": "txn_1",
        "audit_event_id": "aud_1",
        "user_id": user_id,
        "token_version": None,
        "reason": "A test",
        "request_id": "req_7",
    }


def _override(limits: Limits | None, *, minute: int = 5, by: str = "usr_boss", currency: str = "USD") -> Any:
    return OverrideUserLimits(**_common(by, minute), owner_id="usr_asha", currency=currency, limits=limits)


def _event(action: AuditAction, when: datetime, actor: str = "usr_boss", **details: Any) -> AuditEvent:
    return AuditEvent("aud_1", when, actor, action, "usr_asha", "A test", details, "req_7")


_NO_LIMITS: dict[str, Any] = {"per_transaction": None, "per_day": None, "per_month": None, "count_per_hour": None}
_WERE_NONE: dict[str, Any] = {f"was_{name}": None for name in _NO_LIMITS}


class TestAnOverride:
    def test_is_recorded_and_marks_all_wallets(self) -> None:
        changes = _override(Limits(per_day=9, count_per_hour=2)).decide(_state(_RUPEES, _DOLLARS))
        after = UserLimits(
            "ulm_asha",
            "usr_asha",
            None,
            at(5),
            at(5),
            limits=Limits(per_day=9, count_per_hour=2),
            limits_currency="USD",
        )
        details = _NO_LIMITS | {"per_day": 9, "count_per_hour": 2, "currency": "USD", "was_currency": None}
        # One of them is ahead of the clock: it goes on from there.
        marked = (
            _RUPEES._replace(counts_for_owner=True, updated_at=at(20) + _MOMENT),
            _DOLLARS._replace(counts_for_owner=True, updated_at=at(5)),
        )
        event = _event(AuditAction.USER_LIMITS_SET, at(5), **details | _WERE_NONE)
        assert changes == Changes(after, wallets=marked, also=(event,))

    def test_takes_the_place_of_the_one_before(self) -> None:
        # What was counted last is later than the clock.
        known = _KNOWN._replace(updated_at=at(6))
        changes = _override(Limits(per_month=8)).decide(_state(_DOLLARS, known=known))
        assert changes.record == known._replace(limits=Limits(per_month=8), limits_currency="USD")
        details = _NO_LIMITS | _WERE_NONE | {"per_month": 8, "was_per_day": 7, "currency": "USD", "was_currency": "EUR"}
        assert changes.also == (_event(AuditAction.USER_LIMITS_SET, at(6), **details),)
        later = _override(Limits(per_month=8), minute=7).decide(_state(_DOLLARS, known=known))
        assert later.record == known._replace(limits=Limits(per_month=8), limits_currency="USD", updated_at=at(7))

    def test_that_is_taken_away_leaves_what_was_used(self) -> None:
        known = _KNOWN._replace(usage=Usage("2026-02-24T12", 3), usage_currency="USD")
        changes = _override(None).decide(_state(_DOLLARS, known=known))
        assert changes.record == known._replace(limits=None, limits_currency=None, updated_at=at(5))
        details = _NO_LIMITS | _WERE_NONE | {"was_per_day": 7, "currency": None, "was_currency": "EUR"}
        assert changes.also == (_event(AuditAction.USER_LIMITS_RESET, at(5), **details),)

    def test_that_is_there_already_changes_nothing(self) -> None:
        with pytest.raises(Unchanged):
            _override(Limits(per_day=7), currency="EUR").decide(_state(_DOLLARS, known=_KNOWN))
        with pytest.raises(Unchanged):
            _override(None).decide(_state(_DOLLARS))
        in_dollars = _override(Limits(per_day=7)).decide(_state(_DOLLARS, known=_KNOWN))
        assert in_dollars.record == _KNOWN._replace(limits_currency="USD", updated_at=at(5))

    def test_is_for_users_with_a_wallet_and_by_another(self) -> None:
        with pytest.raises(NotFound) as refused:
            _override(Limits(per_day=7)).decide(_state())
        assert refused.value.message == "There is no user usr_asha with a wallet"
        with pytest.raises(SecondAdminRequired):
            _override(Limits(per_day=9), by="usr_asha").decide(_state(_DOLLARS))

    def test_needs_the_admin_the_wallets_and_what_is_known(self) -> None:
        assert _override(None).needs == Needs(users=("usr_boss",), all_wallets_of=("usr_asha",), records=("ulm_asha",))


class TestAZone:
    def _sets(self, zone: str | None) -> SetTimeZone:
        return SetTimeZone(**_common("usr_asha", 5), time_zone=zone)

    def test_is_copied_into_each_wallet_later_than_all_that_was_counted(self) -> None:
        known = _KNOWN._replace(updated_at=at(30), time_zone="Asia/Tokyo")
        changes = self._sets("Asia/Kolkata").decide(_state(_RUPEES, _DOLLARS, known=known))
        then = at(30) + _MOMENT
        assert changes == Changes(
            known._replace(time_zone="Asia/Kolkata", updated_at=then),
            wallets=(
                _RUPEES._replace(owner_time_zone="Asia/Kolkata", updated_at=at(20) + _MOMENT),
                _DOLLARS._replace(owner_time_zone="Asia/Kolkata", updated_at=at(5)),
            ),
            also=(
                _event(
                    AuditAction.USER_TIME_ZONE_SET,
                    then,
                    "usr_asha",
                    time_zone="Asia/Kolkata",
                    was_time_zone="Asia/Tokyo",
                ),
            ),
        )

    def test_of_a_user_of_whom_nothing_is_known_yet(self) -> None:
        changes = self._sets("Asia/Kolkata").decide(_state(_RUPEES))
        then = at(20) + _MOMENT
        assert changes.record == UserLimits("ulm_asha", "usr_asha", "Asia/Kolkata", then, then)
        alone = self._sets("Asia/Kolkata").decide(_state())
        assert alone.record == UserLimits("ulm_asha", "usr_asha", "Asia/Kolkata", at(5), at(5))

    def test_that_is_set_already_changes_nothing(self) -> None:
        with pytest.raises(Unchanged):
            self._sets(None).decide(_state(_RUPEES))
        with pytest.raises(Unchanged):
            self._sets("Asia/Tokyo").decide(_state(_RUPEES, known=_KNOWN._replace(time_zone="Asia/Tokyo")))

    def test_needs_the_user_the_wallets_and_what_is_known(self) -> None:
        assert self._sets(None).needs == Needs(users=("usr_asha",), all_wallets_of=("usr_asha",), records=("ulm_asha",))


class TestAPayment:
    _LIMITED = Limits(per_day=100)

    def test_counts_what_it_is_worth(self) -> None:
        state = _state(_RUPEES, limits=self._LIMITED)
        assert charge_for_user(_RUPEES, 801, at(5), state) == LimitCharge(11, "USD", _RATES["INR"], at(5))
        assert charge_for_user(_DOLLARS, 100, at(5), state) == LimitCharge(100, "USD", _RATES["USD"], at(5))

    def test_counts_no_earlier_than_the_last(self) -> None:
        state = _state(_RUPEES, limits=self._LIMITED, known=_KNOWN._replace(limits=None, updated_at=at(9)))
        charged = charge_for_user(_RUPEES, 800, at(5), state)
        assert charged is not None
        assert charged.at == at(9)

    def test_counts_nothing_where_no_limit_is_in_force(self) -> None:
        marked = _RUPEES._replace(counts_for_owner=True)
        assert charge_for_user(_RUPEES, 800, at(5), _state(known=_KNOWN)) is None
        assert charge_for_user(marked, 800, at(5), _state()) is None
        none = _KNOWN._replace(limits=Limits(0, 0, 0, 0), limits_currency="USD")
        assert charge_for_user(marked, 800, at(5), _state(limits=self._LIMITED, known=none)) is None
        points = marked._replace(currency="PTS")
        assert charge_for_user(points, 800, at(5), _state(limits=self._LIMITED)) is None

    def test_of_a_marked_wallet_asks_for_its_owners_override(self) -> None:
        marked = _DOLLARS._replace(counts_for_owner=True)
        known = _KNOWN._replace(limits_currency="USD")
        assert charge_for_user(marked, 7, at(5), _state(known=known)) is not None
        with pytest.raises(LimitExceeded):
            charge_for_user(marked, 8, at(5), _state(known=known))
        # Of somebody else nothing is known.
        assert charge_for_user(marked._replace(user_id="usr_bo"), 8, at(5), _state(known=known)) is None

    def test_beyond_a_limit_says_which_and_until_when(self) -> None:
        used = Usage("2026-02-24T12", 1, "2026-02-24", 90, "2026-02", 90, 0, 0, at(0), at(0))
        known = new_user_limits("usr_asha", at(0))._replace(time_zone="Asia/Kolkata", usage=used, usage_currency="USD")
        with pytest.raises(LimitExceeded) as refused:
            charge_for_user(_RUPEES, 801, at(5), _state(limits=self._LIMITED, known=known))
        assert refused.value.message == "The limit per_day over all wallets is 100 USD, of which 10 is left"
        assert refused.value.facts == {
            "scope": "user",
            "currency": "USD",
            "limit": "per_day",
            "ceiling": 100,
            "left": 10,
            "resets_at": "2026-02-24T18:30:00.000Z",
            "time_zone": "Asia/Kolkata",
        }
        assert charge_for_user(_RUPEES, 800, at(5), _state(limits=self._LIMITED, known=known)) is not None
        # The next day has begun there.
        assert charge_for_user(_RUPEES, 801, at(7 * 60), _state(limits=self._LIMITED, known=known)) is not None

    def test_beyond_a_limit_of_each_one_has_no_time_to_wait_for(self) -> None:
        with pytest.raises(LimitExceeded) as refused:
            charge_for_user(_DOLLARS, 6, at(5), _state(limits=Limits(per_transaction=5)))
        assert refused.value.facts["resets_at"] is None
        assert refused.value.facts["time_zone"] == "America/New_York"

    def test_beyond_a_days_limit_waits_for_midnight_where_the_currency_is_at_home(self) -> None:
        with pytest.raises(LimitExceeded) as refused:
            charge_for_user(_RUPEES, 8_001, at(5), _state(limits=self._LIMITED))
        assert refused.value.facts["resets_at"] == "2026-02-25T05:00:00.000Z"

    @pytest.mark.parametrize("override", [None, "CHF"])
    def test_without_a_rate_is_refused(self, override: str | None) -> None:
        known = None if override is None else _KNOWN._replace(limits_currency=override)
        rates = {} if override is None else _RATES
        with pytest.raises(RateUnavailable) as refused:
            charge_for_user(_RUPEES, 8, at(5), _state(limits=self._LIMITED, known=known, rates=rates))
        assert refused.value.message == "What INR is worth in USD is not known, and there is a limit in it"
        assert refused.value.facts == {"from_currency": "INR", "to_currency": "USD"}

    def test_without_a_rate_counts_as_one_where_only_their_number_is_limited(self) -> None:
        state = _state(limits=Limits(count_per_hour=1), rates={})
        assert charge_for_user(_RUPEES, 800, at(5), state) == LimitCharge(1, "USD", Rate(0, 1, "none", at(5)), at(5))
        # Where there is a rate it counts for what it is worth, so that a limit that is set later finds it.
        charged = charge_for_user(_RUPEES, 800, at(5), _state(limits=Limits(count_per_hour=1)))
        assert charged is not None
        assert charged.amount == 10

    def test_of_any_kind_carries_what_it_counted_for(self) -> None:
        hold: dict[str, Any] = {
            "hold_id": "hld_1",
            "wallet_id": _RUPEES.id,
            "to_wallet_id": None,
            "amount": 241,
            "currency": "INR",
            "lifetime": timedelta(days=1),
            "category": None,
            "description": None,
            "metadata": {},
            "entry_id": "ent_1",
        }
        asked = {name: value for name, value in _common("usr_asha", 5).items() if name not in _OF_AUDITED}
        ravis = build_wallet(id="wal_ravi", user_id="usr_ravi", updated_at=at(3))
        commands = (
            withdrawal_of(_RUPEES, 241, now=at(5)),
            transfer_of(_RUPEES, ravis, 241, now=at(5)),
            RequestHold(**asked | hold),
        )
        for command in commands:
            made = command.decide(_state(_RUPEES, ravis, limits=self._LIMITED)).record
            # No earlier than the wallet's last change.
            assert limit_charge_of(made) == LimitCharge(4, "USD", _RATES["INR"], at(20))

    def test_marks_its_wallet_once_it_has_counted(self) -> None:
        """So that later commands on it have the counters read with it, also when the usual limits are gone."""
        policy = Policy(user_limits=ReferenceLimits("USD", self._LIMITED, _RATES))
        batch = Batch(Loaded({"usr_asha": 0}, {_DOLLARS.id: _DOLLARS}, {}, {}), policy)
        assert not batch.run(withdrawal_of(_DOLLARS, 30, now=at(5))).refused
        writes = batch.writes()
        (update,) = writes.wallet_updates
        assert update.after.counts_for_owner is True
        assert [one.usage.day_total for one in writes.record_inserts if isinstance(one, UserLimits)] == [30]
