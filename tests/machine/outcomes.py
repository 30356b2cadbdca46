"""Rules of the machine: returns, and operations that people decide about."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.money import POINTS
from service.domain.operations import Verdict
from service.domain.returns import points_return_id_of, return_id_of
from service.domain.rewards import reward_id
from service.ledger.blocked_withdrawals import CancelWithdrawal, ReleaseWithdrawal
from service.ledger.returns import CollectReturn, NamedHold, TakeReturn
from service.ledger.reviews import AskAgain, DecideReview
from tests.machine.base import ENDS, TOKENS, USERS, WHICH, move
from tests.machine.rewards import RewardRules
from tests.model.books import Thing
from tests.model.holds import Hold
from tests.model.orders import Order
from tests.model.outcomes import Returned

# How many of the holds there are a return does not name: they were made while it was looked up.
_UNNAMED = st.sampled_from((0, 9, 1, 9, 0))
_OFF_BY = st.sampled_from((0, 0, 0, 0, 0, 1, 0, 0, 0))


def _can_be_returned(thing: Thing) -> bool:
    return isinstance(thing, Order) and thing.status == "success" and thing.returned is None


def _is_in_review(thing: Thing) -> bool:
    return isinstance(thing, Order) and thing.status == "requires_review"


def _may_go_out(thing: Thing) -> bool:
    return isinstance(thing, Order) and thing.is_out and thing.status in ("pending", "processing")


def _is_blocked(thing: Thing) -> bool:
    return isinstance(thing, Order) and thing.status == "blocked"


def _waits(thing: Thing) -> bool:
    return isinstance(thing, Returned) and thing.status == "requires_review"


class OutcomeRules(RewardRules):
    def _open_holds(self, purse: str, unnamed: int) -> list[str]:
        """As the service looks them up, newest first, without the `unnamed` newest."""
        things = self.paper.things
        found = [name for name in self.paper.of(Hold) if (things[name].purse, things[name].status) == (purse, "held")]
        return found[::-1][unnamed:]

    def _named(self, holds: Sequence[str]) -> tuple[NamedHold, ...]:
        return tuple(NamedHold(hold, new_id(Prefix.ENTRY), self.paper.thing(hold, Hold).to) for hold in holds)

    @move(
        often=4,
        when=lambda self: any(map(_can_be_returned, self.paper.things.values())),
        which=WHICH,
        off_by=_OFF_BY,
        unnamed=_UNNAMED,
        ends=ENDS,
    )
    def take_return(self, which: int, off_by: int, unnamed: int, *, ends: bool) -> None:
        order_name = self.newest(which, Order, best=_can_be_returned)
        name, order = return_id_of(order_name), self.paper.things[order_name]
        amount = order.amount + off_by
        said = Said(SaidEvent.RETURNED, None, amount, self.paper.purses[order.purse].currency, "ret_test")
        incident_id = new_id(Prefix.INCIDENT)
        holds = self._open_holds(order.purse, unnamed)
        self.say(
            lambda common: TakeReturn(
                operation_id=order_name,
                wallet_id=order.purse,
                user_id=order.owner,
                said=said,
                entry_id=new_id(Prefix.ENTRY),
                incident_id=incident_id,
                incident_event_id=new_id(Prefix.AUDIT_EVENT),
                freeze_event_id=new_id(Prefix.AUDIT_EVENT),
                holds=self._named(holds),
                **common,
            ),
            lambda: self.paper.take_return(
                name, order_name, amount, holds, reward_id(order_name), points_return_id_of(order_name)
            ),
            name,
            points_return_id_of(order_name),
            order_name,
            *holds,
            ends=ends,
        )

    @move(most=st.sampled_from((3, 0, 1, 3)))
    def change_debts_allowed(self, most: int) -> None:
        """Between two batches: returns that found no place may find one now."""
        self.commit()
        self.allow_debts(most)

    @move(
        often=4,
        when=lambda self: any(map(_waits, self.paper.things.values())),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        ends=ENDS,
    )
    def collect_return(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        """With all holds that are open."""
        name = self.newest(which, Returned, best=_waits)
        asker, by = self._by(user, token)
        purse = self.paper.things[name].purse
        # Points are taken from no holds.
        holds = [] if self.paper.purses[purse].currency == POINTS else self._open_holds(purse, 0)
        about: dict[str, Any] = {"return_id": name, "wallet_id": purse}
        self.say(
            lambda common: CollectReturn(
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                entry_id=new_id(Prefix.ENTRY),
                holds=self._named(holds),
                **by,
                **about,
                **common,
            ),
            lambda: self.paper.collect_return(name, asker, token, holds),
            name,
            *holds,
            by=asker,
            ends=ends,
        )

    @move(
        often=2,
        when=lambda self: any(map(_is_in_review, self.paper.things.values())),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        verdict=st.sampled_from(Verdict),
        ends=ENDS,
    )
    def decide_review(self, which: int, user: int, token: int | None, verdict: Verdict, *, ends: bool) -> None:
        name = self.newest(which, Order, best=_is_in_review)
        asker, by = self._by(user, token)
        purse = self.paper.things[name].purse
        self.say(
            lambda common: DecideReview(
                operation_id=name,
                wallet_id=purse,
                verdict=verdict,
                entry_id=new_id(Prefix.ENTRY),
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                **by,
                **common,
            ),
            lambda: self.paper.decide(name, asker, token, verdict),
            name,
            by=asker,
            ends=ends,
        )

    @move(
        when=lambda self: any(map(_is_in_review, self.paper.things.values())),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        ends=ENDS,
    )
    def ask_again(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        name = self.newest(which, Order, best=_is_in_review)
        asker, by = self._by(user, token)
        purse = self.paper.things[name].purse
        self.say(
            lambda common: AskAgain(
                operation_id=name, wallet_id=purse, audit_event_id=new_id(Prefix.AUDIT_EVENT), **by, **common
            ),
            lambda: self.paper.ask_again(name, asker, token),
            name,
            by=asker,
            ends=ends,
        )

    @move(
        often=2,
        when=lambda self: any(map(_may_go_out, self.paper.things.values())),
        which=WHICH,
        user=USERS,
        deactivates=st.booleans(),
        ends=ENDS,
    )
    def block(self, which: int, user: int, *, deactivates: bool, ends: bool) -> None:
        """What must not go out is about to be brought to the bank."""
        name = self.newest(which, Order, best=_may_go_out)
        if deactivates:
            self.let_act(self.users.index(self.paper.things[name].owner), is_active=False)
        else:
            self.freeze(self.wallets.index(self.paper.things[name].purse), user, None, "out", ends=False)
        self._say_begun(name, ends=ends)

    @move(
        often=3,
        when=lambda self: any(map(_is_blocked, self.paper.things.values())),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        is_forced=st.booleans(),
        ends=ENDS,
    )
    def release_blocked(self, which: int, user: int, token: int | None, *, is_forced: bool, ends: bool) -> None:
        name, asker, about = self._on_blocked(which, user, token)
        self.say(
            lambda common: ReleaseWithdrawal(
                audit_event_id=new_id(Prefix.AUDIT_EVENT), is_forced=is_forced, **about, **common
            ),
            lambda: self.paper.release_blocked(name, asker, token, is_forced=is_forced),
            name,
            by=asker,
            ends=ends,
        )

    @move(
        often=2,
        when=lambda self: any(map(_is_blocked, self.paper.things.values())),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        ends=ENDS,
    )
    def cancel_blocked(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        name, asker, about = self._on_blocked(which, user, token)
        self.say(
            lambda common: CancelWithdrawal(
                audit_event_id=new_id(Prefix.AUDIT_EVENT), entry_id=new_id(Prefix.ENTRY), **about, **common
            ),
            lambda: self.paper.cancel_blocked(name, asker, token),
            name,
            by=asker,
            ends=ends,
        )

    def _on_blocked(self, which: int, user: int, token: int | None) -> tuple[str, str, dict[str, Any]]:
        name = self.newest(which, Order, best=_is_blocked)
        asker, by = self._by(user, token)
        return name, asker, {"operation_id": name, "wallet_id": self.paper.things[name].purse, **by}
