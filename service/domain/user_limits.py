"""Limits over all wallets of a user: zone, override, counters.

The limits over all wallets are in one currency, the reference: what leaves a wallet in another one counts there with
what it is worth at that moment.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import NamedTuple

from service.domain.identifiers import Prefix
from service.domain.limits import Limits, Usage, change_zone, effective_limits
from service.domain.money import EXPONENTS, MAX_AMOUNT_MINOR
from service.domain.quotes import Rate
from service.domain.time_zones import ZoneSource, has_home_zone, home_zone_name, zone_named

_NO_RATES: Mapping[str, Rate] = MappingProxyType({})


class ReferenceLimits(NamedTuple):
    """The usual limits of each user over all of their wallets, in minor units of `currency`; 0 or None is no limit.

    `rates`: value of one major unit of each currency in `currency`. Held in memory.
    """

    currency: str = "USD"
    limits: Limits = Limits()
    rates: Mapping[str, Rate] = _NO_RATES

    @property
    def apply_to_everybody(self) -> bool:
        """Tells whether they limit every user. Otherwise only admins' overrides do."""
        return any(self.limits)


class LimitCharge(NamedTuple):
    """What a payment counts for in its sender's limits over all wallets: minor units of `currency`, at `rate`, at that
    time. A payment that was made while there was no such limit has none.
    """

    amount: int
    currency: str
    rate: Rate
    at: datetime


class OtherUsage(NamedTuple):
    """Counters in another reference currency, and since when they count."""

    currency: str
    usage: Usage
    since: datetime | None


class UserLimits(NamedTuple):
    """Limits and counters of one user. Its id is derived from the user's id.

    `time_zone` is where the days and months of their wallets begin, unless an admin has set a zone on the wallet; None
    leaves that to each wallet's currency. The wallets carry a copy, so that no payment has to read this.

    `limits` is what an admin has set in place of the usual, in minor units of `limits_currency`. `usage` is counted in
    `usage_currency` since `usage_since`. With another reference currency new counters begin, and those of the currency
    before go into `other_usage`. A process that still has the old setting goes on with them, so that nobody gains by
    alternating between such processes.
    """

    id: str
    user_id: str
    time_zone: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 0
    limits: Limits | None = None
    limits_currency: str | None = None
    usage: Usage = Usage()
    usage_currency: str | None = None
    usage_since: datetime | None = None
    other_usage: OtherUsage | None = None

    @property
    def has_counters(self) -> bool:
        """Tells whether payments have to look here: an override is set, or something was counted."""
        return self.limits is not None or self.usage_currency is not None


def user_limits_id(user_id: str) -> str:
    return f"{Prefix.USER_LIMITS.value}_{user_id.partition('_')[2]}"


def new_user_limits(user_id: str, at: datetime) -> UserLimits:
    return UserLimits(user_limits_id(user_id), user_id, None, at, at)


def reference_zone_name(known: UserLimits | None, currency: str) -> str:
    """In which the days and months of the limits over all wallets begin."""
    own = None if known is None else known.time_zone
    return own or home_zone_name(currency)


def reference_zone(known: UserLimits | None, currency: str) -> tzinfo:
    return zone_named(reference_zone_name(known, currency))


def with_zone(known: UserLimits, zone: str | None, at: datetime) -> UserLimits:
    """Sets the user's zone. `at` is later than all that was counted."""
    changed = known._replace(time_zone=zone, updated_at=at)
    if known.usage_currency is not None:
        changed = changed._replace(usage=_in_other_zone(known.usage, known.usage_currency, known, changed))
    other = known.other_usage
    if other is not None:
        changed = changed._replace(
            other_usage=other._replace(usage=_in_other_zone(other.usage, other.currency, known, changed))
        )
    return changed


def _in_other_zone(usage: Usage, currency: str, before: UserLimits, after: UserLimits) -> Usage:
    if reference_zone_name(before, currency) == reference_zone_name(after, currency):
        return usage
    return change_zone(usage, after.updated_at, reference_zone(before, currency), reference_zone(after, currency))


def reference_zone_source(known: UserLimits | None, currency: str) -> ZoneSource:
    if known is not None and known.time_zone is not None:
        return ZoneSource.USER
    return ZoneSource.CURRENCY if has_home_zone(currency) else ZoneSource.DEFAULT


def no_rate(at: datetime) -> Rate:
    """Stands in where there is no rate and only the number of payments is limited. A payment then counts as one minor
    unit.
    """
    return Rate(0, 1, "none", at)


def worth(amount: int, currency: str, reference: str, rate: Rate) -> int:
    """Minor units of the reference currency, rounded up, and at least one, so that no payment is too small to count.

    Capped at MAX_AMOUNT_MINOR.
    """
    dividend: int = amount * rate.numerator * 10 ** EXPONENTS[reference]
    divisor: int = rate.denominator * 10 ** EXPONENTS[currency]
    return min(max(-(-dividend // divisor), 1), MAX_AMOUNT_MINOR)


def limits_in_force(reference: ReferenceLimits, known: UserLimits | None) -> Limits | None:
    """Returns the override merged with the usual limits.

    Amounts set under another reference currency are converted at the current rate. Returns None if there is no rate.
    """
    if known is None or known.limits is None:
        return reference.limits
    own, currency = known.limits, known.limits_currency or reference.currency
    if currency != reference.currency and own.bound_amounts:
        rate = reference.rates.get(currency)
        if rate is None:
            return None
        amounts = own._replace(count_per_hour=None)._asdict()
        converted = {
            name: ceiling and worth(ceiling, currency, reference.currency, rate) for name, ceiling in amounts.items()
        }
        own = Limits(**converted)._replace(count_per_hour=own.count_per_hour)
    return effective_limits(reference.limits, own)


def usage_in(reference_currency: str, known: UserLimits | None) -> Usage:
    """Returns the counters in that currency; empty if there are none."""
    if known is None:
        return Usage()
    if known.usage_currency == reference_currency:
        return known.usage
    other = known.other_usage
    return Usage() if other is None or other.currency != reference_currency else other.usage


def latest_time(known: UserLimits | None) -> datetime:
    """Returns the time of the last counted payment."""
    return datetime.min.replace(tzinfo=UTC) if known is None else known.updated_at
