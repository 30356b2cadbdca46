"""On paper: one's own money from one currency into another, by a quote that holds for a time and is good for once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tests.model.books import Refused, Thing
from tests.model.holds import HoldPaper

EXCHANGE = "house:fx"


@dataclass
class Quote(Thing):
    """`amount` of the one currency brings `brings` of the other; `purse` is nobody's yet."""

    currency: str
    to_currency: str
    brings: int
    until: datetime
    conversion: str | None = None

    def shown(self) -> Mapping[str, object]:
        return {"status": self.status, "conversion_id": self.conversion}


@dataclass
class Conversion(Thing):
    to_amount: int

    def shown(self) -> Mapping[str, object]:
        return {"status": self.status, "amount": self.amount, "to_amount": self.to_amount}


class ConversionPaper(HoldPaper):
    def convert(self, name: str, user: str, token: int | None, quote_name: str) -> dict[str, object]:
        """It counts for the limits of the purse that gives: who keeps it in another one could let it out there."""
        self.require_asker(user, token)
        quote = self.thing(quote_name, Quote)
        if quote.owner != user:
            raise Refused("not_found")
        if quote.status == "used":
            raise Refused("quote_used")
        if self.now >= quote.until:
            raise Refused("quote_expired")
        source, target = self.purse_of(user, quote.currency), self.purse_of(user, quote.to_currency)
        if source is None or target is None:
            raise Refused("no_wallet_in_currency")
        self.require_may_spend(source, quote.amount, to_others=False)
        self.require_way_in(target)
        self.require_room(target, quote.brings)
        self.require_house_has(EXCHANGE, quote.to_currency, quote.brings)
        self.take(source, quote.amount, account=EXCHANGE)
        self.spend(source, name, quote.amount, to_others=False)
        self.give(target, quote.brings, account=EXCHANGE)
        quote.status, quote.conversion = "used", name
        self.things[name] = Conversion(user, source, quote.amount, "success", quote.brings)
        return {"amount": quote.amount, "to_amount": quote.brings}
