"""Computes what a payment counts for in the sender's limits over all wallets, and updates the counters."""

from datetime import datetime
from typing import NamedTuple, assert_never

from service.domain.holds import Hold, HoldStatus
from service.domain.limits import Usage, charge, give_back
from service.domain.operations import Operation, OperationStatus
from service.domain.transfers import Transfer
from service.domain.user_limits import LimitCharge, OtherUsage, UserLimits, new_user_limits, reference_zone

Sent = Operation | Transfer | Hold


class Share(NamedTuple):
    amount: int
    operations: int


_NOTHING = Share(0, 0)


def limit_charge_of(record: object) -> LimitCharge | None:
    """Returns the record's `counted`; None if it does not count."""
    return record.counted if isinstance(record, Sent) else None


def share_of(sent: Sent | None) -> Share:
    """Returns the share that counts now: `counted` in proportion to the remaining amount, rounded up."""
    if sent is None or sent.counted is None:
        return _NOTHING
    left = _amount_that_counts(sent)
    if left is None:
        return Share(0, int(not isinstance(sent, Hold) and sent.keeps_count))
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


def apply_charge(before: Sent | None, after: Sent, known: UserLimits | None) -> UserLimits | None:
    """Returns the sender's counters after the change of a payment; None where they stay as they are.

    A canceled payment gives back its share. A partial capture gives back the rest.
    """
    counted = after.counted
    share_before, share_after = share_of(before), share_of(after)
    if counted is None or share_before == share_after:
        return None
    if before is None:
        return _with_new_payment(counted, share_after, known or new_user_limits(after.user_id, counted.at))
    if known is None:
        return None
    returned = Share(share_before.amount - share_after.amount, share_before.operations - share_after.operations)
    if known.usage_currency == counted.currency:
        return known._replace(usage=_less(known.usage, returned, counted, known.usage_since))
    other = known.other_usage
    if other is not None and other.currency == counted.currency:
        return known._replace(other_usage=other._replace(usage=_less(other.usage, returned, counted, other.since)))
    return None


def _less(usage: Usage, returned: Share, counted: LimitCharge, since: datetime | None) -> Usage:
    """Returns the counters without that share; unchanged where the payment was counted before they began."""
    if since is not None and counted.at < since:
        return usage
    return give_back(usage, returned.amount, count=returned.operations, charged_at=counted.at)


def _with_new_payment(counted: LimitCharge, share: Share, known: UserLimits) -> UserLimits:
    assert counted.at >= known.updated_at, f"{known.id} is counted earlier than the last payment"  # noqa: S101 by the rule
    zone = reference_zone(known, counted.currency)
    if known.usage_currency != counted.currency:
        known = _in_currency(known, counted)
    return known._replace(usage=charge(known.usage, share.amount, counted.at, zone), updated_at=counted.at)


def _in_currency(known: UserLimits, counted: LimitCharge) -> UserLimits:
    """Sets the counters aside and goes on with those of the payment's currency, or begins new ones."""
    aside = None if known.usage_currency is None else OtherUsage(known.usage_currency, known.usage, known.usage_since)
    resumed = known.other_usage
    if resumed is None or resumed.currency != counted.currency:
        resumed = OtherUsage(counted.currency, Usage(), counted.at)
    return known._replace(
        usage=resumed.usage, usage_currency=resumed.currency, usage_since=resumed.since, other_usage=aside
    )
