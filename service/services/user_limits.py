"""Limits of a user over all of their wallets: what may still leave them, the zone, and an admin's override."""

from datetime import datetime
from typing import NamedTuple

import structlog

from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.limits import Limits, LimitState, limit_states
from service.domain.policy import Policy
from service.domain.time_zones import ZoneSource
from service.domain.user_limits import (
    UserLimits,
    latest_time,
    limits_in_force,
    reference_zone,
    reference_zone_name,
    reference_zone_source,
    usage_in,
    user_limits_id,
)
from service.errors import NotFound, RateUnavailable
from service.ledger.audit_events import Unchanged
from service.ledger.committer import Ledger
from service.ledger.user_limits import OverrideUserLimits, SetTimeZone
from service.repositories import records as record_repository
from service.repositories import users as user_repository
from service.services.orders import Requester

log = structlog.get_logger()


class OverallLimits(NamedTuple):
    """Minor units of `currency`. `override` is None where the usual limits hold, and in `override_currency`."""

    user_id: str
    currency: str
    time_zone: str
    time_zone_from: ZoneSource
    override: Limits | None
    override_currency: str | None
    states: tuple[LimitState, ...]


async def get_user_limits(user_id: str, policy: Policy) -> OverallLimits:
    """Raises RateUnavailable where an override is in a currency that has no rate any more."""
    known = await record_repository.find(user_limits_id(user_id), UserLimits)
    return _limits_of(user_id, known, policy, utc_now())


async def get_limits_of_anybody(user_id: str, policy: Policy) -> OverallLimits:
    """As get_user_limits. Raises NotFound."""
    if await user_repository.find(user_id) is None:
        raise NotFound(f"There is no user {user_id}")
    return await get_user_limits(user_id, policy)


async def override_user_limits(
    ledger: Ledger, user: Requester, owner_id: str, limits: Limits, reason: str | None, request_id: str | None
) -> OverallLimits:
    """In place of the override before; with nothing in it, back to the usual ones. Repeating it is harmless.

    Raises NotFound for a user who is not there or has no wallet, SecondAdminRequired where it is oneself, and what
    Ledger.execute raises.
    """
    command = OverrideUserLimits(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        user_id=user.user_id,
        token_version=user.token_version,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=reason,
        owner_id=owner_id,
        currency=ledger.policy.user_limits.currency,
        limits=None if limits == Limits() else limits,
    )
    try:
        await ledger.execute(command)
    except Unchanged:
        log.info("user.limits_unchanged", user_id=owner_id)
    else:
        log.info("user.limits_overridden", user_id=owner_id, by=user.user_id)
    return await get_user_limits(owner_id, ledger.policy)


def _limits_of(user_id: str, known: UserLimits | None, policy: Policy, now: datetime) -> OverallLimits:
    reference = policy.user_limits
    limits = limits_in_force(reference, known)
    if limits is None:
        assert known is not None, "the usual limits need no rate"  # noqa: S101 by limits_in_force
        raise RateUnavailable(from_currency=known.limits_currency, to_currency=reference.currency)
    # As the next payment will count: never before the last one.
    at = max(now, latest_time(known))
    return OverallLimits(
        user_id,
        reference.currency,
        reference_zone_name(known, reference.currency),
        reference_zone_source(known, reference.currency),
        None if known is None else known.limits,
        None if known is None else known.limits_currency,
        limit_states(limits, usage_in(reference.currency, known), at, reference_zone(known, reference.currency)),
    )


async def get_time_zone(user_id: str) -> str | None:
    """Returns the one that the user has set; None where each wallet has that of its currency."""
    known = await record_repository.find(user_limits_id(user_id), UserLimits)
    return None if known is None else known.time_zone


async def set_time_zone(ledger: Ledger, user: Requester, time_zone: str | None, request_id: str | None) -> None:
    """For all of the user's wallets, from the next payment on. Repeating it is harmless.

    Raises AccountDeactivated, Unauthenticated, and what Ledger.execute raises.
    """
    command = SetTimeZone(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        user_id=user.user_id,
        token_version=user.token_version,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=None,
        time_zone=time_zone,
    )
    try:
        await ledger.execute(command)
    except Unchanged:
        log.info("user.time_zone_unchanged", user_id=user.user_id)
    else:
        log.info("user.time_zone_set", user_id=user.user_id, time_zone=time_zone)
