"""On paper: deposits and withdrawals, and what the bank says of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.model.books import MOST, Paper, Refused, Thing

BANK = "bank"
CODE_LASTS = timedelta(minutes=5)
# Fewer than the service gives, or they would hardly ever be used up.
TRIES = 2
# For so long what was brought to the bank may still get there.
IN_FLIGHT = timedelta(seconds=20)


@dataclass
class Waiting(Thing):
    """A payment that may have to be confirmed; with `tries` it still has to."""

    tries: int = 0

    def shown(self) -> Mapping[str, object]:
        return {"status": self.status, "tries_left": self.tries or None}


@dataclass
class Order(Waiting):
    """`is_out`: a withdrawal."""

    is_out: bool = False
    asked_bank: int = 0
    # What one admin wants to become of it, and who.
    proposal: tuple[str, str] | None = None
    # The name of what the bank sent back.
    returned: str | None = None
    # When it was last brought to the bank.
    sent_at: datetime | None = None
    # Why it must not be brought there, and what an admin let it go there despite of.
    blocked_for: str | None = None
    let_go_despite: frozenset[str] = frozenset()
    # How often its purse had been frozen then: a later freeze is an obstacle again.
    let_go_at_freeze: int = 0
    # How often its owner had been deactivated then.
    let_go_at_deactivation: int = 0

    def shown(self) -> Mapping[str, object]:
        shown = {**super().shown(), "attempts": self.asked_bank, "return_id": self.returned}
        return shown | {"failure_code": self.blocked_for} if self.status == "blocked" else shown


class OrderPaper(Paper):
    def request_deposit(self, name: str, user: str, token: int | None, currency: str, amount: int) -> dict[str, object]:
        """Nothing moves before the bank has the money."""
        self.require_asker(user, token)
        purse = self._require_purse(user, currency)
        if currency in self.not_dealt_in:
            raise Refused("currency_not_offered")
        self.require_way_in(purse)
        self.require_room(purse, amount)
        self.things[name] = Order(user, purse, amount, "pending")
        self.purses[purse].open.add(name)
        self.await_bank(name)
        return {"status": "pending", "amount": amount}

    def request_withdrawal(
        self, name: str, user: str, token: int | None, currency: str, amount: int, *, asks_code: bool
    ) -> dict[str, object]:
        self.require_asker(user, token)
        purse = self._require_purse(user, currency)
        self.require_may_spend(purse, amount)
        self.require_house_has(BANK, currency, amount)
        self.set_aside(purse, name, amount)
        order = Order(user, purse, amount, "pending", is_out=True)
        self.things[name] = order
        if asks_code:
            order.status, order.tries = "requires_approval", TRIES
            self.await_answer(name, self.now + CODE_LASTS)
        else:
            self.await_bank(name)
        return {"status": order.status, "amount": amount}

    def promised(self, currency: str) -> int:
        orders = [self.thing(name, Order) for name in self.of(Order)]
        ended = ("success", "failed", "canceled")
        return sum(
            one.amount
            for one in orders
            if one.is_out and one.status not in ended and self.purses[one.purse].currency == currency
        )

    def _require_purse(self, user: str, currency: str) -> str:
        purse = self.purse_of(user, currency)
        if purse is None:
            raise Refused("no_wallet_in_currency")
        return purse

    def begin(self, name: str) -> dict[str, object]:
        order = self.thing(name, Order)
        if order.status not in ("pending", "processing"):
            raise Refused("illegal_transition")
        despite = order.let_go_despite
        if self.purses[order.purse].freezes != order.let_go_at_freeze:
            despite -= {"wallet_frozen"}
        if self.persons[order.owner].deactivations != order.let_go_at_deactivation:
            despite -= {"user_deactivated"}
        obstacles = [one for one in self.obstacles(order) if one not in despite]
        if order.is_out and obstacles:
            if order.sent_at is not None and self.now < order.sent_at + IN_FLIGHT:
                raise Refused("may_be_under_way")
            order.status, order.blocked_for = "blocked", obstacles[0]
            self.nothing_awaited(name, "bank_order")
            return {}
        order.status, order.sent_at = "processing", self.now
        order.asked_bank += 1
        return {}

    def obstacles(self, order: Order) -> list[str]:
        """Why nothing of its purse may go to the bank now."""
        deactivated = ["user_deactivated"] if self.purses[order.purse].owner not in self.people else []
        frozen = ["wallet_frozen"] if self.purses[order.purse].shut in ("out", "both") else []
        return deactivated + frozen + (["wallet_owes"] if self.purses[order.purse].owes else [])

    def settle(self, name: str, amount: int) -> dict[str, object]:
        """The bank says that it has paid so much."""
        order = self.thing(name, Order)
        if not self._hear_bank(name, order, "success", amount):
            return {}
        purse = self.purses[order.purse]
        if not order.is_out and (purse.shut == "closed" or purse.free + purse.aside + amount > MOST):
            # The bank has it and we cannot take it: somebody has to look.
            order.status = "requires_review"
            return {}
        self.carry_out(name, order)
        return {}

    def carry_out(self, name: str, order: Order) -> None:
        """What was asked for has happened."""
        if order.is_out:
            self.let_go(order.purse, name, order.amount, account=BANK)
        else:
            self.purses[order.purse].open.remove(name)
            self.give(order.purse, order.amount, account=BANK)
        order.status, order.proposal = "success", None
        self.settled(name, order)

    def settled(self, name: str, order: Order) -> None:
        """For what may come of it."""

    def fail(self, name: str, amount: int | None) -> dict[str, object]:
        """The bank says that it won't pay; it says nothing of an amount where it never took the order."""
        order = self.thing(name, Order)
        if self._hear_bank(name, order, "failed", amount):
            self.come_to_nothing(name, order)
        return {}

    def come_to_nothing(self, name: str, order: Order) -> None:
        if order.is_out:
            self.put_back(order.purse, name, order.amount)
        else:
            self.purses[order.purse].open.remove(name)
        order.status, order.proposal = "failed", None

    def _hear_bank(self, name: str, order: Order, word: str, amount: int | None) -> bool:
        """Whether its word changes anything."""
        agrees = amount in (None, order.amount)
        is_undone = word == "failed" and order.status == "canceled" and order.asked_bank
        if (order.status == word or is_undone) and agrees:
            self.nothing_awaited(name, "bank_order")
            return False
        if order.status not in ("pending", "processing", "blocked", "requires_review") or not order.asked_bank:
            # Of what it was never asked for it can say nothing.
            raise Refused("illegal_transition")
        self.nothing_awaited(name, "bank_order")
        if not agrees:
            order.status = "requires_review"
        return agrees

    def review(self, name: str) -> dict[str, object]:
        order = self.thing(name, Order)
        if order.status not in ("pending", "processing", "requires_review"):
            raise Refused("illegal_transition")
        order.status = "requires_review"
        self.nothing_awaited(name, "bank_order")
        return {}
