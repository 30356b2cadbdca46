"""On paper: money set aside for somebody, or for the house, until it is captured, given back or over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.model.books import Refused, Thing
from tests.model.transfers import TransferPaper

REVENUE = "house:revenue"


@dataclass
class Hold(Thing):
    """For the house where `to` is None."""

    to: str | None
    until: datetime
    captured: int = 0
    # What returns of the payer's deposits took of it: which return, how much.
    taken: list[tuple[str, int]] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.amount - sum(amount for _, amount in self.taken)

    def shown(self) -> Mapping[str, object]:
        taken = [{"return_id": name, "amount": amount} for name, amount in self.taken]
        return {"status": self.status, "captured_amount": self.captured, "to_wallet_id": self.to, "takings": taken}


class HoldPaper(TransferPaper):
    # By currency: a payment above it takes a code, which a hold has none of.
    code_above: dict[str, int]

    def request_hold(
        self, name: str, user: str, token: int | None, purse: str, to: str | None, currency: str, amount: int,
        lasts: timedelta,
    ) -> dict[str, object]:  # fmt: skip
        self.require_asker(user, token)
        self.require_own(purse, user)
        if self.purses[purse].currency != currency:
            raise Refused("currency_mismatch")
        if to == purse:
            raise Refused("same_wallet")
        if currency in self.code_above and amount > self.code_above[currency]:
            raise Refused("hold_above_step_up")
        self.require_may_spend(purse, amount)
        if to is not None:
            self.require_payee(to, amount, currency)
        self.set_aside(purse, name, amount)
        self.things[name] = Hold(user, purse, amount, "held", to, self.now + lasts)
        self.await_end(name, self.now + lasts)
        return {"status": "held", "amount": amount}

    def capture(
        self, name: str, user: str, token: int | None, amount: int | None, to: str | None, *, for_house: bool
    ) -> dict[str, object]:
        hold = self._open_hold(name, user, token, for_house=for_house)
        amount = hold.left if amount is None else amount
        if amount > hold.left:
            raise Refused("capture_exceeds_hold")
        if to is not None and hold.to is not None:
            raise Refused("recipient_already_named")
        if to == hold.purse:
            raise Refused("same_wallet")
        # What is promised is paid also where the payer is kept from paying anything new; to whom it was promised only
        # now is new.
        if self.purses[hold.purse].owes and user != hold.owner:
            # What somebody owes is nobody else's business.
            raise Refused("payer_cannot_pay")
        self.require_nothing_owed(hold.purse)
        if to is not None:
            self.require_way_out(hold.purse)
        if self.purses[hold.purse].shut == "both":
            raise Refused("wallet_frozen")
        payee = hold.to or to
        if payee is not None:
            self.require_payee(payee, amount, self.purses[hold.purse].currency)
        purse, rest = self.purses[hold.purse], hold.left - amount
        self.let_go(hold.purse, name, amount, account=REVENUE if payee is None else None)
        purse.aside -= rest
        purse.free += rest
        self.spend_only(hold.purse, name, amount)
        if payee is not None:
            self.give(payee, amount)
        hold.status, hold.captured, hold.to = "captured", amount, payee
        self._account_for(name, hold, user, "hold.captured")
        self.nothing_awaited(name)
        return {"status": "captured", "captured_amount": amount}

    def take_from(self, name: str, most: int, return_name: str) -> None:
        """For a return of a deposit of the payer's."""
        hold = self.thing(name, Hold)
        if hold.status != "held" or most <= 0:
            return
        amount, purse = min(most, hold.left), self.purses[hold.purse]
        hold.taken.append((return_name, amount))
        if hold.to is not None:
            self.awaited[f"hold_notice:{name}:{return_name}"] = self.now
        if not hold.left:
            self.put_back(hold.purse, name, amount)
            hold.status = "taken"
            self.nothing_awaited(name)
            return
        purse.aside -= amount
        purse.free += amount
        self.spend_only(hold.purse, name, hold.left)

    def release(self, name: str, user: str, token: int | None, *, for_house: bool) -> dict[str, object]:
        """By whom it is for; by its payer only where nobody was promised anything."""
        hold = self._open_hold(name, user, token, for_house=for_house)
        if hold.to is not None and not for_house and user != self.purses[hold.to].owner:
            raise Refused("hold_guaranteed")
        self._undo(name, hold, "released")
        self._account_for(name, hold, user, "hold.released")
        return {"status": "released"}

    def expire(self, name: str) -> dict[str, object]:
        hold = self.thing(name, Hold)
        if hold.status == "held":
            if self.now < hold.until:
                raise Refused("illegal_transition")
            self._undo(name, hold, "expired")
        return {}

    def _open_hold(self, name: str, user: str, token: int | None, *, for_house: bool) -> Hold:
        self.require_asker(user, token)
        hold = self.thing(name, Hold)
        if not for_house and user != hold.owner and (hold.to is None or user != self.purses[hold.to].owner):
            raise Refused("not_found")
        if hold.status == "expired":
            raise Refused("hold_expired")
        if hold.status != "held":
            raise Refused("illegal_transition")
        if self.now >= hold.until:
            self._undo(name, hold, "expired")
            self._account_for(name, hold, user, "hold.released")
            raise Refused("hold_expired")
        return hold

    def _account_for(self, name: str, hold: Hold, user: str, action: str) -> None:
        """Whoever is not its payer moves another's money."""
        if user != hold.owner:
            self.audited.append((user, action, name))

    def _undo(self, name: str, hold: Hold, status: str) -> None:
        self.put_back(hold.purse, name, hold.left)
        hold.status = status
        self.nothing_awaited(name)
