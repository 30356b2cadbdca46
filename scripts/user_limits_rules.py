"""Checks the limits of a user over all of their wallets, and the time zone that they count in.

Written out a second time like `ledger_rules`, and for the same reason.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

from scripts.audit_rules import AuditRule, check_path
from scripts.ledger_rules import is_shaped
from scripts.record_rules import KINDS, TALLIED, Kind, Row, Tally
from service.domain.money import EXPONENTS

LIMITS_PREFIX: Final = "ulm_"
USER_PREFIX: Final = "usr_"
ZONE_SET: Final = "user.time_zone_set"
LIMITS_SET: Final = "user.limits_set"
LIMITS_RESET: Final = "user.limits_reset"
ACTIONS: Final = (ZONE_SET, LIMITS_SET, LIMITS_RESET)
# These count for the limits: money leaves for somebody else. Conversions stay with the user.
COUNTED: Final = tuple(kind for kind in KINDS if kind.collection in ("withdrawals", "transfers", "holds"))

_LIMITS: Final = ("per_transaction", "per_day", "per_month", "count_per_hour")
_USUAL: Final = (None,) * (len(_LIMITS) + 1)
_LARGEST: Final = 2**53 - 1


class UserLimitsRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    TIME_ZONE = "user_time_zone"
    UNKNOWN = "user_limits_unknown"
    MARK = "user_limits_mark"
    USAGE = "user_usage"
    COUNTED = "user_counted"


Found = tuple[str, str]
"""A broken rule and the detail."""


def check_user(
    user_id: str,
    limits: Sequence[Row],
    wallets: Sequence[Row],
    events: Sequence[Row],
    sent: Sequence[tuple[Kind, Row]],
) -> Iterator[Found]:
    """One user's limits against the copies in the wallets, the audit events that led there, and what was counted."""
    own: Row = limits[0] if limits else {}
    zone = own.get("time_zone")
    if limits and own.get("user_id") != user_id:
        yield UserLimitsRule.UNKNOWN, f"{own.get('_id')} says that it is of {own.get('user_id')}"
    override = own.get("limits")
    for wallet in wallets:
        copied = wallet.get("owner_time_zone")
        if copied != zone:
            yield UserLimitsRule.TIME_ZONE, f"{wallet.get('_id')} counts in {copied}, its owner has set {zone}"
        if override is not None and wallet.get("counts_for_owner") is not True:
            yield UserLimitsRule.MARK, f"{wallet.get('_id')} is not marked, so its payments skip its owner's limits"
    yield from _check_events(own, zone, events)
    yield from _check_usage(own, wallets, sent)


def _check_events(own: Row, zone: object, events: Sequence[Row]) -> Iterator[Found]:
    zones = [
        (_detail(event, "was_time_zone"), _detail(event, "time_zone"))
        for event in events
        if event.get("action") == ZONE_SET
    ]
    yield from ((AuditRule(rule), detail) for rule, detail in check_path("time zone", zones, None, zone))
    changes = [
        (_limits_of(event, "was_"), _limits_of(event, "") if event.get("action") == LIMITS_SET else _USUAL)
        for event in events
        if event.get("action") in (LIMITS_SET, LIMITS_RESET)
    ]
    override = own.get("limits") or {}
    last = (*(override.get(name) for name in _LIMITS), own.get("limits_currency"))
    yield from ((AuditRule(rule), detail) for rule, detail in check_path("limits", changes, _USUAL, last))


def _check_usage(own: Row, wallets: Sequence[Row], sent: Sequence[tuple[Kind, Row]]) -> Iterator[Found]:
    """The counters of each currency are what the payments make that were counted in it since those counters began."""
    other: Row = own.get("other_usage") or {}
    slots = [
        (own.get("usage"), own.get("usage_currency"), own.get("usage_since"), Tally("")),
        (other.get("usage"), other.get("currency"), other.get("since"), Tally("")),
    ]
    marked = {wallet.get("_id") for wallet in wallets if wallet.get("counts_for_owner") is True}
    for kind, row in sent:
        counted = row.get("counted")
        if not is_shaped(row, TALLIED) or not isinstance(counted, dict):
            continue
        due = worth(row, counted)
        if counted.get("amount") != due:
            yield UserLimitsRule.COUNTED, f"{row.get('_id')} counts for {counted.get('amount')}, its worth is {due}"
        if row.get("wallet_id") not in marked:
            yield UserLimitsRule.MARK, f"{row.get('_id')} was counted, and {row.get('wallet_id')} is not marked"
        share = kind.share(row)
        part = -(-counted["amount"] * share.counted // row["amount"])
        for _, currency, since, tally in slots if own else slots[:1]:
            if not own or (counted.get("currency") == currency and since is not None and counted["at"] >= since):
                tally.add(share._replace(counted=part), {**row, "created_at": counted["at"]}, is_counted=True)
    for usage, _, _, tally in slots:
        differs = tally.usage_differs(usage or {"hour": "", "hour_count": 0, "day_amount": 0, "month_amount": 0})
        if differs is not None:
            yield UserLimitsRule.USAGE, differs


def worth(row: Row, counted: Row) -> int | None:
    """Minor units of the reference currency, rounded up, from one to the largest amount."""
    rate: Any = counted.get("rate")
    ours, theirs = EXPONENTS.get(str(row.get("currency"))), EXPONENTS.get(str(counted.get("currency")))
    if not isinstance(rate, dict) or ours is None or theirs is None:
        return None
    dividend: int = row["amount"] * rate["numerator"] * 10**theirs
    divisor: int = rate["denominator"] * 10**ours
    return min(max(-(-dividend // divisor), 1), _LARGEST)


def _limits_of(event: Row, prefix: str) -> tuple[object, ...]:
    return tuple(_detail(event, f"{prefix}{name}") for name in (*_LIMITS, "currency"))


def _detail(event: Row, name: str) -> object:
    details = event.get("details")
    return details.get(name) if isinstance(details, dict) else None
