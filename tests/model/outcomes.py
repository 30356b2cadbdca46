"""On paper: what the bank sends back, and what people decide where it has said nothing or what cannot be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.model.books import MOST, Refused, Thing
from tests.model.orders import BANK, Order
from tests.model.rewards import HOUSE, RewardPaper


@dataclass
class Returned(Thing):
    """`order` is what was sent back, or the reward of which the points were; `missing` is what the purse still owes.

    `account` is where it comes from or goes to.
    """

    order: str
    is_in: bool
    account: str = BANK
    trouble: str | None = None
    missing: int = 0

    def shown(self) -> Mapping[str, object]:
        return {
            "status": self.status,
            "amount": self.amount,
            "operation_id": self.order,
            "trouble": self.trouble,
            "owed": self.missing,
        }


class OutcomePaper(RewardPaper):
    # Deposits taken back that a purse may owe for at a time.
    debts_at_most: int

    def take_return(
        self, name: str, order_name: str, amount: int, holds: Sequence[str], reward_name: str, points_name: str
    ) -> dict[str, object]:
        """The bank says that it has sent so much back. `holds` are those that may be taken from, in this order."""
        order = self.thing(order_name, Order)
        if order.status != "success" or amount != order.amount:
            raise Refused("illegal_transition")
        if order.returned is not None:
            return {}
        order.returned = name
        returned = Returned(order.owner, order.purse, order.amount, "success", order_name, order.is_out)
        self.things[name] = returned
        if order.is_out:
            self.unspend(order.purse, order_name)
        returned.trouble = self._trouble(returned)
        if returned.trouble is None and order.is_out:
            self.give(returned.purse, returned.amount, account=BANK)
            self.take_points(order_name, reward_name, points_name)
            return {}
        purse = self.purses[order.purse]
        purse.open.add(name)
        if returned.trouble is None:
            is_short = self._owe(name, returned, holds)
        else:
            is_short, returned.status = True, "requires_review"
        if is_short and not order.is_out:
            self._let_nothing_out([order.purse, *self.beside(order.purse)])
        self.take_points(order_name, reward_name, points_name)
        return {}

    def _let_nothing_out(self, names: Sequence[str]) -> None:
        for purse in map(self.purses.__getitem__, names):
            if purse.shut != "closed":
                purse.shut = "both" if purse.shut in ("in", "both") else "out"
                purse.freezes += 1

    def take_points(self, thing_name: str, reward_name: str, name: str) -> None:
        """What it had earned. Nobody is told by mail, and nothing is frozen."""
        self.nothing_awaited(thing_name, "reward")
        reward = self.things.get(reward_name)
        if reward is None or reward.status != "success":
            return
        points = Returned(reward.owner, reward.purse, reward.amount, "owed", reward_name, False, HOUSE)
        self.things[name] = points
        self.purses[points.purse].open.add(name)
        points.trouble = self._trouble(points)
        if points.trouble is None:
            self._owe(name, points, ())
        else:
            points.status = "requires_review"

    def _owe(self, name: str, returned: Returned, holds: Sequence[str]) -> bool:
        """All of it, before what is there is taken, also from holds. Whether that is too little."""
        purse = self.purses[returned.purse]
        returned.status, returned.missing = "owed", returned.amount
        purse.owes[name] = returned.amount
        for hold in holds:
            self.take_from(hold, sum(purse.owes.values()) - purse.free, name)
        is_short = sum(purse.owes.values()) > purse.free
        returned.trouble = "insufficient_funds" if is_short else None
        if is_short and returned.account == BANK:
            self.awaited[f"owed_notice:{name}"] = self.now
        return is_short

    def pay_debts(self) -> None:
        for name, purse in self.purses.items():
            while purse.owes and purse.free:
                debt = next(iter(purse.owes))
                returned = self.thing(debt, Returned)
                paid = min(purse.free, returned.missing)
                self.take(name, paid, account=returned.account)
                returned.missing -= paid
                purse.owes[debt] -= paid
                if not returned.missing:
                    returned.status, returned.trouble = "success", None
                    del purse.owes[debt]
                    purse.open.remove(debt)

    def unbooked(self, currency: str) -> int:
        returns = [self.thing(name, Returned) for name in self.of(Returned)]
        return sum(
            one.amount
            for one in returns
            if one.status == "requires_review"
            and not one.is_in
            and one.account == BANK
            and self.purses[one.purse].currency == currency
        )

    def require_nothing_returned_of(self, purses: Sequence[str]) -> None:
        super().require_nothing_returned_of(purses)
        returns = [self.thing(name, Returned) for name in self.of(Returned)]
        if any(one.purse in purses and one.status == "requires_review" and not one.is_in for one in returns):
            raise Refused("wallet_owes")

    def collect_return(self, name: str, user: str, token: int | None, holds: Sequence[str]) -> dict[str, object]:
        self.require_asker(user, token)
        returned = self.thing(name, Returned)
        if returned.status != "requires_review":
            raise Refused("illegal_transition")
        if user == self.purses[returned.purse].owner:
            raise Refused("second_admin_required")
        trouble = self._trouble(returned)
        if trouble is not None:
            raise Refused(trouble)
        if returned.is_in:
            self.give(returned.purse, returned.amount, account=BANK)
            returned.status, returned.trouble = "success", None
            self.purses[returned.purse].open.remove(name)
        else:
            self._owe(name, returned, holds)
        self.audited.append((user, "return.collected", name))
        # Before the answer is given.
        self.pay_debts()
        return {"status": returned.status}

    def _trouble(self, returned: Returned) -> str | None:
        purse = self.purses[returned.purse]
        if purse.shut == "closed":
            return "wallet_closed"
        if returned.is_in:
            return "balance_overflow" if purse.free + purse.aside + returned.amount > MOST else None
        is_full = len(purse.owes) >= self.debts_at_most or sum(purse.owes.values()) + returned.amount > MOST
        return "wallet_owes" if is_full else None

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

    # --- blocked before the bank had it

    def release_blocked(self, name: str, user: str, token: int | None, *, is_forced: bool) -> dict[str, object]:
        order = self._blocked(name, user, token)
        self.require_nothing_owed(order.purse)
        obstacles = self.obstacles(order)
        if obstacles and not is_forced:
            raise Refused("still_blocked")
        order.status, order.blocked_for, order.let_go_despite = "pending", None, frozenset(obstacles)
        order.let_go_at_freeze = self.purses[order.purse].freezes
        order.let_go_at_deactivation = self.persons[order.owner].deactivations
        self.await_bank(name)
        self.audited.append((user, "withdrawal.released", name))
        return {"status": "pending"}

    def cancel_blocked(self, name: str, user: str, token: int | None) -> dict[str, object]:
        order = self._blocked(name, user, token)
        self.put_back(order.purse, name, order.amount)
        order.status = "canceled"
        self.audited.append((user, "withdrawal.canceled", name))
        return {"status": "canceled"}

    def _blocked(self, name: str, user: str, token: int | None) -> Order:
        self.require_asker(user, token)
        order = self.thing(name, Order)
        if order.status != "blocked":
            raise Refused("illegal_transition")
        if user == order.owner:
            raise Refused("second_admin_required")
        return order

    def _in_review(self, name: str, user: str, token: int | None) -> Order:
        self.require_asker(user, token)
        order = self.thing(name, Order)
        if order.status != "requires_review":
            raise Refused("illegal_transition")
        return order
