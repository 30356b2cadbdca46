"""The limits of a user over all of their wallets, as the commands ask for them."""

from datetime import datetime

from service.domain.clock import to_rfc3339
from service.domain.limits import find_exceeded
from service.domain.money import POINTS
from service.domain.user_limits import (
    LimitCharge,
    UserLimits,
    latest_time,
    limits_in_force,
    no_rate,
    reference_zone,
    reference_zone_name,
    usage_in,
    user_limits_id,
    worth,
)
from service.domain.wallets import Wallet
from service.errors import LimitExceeded, RateUnavailable
from service.ledger.commands import State


def charge_for_user(wallet: Wallet, amount: int, at: datetime, state: State) -> LimitCharge | None:
    """Checks a payment against its owner's limits over all wallets and returns what it counts for.

    None where no such limit is in force; nothing is read for that. The kernel adds it to the counters when the record
    is stored, and gives back what of it comes to nothing. Points are no money and do not count.
    Raises LimitExceeded, RateUnavailable.
    """
    reference = state.policy.user_limits
    if wallet.currency == POINTS or not (reference.apply_to_everybody or wallet.counts_for_owner):
        return None
    known = state.record(user_limits_id(wallet.user_id), UserLimits)
    limits = limits_in_force(reference, known)
    if limits is not None and not any(limits):
        return None
    rate = reference.rates.get(wallet.currency)
    if rate is None and limits is not None and not limits.bound_amounts:
        rate = no_rate(at)
    if limits is None or rate is None:
        # Without a rate the limit could not be enforced, so the payment is refused.
        raise RateUnavailable(
            f"What {wallet.currency} is worth in {reference.currency} is not known, and there is a limit in it",
            from_currency=wallet.currency,
            to_currency=reference.currency,
        )
    at = max(at, latest_time(known))
    counted = LimitCharge(worth(amount, wallet.currency, reference.currency, rate), reference.currency, rate, at)
    zone = reference_zone(known, reference.currency)
    exceeded = find_exceeded(limits, usage_in(reference.currency, known), counted.amount, at, zone)
    if exceeded is not None:
        raise LimitExceeded(
            f"The limit {exceeded.limit} over all wallets is {exceeded.ceiling} {reference.currency}, "
            f"of which {exceeded.left} is left",
            scope="user",
            currency=reference.currency,
            limit=exceeded.limit,
            ceiling=exceeded.ceiling,
            left=exceeded.left,
            resets_at=None if exceeded.resets_at is None else to_rfc3339(exceeded.resets_at),
            time_zone=reference_zone_name(known, reference.currency),
        )
    return counted
