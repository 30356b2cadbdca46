"""Rules of the machine: transfers, many of them under one key, and what becomes of payments that wait for a code."""

from typing import Any, NamedTuple

from hypothesis import strategies as st

from service.domain.identifiers import Prefix, new_id
from service.ledger.approvals import CancelPayment, ConfirmPayment, LapsePayment
from service.ledger.transfers import RequestTransfer, TransferBatch
from tests.machine.base import ACTORS, AMOUNTS, CODES, ENDS, OTHER_MONEY, PEERS, TOKENS, USERS, WALLETS, WHICH, move
from tests.machine.orders import OrderRules
from tests.model.orders import Waiting
from tests.model.transfers import Transfer, Wish

_DETAILS: dict[str, Any] = {"category": None, "description": None, "metadata": {}}


class Address(NamedTuple):
    """A wallet, or a person; nobody where there is neither."""

    wallet: int | None
    person: int | None


_ADDRESSES = st.one_of(
    st.builds(Address, PEERS, st.none()),
    st.builds(Address, PEERS, st.none()),
    st.builds(Address, PEERS, st.none()),
    st.builds(Address, st.none(), st.one_of(st.none(), USERS)),
)
_RIGHT = st.sampled_from((True, False, False, True))
_PARTS = st.lists(st.tuples(WALLETS, _ADDRESSES, st.integers(1, 500), CODES), min_size=1, max_size=4)


def _is_waited_for(machine: Any) -> bool:
    paper = machine.paper
    return any(paper.things[name].status == "requires_approval" for name in paper.of(Waiting))


class TransferRules(OrderRules):
    def _wish(self, wallet: int, to: Address, currency: str | None, amount: int, *, asks_code: bool) -> Wish:
        purse = self.purse(wallet)
        return Wish(
            new_id(Prefix.TRANSFER),
            purse,
            None if to.wallet is None else self.peer(to.wallet, purse),
            None if to.person is None else self.users[to.person],
            currency or self.paper.purses[purse].currency,
            amount,
            asks_code,
        )

    def _transfer(self, user: str, token: int | None, wish: Wish, common: dict[str, Any]) -> RequestTransfer:
        return RequestTransfer(
            user_id=user,
            token_version=token,
            transfer_id=wish.name,
            wallet_id=wish.purse,
            to_wallet_id=wish.to,
            to_user_id=wish.to_person,
            amount=wish.amount,
            currency=wish.currency,
            out_entry_id=new_id(Prefix.ENTRY),
            in_entry_id=new_id(Prefix.ENTRY),
            challenge=self.challenge(asks_code=wish.asks_code),
            **_DETAILS,
            **common,
        )

    @move(often=3,
        wallet=WALLETS, to=_ADDRESSES, currency=OTHER_MONEY, amount=AMOUNTS, by=ACTORS, token=TOKENS, asks_code=CODES,
        ends=ENDS,
    )  # fmt: skip
    def request_transfer(
        self, wallet: int, to: Address, currency: str | None, amount: int, by: int | None, token: int | None, *,
        asks_code: bool, ends: bool,
    ) -> None:  # fmt: skip
        wish = self._wish(wallet, to, currency, amount, asks_code=asks_code)
        user = self.actor(by, self.paper.purses[wish.purse].owner)
        self.say(
            lambda common: self._transfer(user, token, wish, common),
            lambda: self.paper.request_transfer(user, token, wish),
            wish.name,
            by=user,
            ends=ends,
        )

    @move(parts=_PARTS, by=ACTORS, token=TOKENS, is_all_or_nothing=st.booleans(), ends=ENDS)
    def request_batch(
        self, parts: list[tuple[int, Address, int, bool]], by: int | None, token: int | None, *,
        is_all_or_nothing: bool, ends: bool,
    ) -> None:  # fmt: skip
        wishes = [self._wish(wallet, to, None, amount, asks_code=code) for wallet, to, amount, code in parts]
        user = self.actor(by, self.paper.purses[wishes[0].purse].owner)

        def build(common: dict[str, Any]) -> TransferBatch:
            alone = [self._transfer(user, token, wish, common | {"claim": None}) for wish in wishes]
            batch_id = new_id(Prefix.TRANSFER_BATCH)
            return TransferBatch(parts=alone, is_all_or_nothing=is_all_or_nothing, batch_id=batch_id, **common)

        self.say(
            build,
            lambda: self.paper.request_batch(user, token, wishes, is_all_or_nothing=is_all_or_nothing),
            *(wish.name for wish in wishes),
            by=user,
            ends=ends,
        )

    @move(often=3, when=_is_waited_for, which=WHICH, by=ACTORS, token=TOKENS, is_right=_RIGHT, ends=ENDS
    )  # fmt: skip
    def confirm(self, which: int, by: int | None, token: int | None, *, is_right: bool, ends: bool) -> None:
        name, user, about = self._payment(which, by, token)
        about |= {"code_hash": "right" if is_right else "wrong", "is_verified": False}
        self.say(
            lambda common: ConfirmPayment(
                release_entry_id=new_id(Prefix.ENTRY),
                out_entry_id=new_id(Prefix.ENTRY),
                in_entry_id=new_id(Prefix.ENTRY),
                **about,
                **common,
            ),
            lambda: self.paper.confirm(name, user, token, is_right=is_right),
            name,
            by=user,
            ends=ends,
        )

    @move(when=lambda self: self.paper.of(Waiting), which=WHICH, by=ACTORS, token=TOKENS, ends=ENDS)
    def cancel(self, which: int, by: int | None, token: int | None, *, ends: bool) -> None:
        name, user, about = self._payment(which, by, token)
        self.say(
            lambda common: CancelPayment(release_entry_id=new_id(Prefix.ENTRY), **about, **common),
            lambda: self.paper.cancel(name, user, token),
            name,
            by=user,
            ends=ends,
        )

    @move(when=_is_waited_for, which=WHICH, ends=ENDS)
    def lapse(self, which: int, *, ends: bool) -> None:
        name, _, about = self._payment(which, None, None)
        del about["user_id"], about["token_version"]
        self.say(
            lambda common: LapsePayment(release_entry_id=new_id(Prefix.ENTRY), **about, **common),
            lambda: self.paper.lapse(name),
            name,
            ends=ends,
        )

    def _payment(self, which: int, by: int | None, token: int | None) -> tuple[str, str, dict[str, Any]]:
        """Its name, who speaks of it, and how a command names it."""
        name = self.newest(which, Waiting, best=lambda payment: payment.status == "requires_approval")
        payment = self.paper.thing(name, Waiting)
        user = self.actor(by, payment.owner)
        to = payment.to if isinstance(payment, Transfer) else None
        about: dict[str, Any] = {"payment_id": name, "wallet_id": payment.purse, "to_wallet_id": to}
        return name, user, {**about, "user_id": user, "token_version": token}
