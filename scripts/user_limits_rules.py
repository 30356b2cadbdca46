"""What has to hold of the limits of a user over all of their wallets, and of the time zone that they count in."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

from scripts.audit_rules import AuditRule, check_path
from scripts.record_rules import Row

LIMITS_PREFIX: Final = "ulm_"
USER_PREFIX: Final = "usr_"
ZONE_SET: Final = "user.time_zone_set"
ACTIONS: Final = (ZONE_SET,)


class UserLimitsRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    TIME_ZONE = "user_time_zone"
    UNKNOWN = "user_limits_unknown"


Found = tuple[str, str]
"""A rule that does not hold, and what stands there instead."""


def check_user(user_id: str, limits: Sequence[Row], wallets: Sequence[Row], events: Sequence[Row]) -> Iterator[Found]:
    """One user's limits against the copies in the wallets and the audit events that led there."""
    own: Row = limits[0] if limits else {}
    zone = own.get("time_zone")
    if limits and own.get("user_id") != user_id:
        yield UserLimitsRule.UNKNOWN, f"{own.get('_id')} says that it is of {own.get('user_id')}"
    for wallet in wallets:
        copied = wallet.get("owner_time_zone")
        if copied != zone:
            yield UserLimitsRule.TIME_ZONE, f"{wallet.get('_id')} counts in {copied}, its owner has set {zone}"
    steps = [
        (_detail(event, "was_time_zone"), _detail(event, "time_zone"))
        for event in events
        if event.get("action") == ZONE_SET
    ]
    yield from ((AuditRule(rule), detail) for rule, detail in check_path("time zone", steps, None, zone))


def _detail(event: Row, name: str) -> object:
    details = event.get("details")
    return details.get(name) if isinstance(details, dict) else None
