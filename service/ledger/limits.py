"""Limits of one wallet, set by an admin in place of the usual ones."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.audit_events import AuditAction
from service.domain.limits import Limits, change_zone
from service.domain.wallets import Wallet, WalletStatus
from service.errors import NotFound, WalletClosed
from service.ledger.audit_events import AuditedCommand, Unchanged
from service.ledger.commands import Changes, Needs, State
from service.ledger.rules import require_anothers, require_requester, time_of

MOMENT = timedelta(milliseconds=1)


def with_zones(wallet: Wallet, at: datetime, *, own: str | None, owners: str | None) -> Wallet:
    """Sets the zone of the wallet itself and that of its owner. `at` is later than all that was counted in it."""
    changed = wallet._replace(time_zone=own, owner_time_zone=owners, updated_at=at)
    if changed.zone_name == wallet.zone_name:
        return changed
    return changed._replace(usage=change_zone(wallet.usage, at, wallet.zone, changed.zone))


def later_than(wallet: Wallet, at: datetime) -> datetime:
    """Returns the time itself, or the first one after all that has happened in the wallet."""
    return max(at, wallet.updated_at + MOMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideLimits(AuditedCommand):
    """Those that are None stay the usual ones; with no `limits` all of them do. What was used stays used.

    Another `time_zone` holds from the next payment on. The running day and month may last longer by it, never shorter.
    """

    owner_id: str
    currency: str
    limits: Limits | None
    # None: that of the owner, or else of the currency.
    time_zone: str | None = None

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), owned_wallets=((self.owner_id, self.currency),))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        wallet = state.wallet_in(self.owner_id, self.currency)
        if wallet is None:
            raise NotFound(f"{self.owner_id} has no wallet in {self.currency}")
        if wallet.status is WalletStatus.CLOSED:
            raise WalletClosed(wallet_id=wallet.id)
        if (wallet.limits, wallet.time_zone) == (self.limits, self.time_zone):
            raise Unchanged
        require_anothers(self.user_id, wallet.user_id)
        at = time_of(self.now, wallet)
        if self.time_zone != wallet.time_zone:
            # Later than every payment counted in the old zone: a payment's time decides which counter it is in.
            at = later_than(wallet, at)
        before = wallet.limits or Limits()
        details = {} if self.limits is None else self.limits._asdict()
        event = self.event(
            AuditAction.LIMITS_RESET if self.limits is None and self.time_zone is None else AuditAction.LIMITS_SET,
            wallet.id,
            at,
            user_id=self.owner_id,
            currency=self.currency,
            time_zone=self.time_zone,
            was_time_zone=wallet.time_zone,
            **details,
            **{f"was_{name}": value for name, value in before._asdict().items()},
        )
        changed = with_zones(wallet, at, own=self.time_zone, owners=wallet.owner_time_zone)
        return Changes(event, wallets=(changed._replace(limits=self.limits),))
