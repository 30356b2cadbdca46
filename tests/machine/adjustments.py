"""Rules of the machine: adjustments, reversals, and what admins do to wallets."""

from typing import Any

from hypothesis import strategies as st

from service.domain.adjustments import AdjustmentType
from service.domain.identifiers import Prefix, new_id
from service.domain.limits import Limits
from service.domain.returns import points_return_id_of
from service.domain.rewards import reward_id
from service.domain.wallets import Freeze
from service.ledger.adjustments import ApproveAdjustment, RejectAdjustment, RequestAdjustment
from service.ledger.limits import OverrideLimits
from service.ledger.reversals import ReverseOriginal
from service.ledger.user_limits import OverrideUserLimits, SetTimeZone
from service.ledger.wallet_life import CloseWallet, FreezeWallet, ReopenWallet, UnfreezeWallet
from tests.machine.base import ACTORS, AMOUNTS, ENDS, MONEY, OTHER_MONEY, TOKENS, USERS, WALLETS, WHICH, has_live, move
from tests.machine.conversions import ConversionRules
from tests.model.adjustments import Adjustment
from tests.model.books import CHOSEN_ZONES, REFERENCE, Thing
from tests.model.transfers import Transfer

_DETAILS: dict[str, Any] = {"category": None, "description": None, "metadata": {}}
# None is all that there is: nothing else empties a wallet, which only then can be closed.
_AMOUNTS = st.one_of(st.none(), AMOUNTS, AMOUNTS)
# With everything shut nothing happens any more.
_SHUT_AT_MOST = 4
_OWN_LIMITS = st.sampled_from((None, {"per_transaction": 200}, {"per_day": 500, "count_per_hour": 3}, {"per_day": 0}))


_OVERALL_LIMITS = st.sampled_from(
    (None, {"per_day": 900}, {"per_transaction": 700, "count_per_hour": 4}, {"per_day": 0})
)
# So often an adjustment is asked for with a key.
_ONE_IN = 3
_ZONES = st.sampled_from((None, *CHOSEN_ZONES))


def _can_be_reversed(thing: Thing) -> bool:
    return isinstance(thing, Adjustment | Transfer) and thing.status == "success" and thing.reversal is None


