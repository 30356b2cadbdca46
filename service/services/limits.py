"""Limits: what a wallet may still send, and the override that an admin sets for one user and currency."""

from datetime import datetime
from typing import NamedTuple

import structlog

from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.limits import Limits, LimitState, effective_limits, limit_states
from service.domain.policy import Policy
from service.domain.wallets import Wallet
from service.errors import NotFound
from service.ledger.audit_events import Unchanged
from service.ledger.committer import Ledger
from service.ledger.limits import OverrideLimits
from service.repositories import wallets as wallet_repository
from service.services.orders import Requester

log = structlog.get_logger()


class WalletLimits(NamedTuple):
    """`override` is None where the usual limits hold."""

    wallet: Wallet
    override: Limits | None
    states: tuple[LimitState, ...]


async def get_limits(wallet_id: str, owner_id: str | None, policy: Policy) -> WalletLimits:
    """Of anybody's wallet where no owner is named. Raises NotFound."""
    found = await (
        wallet_repository.find(wallet_id) if owner_id is None else wallet_repository.find_owned(wallet_id, owner_id)
    )
    if found is None:
        raise NotFound(f"There is no wallet {wallet_id}")
    return _limits_of(found, policy, utc_now())


async def override_limits(
    ledger: Ledger,
    user: Requester,
    owner_id: str,
    currency: str,
    limits: Limits,
    time_zone: str | None,
    reason: str | None,
    request_id: str | None,
) -> WalletLimits:
    """In place of the override before; with nothing in it, back to the usual ones. Repeating it is harmless.

    Raises NotFound where that user has no wallet in that currency, WalletClosed, SecondAdminRequired
    where it is one's own, and what Ledger.execute raises.
    """
    command = OverrideLimits(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        user_id=user.user_id,
        token_version=user.token_version,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=reason,
        owner_id=owner_id,
        currency=currency,
        limits=None if limits == Limits() else limits,
        time_zone=time_zone,
    )
    try:
        await ledger.execute(command)
    except Unchanged:
        log.info("limits.unchanged", user_id=owner_id, currency=currency)
    else:
        log.info("limits.overridden", user_id=owner_id, currency=currency, by=user.user_id)
    wallet = await wallet_repository.find_in(owner_id, currency)
    if wallet is None:
        raise NotFound(f"{owner_id} has no wallet in {currency}")
    return _limits_of(wallet, ledger.policy, utc_now())


def _limits_of(wallet: Wallet, policy: Policy, now: datetime) -> WalletLimits:
    limits = effective_limits(policy.limits_in(wallet.currency), wallet.limits)
    # As the next payment will count: never before what has happened in the wallet.
    return WalletLimits(
        wallet, wallet.limits, limit_states(limits, wallet.usage, max(now, wallet.updated_at), wallet.zone)
    )
