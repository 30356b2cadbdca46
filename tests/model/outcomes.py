"""On paper: what the bank sends back, and what people decide where it has said nothing or what cannot be."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.model.books import MOST, Refused, Thing
from tests.model.orders import BANK, Order
from tests.model.rewards import RewardPaper


@dataclass
class Returned(Thing):
    """`order` is what was sent back."""

    order: str
    trouble: str | None = None

    def shown(self) -> Mapping[str, object]:
        return {"status": self.status, "amount": self.amount, "operation_id": self.order, "trouble": self.trouble}


class OutcomePaper(RewardPaper):
    def take_return(self, name: str, order_name: str, amount: int) -> dict[str, object]:
        """The bank says that it has sent so much back."""
        order = self.thing(order_name, Order)
        if order.status != "success" or amount != order.amount:
            raise Refused("illegal_transition")
        if order.returned is not None:
            return {}
        order.returned = name
        returned = Returned(order.owner, order.purse, order.amount, "success", order_name)
        self.things[name] = returned
        if order.is_out:
            self.unspend(order.purse, order_name)
        returned.trouble = self._trouble(returned)
        if returned.trouble is None:
            self._book(returned)
            return {}
        returned.status = "requires_review"
        purse = self.purses[order.purse]
        purse.open.add(name)
        if not order.is_out and purse.shut != "closed":
            purse.shut = {None: "out", "in": "both"}.get(purse.shut, purse.shut)
        return {}

    def collect_return(self, name: str, user: str, token: int | None) -> dict[str, object]:
        self.require_asker(user, token)
        returned = self.thing(name, Returned)
        if returned.status != "requires_review":
            raise Refused("illegal_transition")
        if user == self.purses[returned.purse].owner:
            raise Refused("second_admin_required")
        trouble = self._trouble(returned)
        if trouble is not None:
            raise Refused(trouble)
        self._book(returned)
        returned.status, returned.trouble = "success", None
        self.purses[returned.purse].open.remove(name)
        self.audited.append((user, "return.collected", name))
        return {"status": "success"}

    def _trouble(self, returned: Returned) -> str | None:
        purse = self.purses[returned.purse]
        if purse.shut == "closed":
            return "wallet_closed"
        if self.thing(returned.order, Order).is_out:
            return "balance_overflow" if purse.free + purse.aside + returned.amount > MOST else None
        return "insufficient_funds" if purse.free < returned.amount else None

    def _book(self, returned: Returned) -> None:
        is_in = self.thing(returned.order, Order).is_out
        self.give(returned.purse, returned.amount if is_in else -returned.amount, account=BANK)

    # --- decided by people

    def decide(self, name: str, user: str, token: int | None, verdict: str) -> dict[str, object]:
        order = self._in_review(name, user, token)
        if user == order.owner:
            raise Refused("second_admin_required")
        purse = self.purses[order.purse]
        bound = self.second_admin_above.get(purse.currency)
        if bound is not None and order.amount > bound:
            if order.proposal is None or order.proposal[0] != verdict:
                order.proposal = verdict, user
                self.audited.append((user, "review.proposed", name))
                return {"status": "requires_review"}
            if order.proposal[1] == user:
                raise Refused("second_admin_required")
        if verdict == "settle":
            if not order.is_out and purse.shut == "closed":
                raise Refused("wallet_closed")
            if not order.is_out:
                self.require_room(order.purse, order.amount)
            self.carry_out(name, order)
        else:
            self.come_to_nothing(name, order)
        order.proposal = None
        self.audited.append((user, "review.settled" if verdict == "settle" else "review.failed", name))
        return {"status": order.status}

    def ask_again(self, name: str, user: str, token: int | None) -> dict[str, object]:
        order = self._in_review(name, user, token)
        if user == order.owner:
            raise Refused("second_admin_required")
        order.status, order.proposal = "processing", None
        self.await_bank(name)
        self.audited.append((user, "review.asked_again", name))
        return {"status": "processing"}

    def _in_review(self, name: str, user: str, token: int | None) -> Order:
        self.require_asker(user, token)
        order = self.thing(name, Order)
        if order.status != "requires_review":
            raise Refused("illegal_transition")
        return order
