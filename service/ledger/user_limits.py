"""Limits of a user over all of their wallets: the zone that they set, and an admin's override of the usual ones."""

from dataclasses import dataclass

from service.domain.audit_events import AuditAction
from service.domain.limits import Limits
from service.domain.user_limits import UserLimits, new_user_limits, user_limits_id, with_zone
from service.errors import NotFound
from service.ledger.audit_events import AuditedCommand, Unchanged
from service.ledger.commands import Changes, Needs, State
from service.ledger.limits import MOMENT, later_than, with_zones
from service.ledger.rules import require_anothers, require_requester


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimeZone(AuditedCommand):
    """The days and months of all of one's wallets begin in that zone from the next payment on. None restores the zone
    of each currency.

    A wallet in which an admin has set a zone keeps that one. The running day and month may last longer by the change,
    never shorter.
    """

    time_zone: str | None

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), all_wallets_of=(self.user_id,), records=(user_limits_id(self.user_id),))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        known = state.record(user_limits_id(self.user_id), UserLimits)
        was = None if known is None else known.time_zone
        if was == self.time_zone:
            raise Unchanged
        wallets = state.wallets_of(self.user_id)
        # Later than every payment counted in the old zone: a payment's time decides which counter it is in.
        times = [later_than(wallet, self.now) for wallet in wallets]
        counted_until = [] if known is None else [known.updated_at + MOMENT]
        at = max([self.now, *times, *counted_until])
        changed = with_zone(known or new_user_limits(self.user_id, at), self.time_zone, at)
        event = self.event(
            AuditAction.USER_TIME_ZONE_SET, self.user_id, at, time_zone=self.time_zone, was_time_zone=was
        )
        return Changes(
            changed,
            wallets=tuple(
                with_zones(wallet, then, own=wallet.time_zone, owners=self.time_zone)
                for wallet, then in zip(wallets, times, strict=True)
            ),
            also=(event,),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideUserLimits(AuditedCommand):
    """A None ceiling keeps the usual limit. `limits=None` removes the override. What was used stays used.

    It writes all of the user's wallets, also those that are marked already, so that a payment at this moment either
    commits before it or sees it.
    """

    owner_id: str
    currency: str
    limits: Limits | None

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), all_wallets_of=(self.owner_id,), records=(user_limits_id(self.owner_id),))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        wallets = state.wallets_of(self.owner_id)
        if not wallets:
            raise NotFound(f"There is no user {self.owner_id} with a wallet")
        known = state.record(user_limits_id(self.owner_id), UserLimits)
        was = None if known is None else known.limits
        was_currency = None if known is None else known.limits_currency
        currency = None if self.limits is None else self.currency
        if (was, was_currency) == (self.limits, currency):
            raise Unchanged
        require_anothers(self.user_id, self.owner_id)
        at = self.now if known is None else max(self.now, known.updated_at)
        changed = (known or new_user_limits(self.owner_id, at))._replace(
            limits=self.limits, limits_currency=currency, updated_at=at
        )
        event = self.event(
            AuditAction.USER_LIMITS_RESET if self.limits is None else AuditAction.USER_LIMITS_SET,
            self.owner_id,
            at,
            currency=currency,
            was_currency=was_currency,
            **(self.limits or Limits())._asdict(),
            **{f"was_{name}": value for name, value in (was or Limits())._asdict().items()},
        )
        marked = tuple(
            wallet._replace(counts_for_owner=True, updated_at=later_than(wallet, self.now)) for wallet in wallets
        )
        return Changes(changed, wallets=marked, also=(event,))
