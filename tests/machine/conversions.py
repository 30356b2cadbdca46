"""Rules of the machine: quotes and conversions."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from service.domain.identifiers import Prefix, new_id
from service.ledger.conversions import ConvertMoney
from tests.factories import build_quote
from tests.machine.base import ACTORS, AMOUNTS, ENDS, TOKENS, WHICH, move
from tests.machine.holds import HoldRules
from tests.model.books import MOST
from tests.model.conversions import Quote

# Who wants what for what; the last has no wallet for it.
_WISHES = st.sampled_from(
    ((0, "INR", "USD"), (0, "USD", "JPY"), (0, "JPY", "INR"), (1, "INR", "USD"), (1, "USD", "INR"), (2, "INR", "JPY"),
     (3, "INR", "USD"))
)  # fmt: skip
_BROUGHT = st.one_of(AMOUNTS, AMOUNTS, st.just(MOST))
_LASTS_S = st.sampled_from((30, 30, 300))


class ConversionRules(HoldRules):
    @move(wish=_WISHES, amount=AMOUNTS, brings=_BROUGHT, lasts_s=_LASTS_S)
    def make_quote(self, wish: tuple[int, str, str], amount: int, brings: int, lasts_s: int) -> None:
        """No command: a quote moves nothing. It is there from the next batch on, so this one ends before it."""
        self.commit()
        user, currency, other = wish
        name, owner, until = new_id(Prefix.QUOTE), self.users[user], self.paper.now + timedelta(seconds=lasts_s)
        quote = build_quote(
            owner, id=name, from_currency=currency, to_currency=other, amount=amount, to_amount=brings,
            expires_at=until,
        )  # fmt: skip
        self.table.wait_for(self.evidence.insert(quote))
        self.paper.things[name] = Quote(owner, "", amount, "open", currency, other, brings, until)
        self.names.add(name)

    @move(often=2, when=lambda self: self.paper.of(Quote), which=WHICH, by=ACTORS, token=TOKENS, ends=ENDS)
    def convert(self, which: int, by: int | None, token: int | None, *, ends: bool) -> None:
        quote_name = self.newest(which, Quote)
        quote = self.paper.thing(quote_name, Quote)
        name, user = new_id(Prefix.CONVERSION), self.actor(by, quote.owner)
        about: dict[str, Any] = {
            "conversion_id": name,
            "quote_id": quote_name,
            "currencies": (quote.currency, quote.to_currency),
            "user_id": user,
            "token_version": token,
            "category": None,
            "description": None,
            "metadata": {},
        }
        self.say(
            lambda common: ConvertMoney(
                out_entry_id=new_id(Prefix.ENTRY), in_entry_id=new_id(Prefix.ENTRY), **about, **common
            ),
            lambda: self.paper.convert(name, user, token, quote_name),
            name,
            quote_name,
            by=user,
            ends=ends,
        )
