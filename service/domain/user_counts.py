"""What a payment still counts for in its sender's limits over all wallets, and the counters after it has changed."""

from datetime import datetime
from typing import NamedTuple, assert_never

from service.domain.holds import Hold, HoldStatus
from service.domain.limits import Usage, charge, give_back
from service.domain.operations import Operation, OperationStatus
from service.domain.transfers import Transfer
from service.domain.user_limits import Counted, OtherUsage, UserLimits, new_user_limits, reference_zone

Sent = Operation | Transfer | Hold


class Share(NamedTuple):
    amount: int
    operations: int


_NOTHING = Share(0, 0)


def counted_of(record: object) -> Counted | None:
    """What the record has counted for when it was made; None for what does not count."""
    return record.counted if isinstance(record, Sent) else None


def share_of(sent: Sent | None) -> Share:
    """What of it counts as it stands. A part of the amount counts for its part of the worth, rounded up."""
    if sent is None or sent.counted is None:
        return _NOTHING
    left = _amount_that_counts(sent)
    if left is None:
        return _NOTHING
    return Share(-(-sent.counted.amount * left // sent.amount), 1)


def _amount_that_counts(sent: Sent) -> int | None:
    """In the wallet's currency. None for a payment that has come to nothing."""
    match sent:
        case Operation():
            is_undone = sent.status in (OperationStatus.FAILED, OperationStatus.CANCELED) or sent.return_id is not None
            return None if is_undone else sent.amount
        case Transfer():
            is_undone = sent.status is OperationStatus.CANCELED or sent.reversal_id is not None
            return None if is_undone else sent.amount
        case Hold():
            return {HoldStatus.HELD: sent.left, HoldStatus.CAPTURED: sent.captured_amount}.get(sent.status)
        case _:
            assert_never(sent)


def recounted(before: Sent | None, after: Sent, known: UserLimits | None) -> UserLimits | None:
    """The sender's counters after the change of a payment; None where they stay as they are.

    Whatever comes to nothing, or is captured in part, gives back exactly what its share was.
    """
    counted = after.counted
    was, is_now = share_of(before), share_of(after)
    if counted is None or was == is_now:
        return None
    if before is None:
        return _charged(counted, is_now, known or new_user_limits(after.user_id, counted.at))
    if known is None:
        return None
    returned = Share(was.amount - is_now.amount, was.operations - is_now.operations)
    if known.usage_currency == counted.currency:
        return known._replace(usage=_less(known.usage, returned, counted, known.usage_since))
    other = known.other_usage
    if other is not None and other.currency == counted.currency:
        return known._replace(other_usage=other._replace(usage=_less(other.usage, returned, counted, other.since)))
    return None


def _less(usage: Usage, returned: Share, counted: Counted, since: datetime | None) -> Usage:
    """Returns the counters without that share; unchanged where the payment was counted before they began."""
    if since is not None and counted.at < since:
        return usage
    return give_back(usage, returned.amount, count=returned.operations, charged_at=counted.at)


def _charged(counted: Counted, share: Share, known: UserLimits) -> UserLimits:
    assert counted.at >= known.updated_at, f"{known.id} counts at a time before its last"  # noqa: S101 by the rule
    zone = reference_zone(known, counted.currency)
    if known.usage_currency != counted.currency:
        known = _in_currency(known, counted)
    return known._replace(usage=charge(known.usage, share.amount, counted.at, zone), updated_at=counted.at)


def _in_currency(known: UserLimits, counted: Counted) -> UserLimits:
    """Sets the counters aside and goes on with those of the payment's currency, or begins new ones."""
    aside = None if known.usage_currency is None else OtherUsage(known.usage_currency, known.usage, known.usage_since)
    resumed = known.other_usage
    if resumed is None or resumed.currency != counted.currency:
        resumed = OtherUsage(counted.currency, Usage(), counted.at)
    return known._replace(
        usage=resumed.usage, usage_currency=resumed.currency, usage_since=resumed.since, other_usage=aside
    )
