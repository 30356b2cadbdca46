"""Rules of the machine: holds."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from service.domain.identifiers import Prefix, new_id
from service.ledger.holds import CaptureHold, ExpireHold, ReleaseHold, RequestHold
from tests.machine.base import ACTORS, AMOUNTS, ENDS, OTHER_MONEY, PEERS, TOKENS, WALLETS, WHICH, has_live, move
from tests.machine.transfers import TransferRules
from tests.model.holds import Hold

_DETAILS: dict[str, Any] = {"category": None, "description": None, "metadata": {}}
_LASTS_S = st.sampled_from((60, 300, 86_400))
_FOR_HOUSE = st.sampled_from((False, False, True))
# Of what is held: all, or less or more of it.
_CAPTURED = st.one_of(st.none(), st.integers(1, 200), AMOUNTS)
# To whom the capture goes, where it says so itself.
_NAMED = st.one_of(st.none(), st.none(), PEERS)


class HoldRules(TransferRules):
    @move(often=2,
        wallet=WALLETS, to=st.one_of(st.none(), PEERS), currency=OTHER_MONEY, amount=AMOUNTS, lasts_s=_LASTS_S,
        by=ACTORS, token=TOKENS, ends=ENDS,
    )  # fmt: skip
    def request_hold(
        self, wallet: int, to: int | None, currency: str | None, amount: int, lasts_s: int, by: int | None,
        token: int | None, *, ends: bool,
    ) -> None:  # fmt: skip
        name, purse, lasts = new_id(Prefix.HOLD), self.purse(wallet), timedelta(seconds=lasts_s)
        payee = None if to is None else self.peer(to, purse)
        user = self.actor(by, self.paper.purses[purse].owner)
        money = currency or self.paper.purses[purse].currency
        about: dict[str, Any] = {
            "hold_id": name,
            "wallet_id": purse,
            "to_wallet_id": payee,
            "amount": amount,
            "currency": money,
        }
        about |= {"lifetime": lasts, "user_id": user, "token_version": token}
        self.say(
            lambda common: RequestHold(entry_id=new_id(Prefix.ENTRY), **_DETAILS, **about, **common),
            lambda: self.paper.request_hold(name, user, token, purse, payee, money, amount, lasts),
            name,
            by=user,
            ends=ends,
        )

    @move(
        often=3,
        when=has_live(Hold),
        which=WHICH,
        amount=_CAPTURED,
        to=_NAMED,
        by=ACTORS,
        token=TOKENS,
        for_house=_FOR_HOUSE,
        ends=ENDS,
    )
    def capture(
        self, which: int, amount: int | None, to: int | None, by: int | None, token: int | None, *, for_house: bool,
        ends: bool,
    ) -> None:  # fmt: skip
        name, user, about = self._hold(which, by, token, for_house=for_house)
        payee = None if to is None else self.peer(to, about["wallet_id"])
        # The service names the hold's own recipient as it was read, before anything else may have named one.
        about |= {"to_wallet_id": payee, "amount": amount, "named_wallet_id": self.paper.thing(name, Hold).to}
        about |= {"capture_to": frozenset(self.wallets)}
        self.say(
            lambda common: CaptureHold(
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                release_entry_id=new_id(Prefix.ENTRY),
                out_entry_id=new_id(Prefix.ENTRY),
                in_entry_id=new_id(Prefix.ENTRY),
                **about,
                **common,
            ),
            lambda: self.paper.capture(name, user, token, amount, payee, for_house=for_house),
            name,
            by=user,
            ends=ends,
        )

    @move(when=has_live(Hold), which=WHICH, by=ACTORS, token=TOKENS, for_house=_FOR_HOUSE, ends=ENDS)
    def release(self, which: int, by: int | None, token: int | None, *, for_house: bool, ends: bool) -> None:
        name, user, about = self._hold(which, by, token, for_house=for_house)
        self.say(
            lambda common: ReleaseHold(
                audit_event_id=new_id(Prefix.AUDIT_EVENT), release_entry_id=new_id(Prefix.ENTRY), **about, **common
            ),
            lambda: self.paper.release(name, user, token, for_house=for_house),
            name,
            by=user,
            ends=ends,
        )

    @move(when=has_live(Hold), which=WHICH, ends=ENDS)
    def expire(self, which: int, *, ends: bool) -> None:
        name = self.newest(which, Hold)
        purse = self.paper.things[name].purse
        self.say(
            lambda common: ExpireHold(hold_id=name, wallet_id=purse, release_entry_id=new_id(Prefix.ENTRY), **common),
            lambda: self.paper.expire(name),
            name,
            ends=ends,
        )

    def _hold(
        self, which: int, by: int | None, token: int | None, *, for_house: bool
    ) -> tuple[str, str, dict[str, Any]]:
        """Its name, who speaks of it, and how a command names it."""
        name = self.newest(which, Hold)
        hold = self.paper.thing(name, Hold)
        # Who may mostly is the payee, where there is one.
        owner = hold.owner if hold.to is None else self.paper.purses[hold.to].owner
        user = self.actor(by, owner)
        about: dict[str, Any] = {"hold_id": name, "wallet_id": hold.purse, "acts_for_house": for_house}
        return name, user, {**about, "user_id": user, "token_version": token, "reason": None}
