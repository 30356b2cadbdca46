"""On paper: transfers, many of them under one key, and payments that wait for a code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.books import Refused
from tests.model.orders import CODE_LASTS, TRIES, Order, OrderPaper, Waiting


@dataclass
class Transfer(Waiting):
    to: str = ""
    reversal: str | None = None

    def shown(self) -> Mapping[str, object]:
        return {**super().shown(), "reversal_id": self.reversal}


class Wish(NamedTuple):
    """A transfer as it is asked for: to a purse, or to a person."""

    name: str
    purse: str
    to: str | None
    to_person: str | None
    currency: str
    amount: int
    asks_code: bool


class TransferPaper(OrderPaper):
    def request_transfer(self, user: str, token: int | None, wish: Wish) -> dict[str, object]:
        self.require_asker(user, token)
        self.require_own(wish.purse, user)
        purse = self.purses[wish.purse]
        if purse.currency != wish.currency:
            raise Refused("currency_mismatch")
        if wish.to == wish.purse or wish.to_person == user:
            raise Refused("same_wallet")
        self.require_may_spend(wish.purse, wish.amount)
        found = wish.to if wish.to is not None else self.purse_of(wish.to_person, wish.currency)
        to = self.require_payee(found, wish.amount, wish.currency)
        transfer = Transfer(user, wish.purse, wish.amount, "success", to=to)
        self.things[wish.name] = transfer
        if wish.asks_code:
            transfer.status, transfer.tries = "requires_approval", TRIES
            self.set_aside(wish.purse, wish.name, wish.amount)
            self.await_answer(wish.name, self.now + CODE_LASTS)
        else:
            self.spend(wish.purse, wish.name, wish.amount)
            self.take(wish.purse, wish.amount)
            self.give(to, wish.amount)
            self.paid(wish.name, transfer)
        return {"status": transfer.status, "amount": wish.amount, "from_wallet_id": wish.purse, "to_wallet_id": to}

    def require_own(self, purse: str, user: str) -> None:
        if purse not in self.purses or self.purses[purse].owner != user:
            raise Refused("not_found")

    def paid(self, name: str, transfer: Transfer) -> None:
        """For what may come of a payment."""

    def request_batch(
        self, user: str, token: int | None, wishes: Sequence[Wish], *, is_all_or_nothing: bool
    ) -> dict[str, object]:
        """In the order given, each on what those before it left."""
        results = []
        with self.undone_when_refused():
            for wish in wishes:
                try:
                    self.request_transfer(user, token, wish)
                    results.append(True)
                except Refused as refusal:
                    if refusal.code in ("account_deactivated", "unauthenticated"):
                        raise
                    if is_all_or_nothing:
                        raise Refused("transfer_batch_refused") from None
                    results.append(False)
        return {"accepted": results.count(True), "refused": results.count(False)}

    # --- answers to a code

    def confirm(self, name: str, user: str, token: int | None, *, is_right: bool) -> dict[str, object]:
        payment = self._own_payment(name, user, token)
        if payment.status != "requires_approval":
            raise Refused("illegal_transition")
        if self.now >= self.awaited[f"expiry:{name}"]:
            self._call_off(name, payment)
            raise Refused("approval_lapsed")
        if not is_right:
            payment.tries -= 1
            if payment.tries:
                raise Refused("invalid_code")
            self._call_off(name, payment)
            raise Refused("too_many_tries")
        self.require_way_out(payment.purse)
        if isinstance(payment, Transfer):
            to = self.require_payee(payment.to, payment.amount, self.purses[payment.purse].currency)
            self.let_go(payment.purse, name, payment.amount)
            self.give(to, payment.amount)
            payment.status = "success"
            self.nothing_awaited(name)
            self.paid(name, payment)
        else:
            payment.status = "pending"
            self.nothing_awaited(name)
            self.await_bank(name)
        payment.tries = 0
        return {"status": payment.status}

    def cancel(self, name: str, user: str, token: int | None) -> dict[str, object]:
        """A withdrawal also while it waits to go to the bank, or must not go there; which has not heard of it."""
        payment = self._own_payment(name, user, token)
        unheard = isinstance(payment, Order) and payment.is_out and not payment.asked_bank
        unheard = unheard and payment.status in ("pending", "blocked")
        if payment.status != "requires_approval" and not unheard:
            raise Refused("illegal_transition")
        self._call_off(name, payment)
        return {"status": "canceled"}

    def lapse(self, name: str) -> dict[str, object]:
        payment = self.thing(name, Waiting)
        if payment.status != "requires_approval":
            return {}
        if self.now < self.awaited[f"expiry:{name}"]:
            raise Refused("illegal_transition")
        self._call_off(name, payment)
        return {}

    def _own_payment(self, name: str, user: str, token: int | None) -> Waiting:
        self.require_asker(user, token)
        payment = self.thing(name, Waiting)
        if payment.owner != user:
            raise Refused("not_found")
        return payment

    def _call_off(self, name: str, payment: Waiting) -> None:
        """After a wrong code it stays one operation of its hour."""
        was_tried = payment.status == "requires_approval" and payment.tries < TRIES
        self.put_back(payment.purse, name, payment.amount, still_counts=was_tried)
        self.nothing_awaited(name)
        payment.status, payment.tries = "canceled", 0
