"""Rules of the machine: deposits and withdrawals."""

from typing import Any

from hypothesis import strategies as st

from service.domain.identifiers import Prefix, new_id
from service.domain.sealed import Sealed
from service.domain.step_up import CODE_LIFETIME, Challenge
from service.ledger.orders import Fail, FlagForReview, NoteAttempt, RequestDeposit, RequestWithdrawal, Settle
from tests.machine.base import (
    AMOUNTS,
    CODES,
    EMPTY,
    ENDS,
    MONEY,
    OPENING,
    TOKENS,
    USERS,
    WHICH,
    LedgerMachine,
    has_live,
    move,
)
from tests.model.books import MOST
from tests.model.orders import IN_FLIGHT, TRIES, Order

_DETAILS: dict[str, Any] = {
    "account_sealed": Sealed("00000000", b"sealed"), "account_masked": "•••• 0001",
    "category": None, "description": None, "metadata": {},
}  # fmt: skip
_LARGE = st.one_of(AMOUNTS, AMOUNTS, AMOUNTS, st.sampled_from((MOST, MOST - OPENING)))
# What the bank says that it moved, beside what was asked for.
_OFF_BY = st.sampled_from((0, 0, 0, 0, 1, 0, 0, 0, 0))


class OrderRules(LedgerMachine):
    def challenge(self, *, asks_code: bool) -> Challenge | None:
        return Challenge("0" * 32, "right", self.paper.now + CODE_LIFETIME, TRIES) if asks_code else None

    def fund(self) -> None:
        """Each wallet by a deposit that the bank has paid."""
        for purse in self.paper.purses.values():
            if (self.users.index(purse.owner), purse.currency) in EMPTY:
                continue
            name = self.deposit(purse.owner, purse.currency, OPENING)
            self._say_begun(name, ends=False)
            self._say_settled(name, 0, ends=False)
        self.commit()

    def deposit(self, user: str, currency: str, amount: int, token: int | None = None, *, ends: bool = False) -> str:
        name = new_id(Prefix.DEPOSIT)
        fields: dict[str, Any] = {
            "operation_id": name,
            "user_id": user,
            "token_version": token,
            "amount": amount,
            "currency": currency,
        }
        self.say(
            lambda common: RequestDeposit(**_DETAILS, **fields, **common),
            lambda: self.paper.request_deposit(name, user, token, currency, amount),
            name,
            by=user,
            ends=ends,
        )
        return name

    @move(user=USERS, currency=MONEY, amount=_LARGE, token=TOKENS, ends=ENDS)
    def request_deposit(self, user: int, currency: str, amount: int, token: int | None, *, ends: bool) -> None:
        self.deposit(self.users[user], currency, amount, token, ends=ends)

    @move(often=2, user=USERS, currency=MONEY, amount=AMOUNTS, token=TOKENS, asks_code=CODES, ends=ENDS)
    def request_withdrawal(
        self, user: int, currency: str, amount: int, token: int | None, *, asks_code: bool, ends: bool
    ) -> None:
        name, asker, challenge = new_id(Prefix.WITHDRAWAL), self.users[user], self.challenge(asks_code=asks_code)
        fields: dict[str, Any] = {"operation_id": name, "user_id": asker, "token_version": token, "amount": amount}
        fields |= {"currency": currency, "challenge": challenge}
        self.say(
            lambda common: RequestWithdrawal(entry_id=new_id(Prefix.ENTRY), **_DETAILS, **fields, **common),
            lambda: self.paper.request_withdrawal(name, asker, token, currency, amount, asks_code=asks_code),
            name,
            by=asker,
            ends=ends,
        )

    @move(often=2, when=has_live(Order), which=WHICH, ends=ENDS)
    def begin(self, which: int, *, ends: bool) -> None:
        self._say_begun(self.newest(which, Order), ends=ends)

    def _say_begun(self, name: str, *, ends: bool) -> None:
        purse = self.paper.things[name].purse
        self.say(
            lambda common: NoteAttempt(operation_id=name, wallet_id=purse, in_flight=IN_FLIGHT, **common),
            lambda: self.paper.begin(name),
            name,
            ends=ends,
        )

    @move(often=2, when=has_live(Order), which=WHICH, off_by=_OFF_BY, ends=ENDS)
    def settle(self, which: int, off_by: int, *, ends: bool) -> None:
        self._say_settled(self.newest(which, Order), off_by, ends=ends)

    def _say_settled(self, name: str, off_by: int, *, ends: bool) -> None:
        about, amount = self._about(name, off_by)
        self.say(
            lambda common: Settle(entry_id=new_id(Prefix.ENTRY), amount=amount, **about, **common),
            lambda: self.paper.settle(name, amount),
            name,
            ends=ends,
        )

    @move(when=has_live(Order), which=WHICH, off_by=st.one_of(st.none(), _OFF_BY), ends=ENDS)
    def fail(self, which: int, off_by: int | None, *, ends: bool) -> None:
        """None: the bank never took the order, and so speaks of no amount."""
        name = self.newest(which, Order)
        about, said = self._about(name, off_by or 0)
        amount = None if off_by is None else said
        why: dict[str, Any] = {"failure_code": "declined", "failure_message": "Declined"}
        self.say(
            lambda common: Fail(entry_id=new_id(Prefix.ENTRY), amount=amount, **why, **about, **common),
            lambda: self.paper.fail(name, amount),
            name,
            ends=ends,
        )

    @move(when=has_live(Order), which=WHICH, ends=ENDS)
    def flag_for_review(self, which: int, *, ends: bool) -> None:
        name = self.newest(which, Order)
        purse = self.paper.things[name].purse
        why: dict[str, Any] = {"failure_code": "no_answer", "failure_message": "No answer"}
        self.say(
            lambda common: FlagForReview(operation_id=name, wallet_id=purse, **why, **common),
            lambda: self.paper.review(name),
            name,
            ends=ends,
        )

    def _about(self, name: str, off_by: int) -> tuple[dict[str, Any], int]:
        order = self.paper.things[name]
        currency = self.paper.purses[order.purse].currency
        about: dict[str, Any] = {
            "operation_id": name,
            "wallet_id": order.purse,
            "currency": currency,
            "bank_reference": "bnk_test",
        }
        return about, order.amount + off_by
