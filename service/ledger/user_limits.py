"""What a user sets for the limits of all of their wallets."""

from dataclasses import dataclass

from service.domain.audit_events import AuditAction
from service.domain.user_limits import UserLimits, new_user_limits, user_limits_id
from service.ledger.audit_events import AuditedCommand, Unchanged
from service.ledger.commands import Changes, Needs, State
from service.ledger.limits import later_than
from service.ledger.rules import require_requester


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimeZone(AuditedCommand):
    """The days and months of all of one's wallets begin in that zone from the next payment on; None: each currency's.

    A wallet in which an admin has set a zone keeps that one.
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
        at = max([self.now, *times] if known is None else [self.now, known.updated_at, *times])
        changed = (known or new_user_limits(self.user_id, at))._replace(time_zone=self.time_zone, updated_at=at)
        event = self.event(
            AuditAction.USER_TIME_ZONE_SET, self.user_id, at, time_zone=self.time_zone, was_time_zone=was
        )
        return Changes(
            changed,
            wallets=tuple(
                wallet._replace(owner_time_zone=self.time_zone, updated_at=then)
                for wallet, then in zip(wallets, times, strict=True)
            ),
            also=(event,),
        )
