"""Rules of the machine: returns, and operations that people decide about."""

from typing import Any

from hypothesis import strategies as st

from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.operations import Verdict
from service.domain.returns import return_id_of
from service.ledger.returns import CollectReturn, TakeReturn
from service.ledger.reviews import AskAgain, DecideReview
from tests.machine.base import ENDS, TOKENS, USERS, WHICH, move
from tests.machine.rewards import RewardRules
from tests.model.books import Thing
from tests.model.orders import Order
from tests.model.outcomes import Returned

_OFF_BY = st.sampled_from((0, 0, 0, 0, 0, 1, 0, 0, 0))


def _can_be_returned(thing: Thing) -> bool:
    return isinstance(thing, Order) and thing.status == "success" and thing.returned is None


def _is_in_review(thing: Thing) -> bool:
    return isinstance(thing, Order) and thing.status == "requires_review"


def _waits(thing: Thing) -> bool:
    return isinstance(thing, Returned) and thing.status == "requires_review"


class OutcomeRules(RewardRules):
    @move(
        when=lambda self: any(map(_can_be_returned, self.paper.things.values())), which=WHICH, off_by=_OFF_BY, ends=ENDS
    )
    def take_return(self, which: int, off_by: int, *, ends: bool) -> None:
        order_name = self.newest(which, Order, best=_can_be_returned)
        name, order = return_id_of(order_name), self.paper.things[order_name]
        amount = order.amount + off_by
        said = Said(SaidEvent.RETURNED, None, amount, self.paper.purses[order.purse].currency, "ret_test")
        incident_id = new_id(Prefix.INCIDENT)
        self.say(
            lambda common: TakeReturn(
                operation_id=order_name,
                wallet_id=order.purse,
                said=said,
                entry_id=new_id(Prefix.ENTRY),
                incident_id=incident_id,
                incident_event_id=new_id(Prefix.AUDIT_EVENT),
                freeze_event_id=new_id(Prefix.AUDIT_EVENT),
                **common,
            ),
            lambda: self.paper.take_return(name, order_name, amount),
            name,
            order_name,
            ends=ends,
        )

    @move(
        when=lambda self: any(map(_waits, self.paper.things.values())), which=WHICH, user=USERS, token=TOKENS, ends=ENDS
    )
    def collect_return(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        name = self.newest(which, Returned, best=_waits)
        asker, by = self._by(user, token)
        about: dict[str, Any] = {"return_id": name, "wallet_id": self.paper.things[name].purse}
        self.say(
            lambda common: CollectReturn(
                audit_event_id=new_id(Prefix.AUDIT_EVENT), entry_id=new_id(Prefix.ENTRY), **by, **about, **common
            ),
            lambda: self.paper.collect_return(name, asker, token),
            name,
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
