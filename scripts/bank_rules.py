"""Compares an operation with the bank's journal, besides the amount: account, reference, tries and callbacks.

Written out a second time like `ledger_rules`, and for the same reason. Only the simulated bank has a journal that can
be read like this; of a real one there are the statements, which reconciliation compares.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

from scripts.record_rules import Row

OPERATION_FIELDS: Final = ("account_masked", "bank_reference", "attempts", "attempt_log")
ORDER_FIELDS: Final = ("account", "bank_reference", "submissions", "said")
CALLBACK_FIELDS: Final = ("_id", "payload.reference")

# The log of calls has as many at most: the last ones.
_CALLS_KEPT: Final = 20
_SHOWN_DIGITS: Final = 4


class BankRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    ACCOUNT = "order_account"
    REFERENCE = "order_reference"
    ATTEMPTS = "order_attempts"
    CALLBACK_MISSING = "callback_missing"


Found = tuple[BankRule, str]
"""A rule that does not hold, and what stands there instead."""


def check_order_says(
    operation: Row, orders: Sequence[Row], callbacks: Sequence[Row], *, is_disputed: bool
) -> Iterator[Found]:
    """Compares one operation with its order. A disputed one may have another reference: an incident says so."""
    yield from _check_calls(operation)
    for order in orders:
        masked = _masked(order.get("account"))
        if masked != operation.get("account_masked"):
            yield BankRule.ACCOUNT, f"the bank's order is for {masked}, the operation {operation.get('account_masked')}"
        ours, theirs = operation.get("bank_reference"), order.get("bank_reference")
        if operation.get("status") in ("success", "failed") and ours not in (None, theirs) and not is_disputed:
            yield BankRule.REFERENCE, f"the bank calls it {theirs}, the operation {ours}"
        # Each try is noted before it is made, so that the bank can not have had more of them.
        if (order.get("submissions") or 0) > (operation.get("attempts") or 0):
            detail = (
                f"the bank had it {order.get('submissions')} times, the operation notes {operation.get('attempts')}"
            )
            yield BankRule.ATTEMPTS, detail
        kept = {callback.get("_id") for callback in callbacks}
        for callback_id in order.get("said") or ():
            if callback_id not in kept:
                yield BankRule.CALLBACK_MISSING, f"the bank's callback {callback_id} was taken, and is not there"


def _check_calls(operation: Row) -> Iterator[Found]:
    """Compares tries with the log of calls, where the log has all calls. Operations of old releases have no log."""
    log = operation.get("attempt_log")
    if not isinstance(log, list) or not 0 < len(log) < _CALLS_KEPT:
        return
    tries = sum(isinstance(call, dict) and call.get("call") == "submit" for call in log)
    if tries != operation.get("attempts"):
        yield BankRule.ATTEMPTS, f"the operation says {operation.get('attempts')} tries, its log has {tries}"


def _masked(account: object) -> str:
    text = str(account)
    return f"•••• {text[-_SHOWN_DIGITS:]}" if len(text) > _SHOWN_DIGITS else "••••"
