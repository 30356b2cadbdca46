"""All commands of the ledger, interleaved as chance has it, against paper: on the real MongoDB, batch by batch.

`make test-nightly` plays twenty times as many, from a seed that is new each time. A failure names its seed, and
`make test ARGS=tests/invariants/test_state_machine.py TEST_SEED=…` plays that round again.
"""

import os
from collections import Counter
from secrets import randbelow

from service.database import Databases
from tests.machine.books import DatabaseBooks
from tests.machine.play import play
from tests.servers import Admin

_ROUNDS, _NIGHTLY_ROUNDS = 10, 200
_FURTHER_ROUNDS = 50
# What every sequence between them has to have come to, or the moves no longer lead anywhere: each command, accepted.
_COMMANDS = {
    "RequestDeposit", "RequestWithdrawal", "NoteAttempt", "Settle", "Fail", "FlagForReview", "RequestTransfer",
    "TransferBatch", "ConfirmPayment", "CancelPayment", "LapsePayment", "RequestHold", "CaptureHold", "ReleaseHold",
    "ExpireHold", "ConvertMoney", "RequestAdjustment", "ApproveAdjustment", "RejectAdjustment", "ReverseOriginal",
    "FreezeWallet", "UnfreezeWallet", "CloseWallet", "ReopenWallet", "OverrideLimits", "EarnPoints",
    "CreateVoucher", "UpdateVoucher", "RedeemVoucher", "TakeReturn", "CollectReturn", "DecideReview", "AskAgain",
    "ReleaseWithdrawal", "CancelWithdrawal", "SetTimeZone", "OverrideUserLimits",
}  # fmt: skip
_REFUSALS = {
    "account_deactivated", "already_reversed", "approval_lapsed", "balance_overflow", "capture_exceeds_hold",
    "currency_mismatch", "currency_not_offered", "hold_above_step_up", "hold_expired", "house_funds_exhausted",
    "idempotency_key_reused", "illegal_transition", "insufficient_funds", "invalid_code", "limit_exceeded",
    "may_be_under_way", "no_wallet_in_currency", "not_found", "quote_expired",
    "quote_used", "recipient_already_named", "recipient_not_found", "recipient_wallet_frozen", "same_wallet",
    "second_admin_required", "still_blocked", "transfer_batch_refused", "unauthenticated", "voucher_not_valid",
    "voucher_sold_out", "voucher_stock_too_low", "wallet_closed", "wallet_frozen", "wallet_not_empty",
    "wallet_owes",
}  # fmt: skip


def _unseen(seen: Counter[tuple[str, str | None]]) -> set[str]:
    """Commands that were never accepted, and refusals that never came."""
    accepted = {name for name, code in seen if code is None}
    refused = {code for _, code in seen if code is not None}
    return (_COMMANDS - accepted) | ((_REFUSALS | {"again"}) - refused)


class TestEverySequence:
    async def test_comes_to_what_paper_says(self, databases: Databases, admin: Admin) -> None:
        again = os.environ.get("TEST_SEED")
        if again is not None:
            await play(DatabaseBooks(databases, admin), int(again), rounds=1)
            return
        if os.environ.get("TEST_NIGHTLY"):
            first_seed, rounds = randbelow(10**9), _NIGHTLY_ROUNDS
        else:
            first_seed, rounds = 1, _ROUNDS
        seen = (await play(DatabaseBooks(databases, admin), first_seed, rounds=rounds)).seen
        # What a seed plays depends on what else was imported, so that something rare may take a few rounds more.
        for further in range(_FURTHER_ROUNDS):
            if not _unseen(seen):
                break
            seen += (await play(DatabaseBooks(databases, admin), first_seed + rounds + further, rounds=1)).seen
        assert _unseen(seen) == set()
        assert {name for name, code in seen if code is None} == _COMMANDS
