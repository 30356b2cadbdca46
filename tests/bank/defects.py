"""Defects that the way of an order might have, each put in by hand: the scenarios have to find every one of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.domain.operations import TRANSITIONS, Operation, OperationStatus
from service.domain.returns import Return, ReturnType
from service.domain.wallets import Wallet
from service.errors import InsufficientFunds
from service.gateways.bank_behaviours import Behaviour
from service.ledger import orders, returns
from service.ledger.committer import Ledger
from service.ledger.debts import owe, trouble_of
from service.services import bank_reports, settlement
from service.services.bank_reports import Applied, fail
from tests.bank.scenarios import Conduct

Defect = Callable[[pytest.MonkeyPatch], None]


def an_unknown_outcome_gives_the_money_back(patch: pytest.MonkeyPatch) -> None:
    async def refund(operation: Operation, code: str, message: str, ledger: Ledger, *_: Any) -> None:
        await fail(operation, code, message, None, ledger)

    patch.setattr(settlement, "_leave_to_a_person", refund)


def a_contradiction_ends_it_anew(patch: pytest.MonkeyPatch) -> None:
    """A deposit that was declined and is now said to be paid is credited."""
    again = {**TRANSITIONS, OperationStatus.FAILED: frozenset({OperationStatus.SUCCESS})}
    patch.setattr(orders, "TRANSITIONS", again)


def a_contradiction_is_told_to_nobody(patch: pytest.MonkeyPatch) -> None:
    async def say_nothing(*_: Any) -> Applied:
        return Applied("contradiction")

    patch.setattr(bank_reports, "contradicts", say_nothing)


def another_amount_is_as_good(patch: pytest.MonkeyPatch) -> None:
    decide = orders.Settle.decide_on

    def believing(self: orders.Settle, operation: Operation, *rest: Any) -> Any:
        return decide(replace(self, amount=operation.amount), operation, *rest)

    patch.setattr(orders.Settle, "decide_on", believing)


def what_was_said_before_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(orders, "was_never_submitted", lambda _: False)


def a_settlement_after_the_return_is_taken_for_a_repetition(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(orders.Settle, "_is_said_after_the_return", lambda *_: False)


def what_is_blocked_is_brought_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(orders, "standing_blocks", lambda *_: {})


def a_return_takes_all_or_nothing(patch: pytest.MonkeyPatch) -> None:
    """A wallet that lacks a part gives nothing, and a person has to see to it, as in earlier releases."""

    def poor(returned: Return, wallet: Wallet) -> str | None:
        is_short = returned.type is ReturnType.DEPOSIT and wallet.available < returned.amount
        return InsufficientFunds.code if is_short else trouble_of(returned, wallet)

    patch.setattr(returns, "trouble_of", poor)


def a_return_forgives_what_is_missing(patch: pytest.MonkeyPatch) -> None:
    """It takes what is there, and says that this was all."""

    def forgive(wallet: Wallet, returned: Return) -> tuple[Wallet, Return]:
        return owe(wallet, returned._replace(amount=min(returned.amount, wallet.available)))

    patch.setattr(returns, "owe", forgive)


# With a bank of which some scenario shows it.
DEFECTS: dict[Defect, Conduct] = {
    an_unknown_outcome_gives_the_money_back: Behaviour.TIMEOUT,
    a_contradiction_ends_it_anew: Behaviour.DECLINE,
    a_contradiction_is_told_to_nobody: Behaviour.SUCCESS,
    another_amount_is_as_good: Behaviour.SUCCESS,
    what_was_said_before_is_believed: Behaviour.SUCCESS,
    a_settlement_after_the_return_is_taken_for_a_repetition: Behaviour.RETURNED,
    what_is_blocked_is_brought_there: Behaviour.TIMEOUT,
    a_return_takes_all_or_nothing: Behaviour.RETURNED,
    a_return_forgives_what_is_missing: Behaviour.RETURNED,
}