class AdjustmentRules(ConversionRules):
    def _by(self, user: int, token: int | None, *, reason: str | None = "A reason") -> tuple[str, dict[str, Any]]:
        """Who, and what a command says of them. The event's id is made with each command."""
        return self.users[user], {"user_id": self.users[user], "token_version": token, "reason": reason}

    @move(
        wallet=WALLETS, amount=_AMOUNTS, currency=OTHER_MONEY, is_credit=st.booleans(), is_admin=st.booleans(),
        user=USERS, token=TOKENS, ends=ENDS,
    )  # fmt: skip
    def request_adjustment(
        self, wallet: int, amount: int | None, currency: str | None, user: int, token: int | None, *,
        is_credit: bool, is_admin: bool, ends: bool,
    ) -> None:  # fmt: skip
        """Now and then with a key that somebody made. Not drawn, so that a seed plays what it always did."""
        name, purse = new_id(Prefix.ADJUSTMENT), self.purse(wallet)
        asker, by = self._by(user, token)
        minor = amount or max(1, self.paper.purses[purse].free)
        money = currency or self.paper.purses[purse].currency
        with_key = () if minor % _ONE_IN else (self.api_key, self.users[(user + 1) % len(self.users)])
        about: dict[str, Any] = {
            "adjustment_id": name,
            "wallet_id": purse,
            "amount": minor,
            "currency": money,
            "is_admin": is_admin,
            "api_key_id": with_key[0] if with_key else None,
            "makers": frozenset(with_key[1:]),
        }
        about |= {"type": AdjustmentType.CREDIT if is_credit else AdjustmentType.DEBIT}
        self.say(
            lambda common: RequestAdjustment(
                audit_event_id=new_id(Prefix.AUDIT_EVENT), entry_id=new_id(Prefix.ENTRY), **_DETAILS, **by, **about,
                **common,
            ),
            lambda: self.paper.request_adjustment(
                name, asker, token, purse, money, minor, is_credit=is_credit, is_admin=is_admin,
                with_key=with_key,
            ),
            name,
            by=asker,
            ends=ends,
        )  # fmt: skip

    @move(often=2, when=has_live(Adjustment), which=WHICH, user=USERS, token=TOKENS, ends=ENDS)
    def approve_adjustment(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        name = self.newest(which, Adjustment)
        asker, by = self._by(user, token)
        purse = self.paper.things[name].purse
        self.say(
            lambda common: ApproveAdjustment(
                adjustment_id=name, wallet_id=purse, audit_event_id=new_id(Prefix.AUDIT_EVENT),
                entry_id=new_id(Prefix.ENTRY), **by, **common,
            ),
            lambda: self.paper.approve(name, asker, token),
            name,
            by=asker,
            ends=ends,
        )  # fmt: skip

    @move(when=has_live(Adjustment), which=WHICH, user=USERS, token=TOKENS, ends=ENDS)
    def reject_adjustment(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        name = self.newest(which, Adjustment)
        asker, by = self._by(user, token)
        purse = self.paper.things[name].purse
        self.say(
            lambda common: RejectAdjustment(
                adjustment_id=name, wallet_id=purse, audit_event_id=new_id(Prefix.AUDIT_EVENT), **by, **common
            ),
            lambda: self.paper.reject(name, asker, token),
            name,
            ends=ends,
        )

    @move(
        often=2,
        when=lambda self: any(map(_can_be_reversed, self.paper.things.values())),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        is_forced=st.booleans(),
        ends=ENDS,
    )
    def reverse(self, which: int, user: int, token: int | None, *, is_forced: bool, ends: bool) -> None:
        name, original = new_id(Prefix.REVERSAL), self.newest(which, Adjustment, Transfer, best=_can_be_reversed)
        asker, by = self._by(user, token)
        giver, taker = self.paper.way_back(original)
        money = self.paper.purses[self.paper.things[original].purse].currency
        about: dict[str, Any] = {"from_wallet_id": giver, "to_wallet_id": taker, "is_forced": is_forced}
        thing, points = self.paper.things.get(original), (reward_id(original), points_return_id_of(original))
        about |= {"sender_id": thing.owner} if isinstance(thing, Transfer) else {}
        about |= {"currency": money}
        self.say(
            lambda common: ReverseOriginal(
                reversal_id=name, original_id=original, audit_event_id=new_id(Prefix.AUDIT_EVENT),
                out_entry_id=new_id(Prefix.ENTRY), in_entry_id=new_id(Prefix.ENTRY),
                house_entry_id=new_id(Prefix.ENTRY), **by, **about, **common,
            ),
            lambda: self.paper.reverse(name, asker, token, original, points, is_forced=is_forced),
            name,
            points[1],
            original,
            by=asker,
            ends=ends,
        )  # fmt: skip

    @move(
        when=lambda self: self.shut_purses() < _SHUT_AT_MOST,
        wallet=WALLETS,
        user=USERS,
        token=TOKENS,
        shut=st.sampled_from(("in", "out", "both")),
        ends=ENDS,
    )
    def freeze(self, wallet: int, user: int, token: int | None, shut: str, *, ends: bool) -> None:
        purse = self.purse(wallet)
        asker, by = self._by(user, token)
        self.say(
            lambda common: FreezeWallet(
                wallet_id=purse,
                freeze=Freeze(shut),
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                beside=tuple(self.paper.beside(purse)),
                **by,
                **common,
            ),
            lambda: self.paper.freeze(purse, asker, token, shut),
            ends=ends,
        )

    def shut_purses(self) -> int:
        return sum(purse.shut is not None for purse in self.paper.purses.values())

    @move(
        when=lambda self: any(purse.shut not in (None, "closed") for purse in self.paper.purses.values()),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        ends=ENDS,
    )
    def unfreeze(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        """What is shut, mostly: a ledger in which everything ends up frozen shows little."""
        shut = [name for name, purse in self.paper.purses.items() if purse.shut not in (None, "closed")]
        purse = shut[which % len(shut)]
        asker, by = self._by(user, token)
        self.say(
            lambda common: UnfreezeWallet(
                wallet_id=purse,
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                beside=tuple(self.paper.beside(purse)),
                **by,
                **common,
            ),
            lambda: self.paper.unfreeze(purse, asker, token),
            ends=ends,
        )

    @move(
        when=lambda self: self.shut_purses() < _SHUT_AT_MOST,
        which=WHICH,
        by=ACTORS,
        token=TOKENS,
        is_admin=st.booleans(),
        has_reason=st.booleans(),
        ends=ENDS,
    )
    def close(
        self, which: int, by: int | None, token: int | None, *, is_admin: bool, has_reason: bool, ends: bool
    ) -> None:  # fmt: skip
        """An empty one, mostly."""
        purses = self.paper.purses
        purse = sorted(self.wallets, key=lambda name: bool(purses[name].shut or purses[name].free))[which]
        owner = self.users.index(purses[purse].owner)
        asker, about = self._by(owner if by is None else by, token, reason="A reason" if has_reason else None)
        self.say(
            lambda common: CloseWallet(
                wallet_id=purse, is_admin=is_admin, audit_event_id=new_id(Prefix.AUDIT_EVENT), **about, **common
            ),
            lambda: self.paper.close(purse, asker, token, is_admin=is_admin, has_reason=has_reason),
            ends=ends,
        )

    @move(
        when=lambda self: any(purse.shut == "closed" for purse in self.paper.purses.values()),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        ends=ENDS,
    )
    def reopen(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        """One that is closed, mostly."""
        purses = self.paper.purses
        purse = sorted(self.wallets, key=lambda name: purses[name].shut != "closed")[which]
        asker, by = self._by(user, token)
        self.say(
            lambda common: ReopenWallet(
                wallet_id=purse,
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                beside=tuple(self.paper.beside(purse)),
                **by,
                **common,
            ),
            lambda: self.paper.reopen(purse, asker, token),
            ends=ends,
        )

    @move(user=USERS, token=TOKENS, zone=_ZONES, ends=ENDS)
    def set_time_zone(self, user: int, token: int | None, zone: str | None, *, ends: bool) -> None:
        asker, by = self._by(user, token, reason=None)
        self.say(
            lambda common: SetTimeZone(time_zone=zone, audit_event_id=new_id(Prefix.AUDIT_EVENT), **by, **common),
            lambda: self.paper.set_time_zone(asker, token, zone),
            ends=ends,
        )

    @move(owner=USERS, user=USERS, token=TOKENS, limits=_OVERALL_LIMITS, ends=ENDS)
    def set_overall_limits(
        self, owner: int, user: int, token: int | None, limits: dict[str, int] | None, *, ends: bool
    ) -> None:
        asker, by = self._by(user, token)
        theirs = self.users[owner]
        own = None if limits is None else Limits(**limits)
        self.say(
            lambda common: OverrideUserLimits(
                owner_id=theirs,
                currency=REFERENCE,
                limits=own,
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                **by,
                **common,
            ),
            lambda: self.paper.set_overall_limits(theirs, asker, token, limits),
            ends=ends,
        )

    @move(owner=USERS, currency=MONEY, user=USERS, token=TOKENS, limits=_OWN_LIMITS, ends=ENDS)
    def set_limits(
        self, owner: int, currency: str, user: int, token: int | None, limits: dict[str, int] | None, *, ends: bool
    ) -> None:
        asker, by = self._by(user, token)
        theirs = self.users[owner]
        own = None if limits is None else Limits(**limits)
        self.say(
            lambda common: OverrideLimits(
                owner_id=theirs, currency=currency, limits=own, audit_event_id=new_id(Prefix.AUDIT_EVENT), **by,
                **common,
            ),
            lambda: self.paper.set_limits(theirs, currency, asker, token, limits),
            ends=ends,
        )  # fmt: skip
