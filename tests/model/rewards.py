"""On paper: points for what has settled, and vouchers that take them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from tests.model.adjustments import AdjustmentPaper
from tests.model.books import MOST, Refused, Thing
from tests.model.orders import Order, Waiting
from tests.model.transfers import Transfer

POINTS = "PTS"
HOUSE = "house:rewards"


class Earning(NamedTuple):
    """So many points for each whole `per_amount`, from `minimum` on and never more than `at_most`."""

    name: str
    on: str
    currency: str
    per_amount: int
    points: int
    at_most: int
    minimum: int


@dataclass
class Reward(Thing):
    def shown(self) -> Mapping[str, object]:
        return {"status": self.status, "points": self.amount}


@dataclass
class Voucher(Thing):
    """`amount` is what it costs."""

    stock: int
    stocked: int
    each_at_most: int | None
    begins: datetime | None
    ends: datetime | None
    is_active: bool = True

    def shown(self) -> Mapping[str, object]:
        return {
            "stock": self.stock, "stocked_total": self.stocked, "is_active": self.is_active, "cost": self.amount,
        }  # fmt: skip


@dataclass
class VoucherUse(Thing):
    """How often somebody had one, which is its amount."""

    def shown(self) -> Mapping[str, object]:
        return {"user_id": self.owner, "redeemed": self.amount}


@dataclass
class Redemption(Thing):
    def shown(self) -> Mapping[str, object]:
        return {"cost": self.amount, "wallet_id": self.purse}


class RewardPaper(AdjustmentPaper):
    earnings: list[Earning]

    def earned(self, thing: Waiting) -> int:
        on = "transfer" if isinstance(thing, Transfer) else "withdrawal" if self._is_out(thing) else "deposit"
        currency = self.purses[thing.purse].currency
        return sum(
            min(thing.amount // earning.per_amount * earning.points, earning.at_most)
            for earning in self.earnings
            if (earning.on, earning.currency) == (on, currency) and thing.amount >= earning.minimum
        )

    def _is_out(self, thing: Waiting) -> bool:
        return isinstance(thing, Order) and thing.is_out

    def paid(self, name: str, transfer: Transfer) -> None:
        self._await_reward(name, transfer)

    def settled(self, name: str, order: Order) -> None:
        self._await_reward(name, order)

    def _await_reward(self, name: str, thing: Waiting) -> None:
        if self.earned(thing):
            self.awaited[f"reward:{name}"] = self.now

    def earn(self, name: str, thing_name: str, user: str) -> dict[str, object]:
        """Once for each thing, however often it is asked for."""
        thing = self.thing(thing_name, Waiting)
        if thing.owner != user:
            raise Refused("not_found")
        points = self.earned(thing)
        is_returned = isinstance(thing, Order) and thing.returned is not None
        is_reversed = isinstance(thing, Transfer) and thing.reversal is not None
        if name not in self.things and not is_returned and not is_reversed and points and thing.status == "success":
            purse_name = self.purse_of(user, POINTS)
            if purse_name is None:
                raise Refused("no_wallet_in_currency")
            purse = self.purses[purse_name]
            is_lost = purse.shut == "closed" or purse.free + purse.aside + points > MOST
            self.things[name] = Reward(user, purse_name, points, "lapsed" if is_lost else "success")
            if not is_lost:
                self.give(purse_name, points, account=HOUSE)
        self.nothing_awaited(thing_name, "reward")
        return {}

    # --- vouchers

    def create_voucher(self, name: str, user: str, token: int | None, voucher: Voucher) -> dict[str, object]:
        self.require_asker(user, token)
        self._require_order(voucher.begins, voucher.ends)
        self.things[name] = voucher
        self.audited.append((user, "voucher.created", name))
        return {"stock": voucher.stock}

    def _require_order(self, begins: datetime | None, ends: datetime | None) -> None:
        if begins is not None and ends is not None and begins >= ends:
            raise Refused("invalid_fields")

    def update_voucher(
        self, name: str, user: str, token: int | None, more: int, *, is_active: bool
    ) -> dict[str, object]:
        self.require_asker(user, token)
        voucher = self.thing(name, Voucher)
        if voucher.stock + more < 0:
            raise Refused("voucher_stock_too_low")
        voucher.stock += more
        voucher.stocked += more
        self.audited.append((user, "voucher.changed", name))
        voucher.is_active = is_active
        return {"stock": voucher.stock, "is_active": is_active}

    def redeem(self, name: str, use: str, voucher_name: str, user: str, token: int | None) -> dict[str, object]:
        self.require_asker(user, token)
        voucher = self.thing(voucher_name, Voucher)
        is_early = voucher.begins is not None and self.now < voucher.begins
        is_late = voucher.ends is not None and self.now >= voucher.ends
        if not voucher.is_active or is_early or is_late:
            raise Refused("voucher_not_valid")
        if voucher.stock == 0:
            raise Refused("voucher_sold_out")
        redeemed = self.things[use].amount if use in self.things else 0
        if voucher.each_at_most is not None and redeemed >= voucher.each_at_most:
            raise Refused("voucher_limit_reached")
        purse = self.purse_of(user, POINTS)
        if purse is None:
            raise Refused("no_wallet_in_currency")
        self.require_way_out(purse)
        self.require_money(purse, voucher.amount)
        self.take(purse, voucher.amount, account=HOUSE)
        voucher.stock -= 1
        self.things[use] = VoucherUse(user, "", redeemed + 1, "")
        self.things[name] = Redemption(user, purse, voucher.amount, "success")
        return {"cost": voucher.amount}
