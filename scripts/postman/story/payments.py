"""Everything by which users move money."""

from typing import Any, Final

from scripts.postman.steps import Folder, Step
from scripts.postman.story.workflows import UNTIL_SETTLED

_TO_TOMAS: Final[dict[str, Any]] = {
    "from_wallet_id": "{{wallet_id}}",
    "to_wallet_id": "{{friend_wallet_id}}",
    "amount": 1500,
    "currency": "INR",
}
# Above the amount from which a one-time code is asked for.
_LARGE: Final = 20500000

DEPOSITS: Final = Folder(
    "Deposits",
    "From an account at the bank. The ending of `source` decides what the simulated bank does (CREDENTIALS.md).",
    (
        Step(
            "POST /deposits",
            "Deposit from an account that the bank does not know",
            202,
            body={
                "amount": 10000,
                "currency": "INR",
                "source": "savings-invalid-account",
                "category": "savings",
                "description": "October",
                "metadata": {"order": "A-1042"},
            },
            expects={"status": "pending", "category": "savings", "metadata.order": "A-1042"},
            keeps={"refused_deposit_id": "id"},
        ),
        Step(
            "GET /deposits/{deposit_id}",
            "Wait until the bank has refused it",
            path={"deposit_id": "{{refused_deposit_id}}"},
            wait=UNTIL_SETTLED,
            expects={"status": "failed", "failure_code": "invalid_account"},
        ),
        Step(
            "GET /deposits",
            "One's deposits, those that failed",
            query={"status": "failed", "limit": "5"},
            expects={"data.0.id": "{{refused_deposit_id}}", "has_more": False, "next_cursor": None},
        ),
    ),
)

WITHDRAWALS: Final = Folder(
    "Withdrawals",
    "To an account at the bank. The amount is held at once and leaves when the bank has paid; what the bank declines "
    "comes back.",
    (
        Step(
            "POST /withdrawals",
            "Withdraw to an account whose bank declines",
            202,
            body={"amount": 2500, "currency": "INR", "destination": "shop-decline", "category": "groceries"},
            expects={"status": "pending"},
            keeps={"declined_withdrawal_id": "id"},
        ),
        Step(
            "GET /withdrawals/{withdrawal_id}",
            "Wait until the bank has declined it",
            path={"withdrawal_id": "{{declined_withdrawal_id}}"},
            wait=UNTIL_SETTLED,
            expects={"status": "failed", "failure_code": "declined"},
        ),
        Step(
            "GET /users/{user_id}/transactions",
            "It was given back",
            query={"reference": "{{declined_withdrawal_id}}"},
            expects={"data.0.type": "WITHDRAWAL_REFUND", "data.1.type": "WITHDRAWAL"},
        ),
        Step(
            "GET /withdrawals",
            "One's withdrawals",
            query={"currency": "INR", "limit": "5"},
            expects={"data.0.id": "{{declined_withdrawal_id}}", "data.1.id": "{{withdrawal_id}}"},
        ),
        Step(
            "POST /withdrawals",
            "More than there is",
            422,
            body={"amount": 9000000000000, "currency": "INR", "destination": "shop-success"},
            error="insufficient_funds",
        ),
    ),
)

TRANSFERS: Final = Folder(
    "Transfers",
    "To a wallet, or to a person by e-mail; one by one or up to 500 together.",
    (
        Step(
            "POST /transfers",
            "To a wallet",
            201,
            body={**_TO_TOMAS, "category": "rent", "description": "His half"},
            expects={"status": "success", "to_wallet_id": "{{friend_wallet_id}}", "amount": 1500},
            keeps={"transfer_id": "id"},
        ),
        Step(
            "POST /transfers",
            "To a person",
            201,
            # A demo user, whose address counts as proven.
            body={"from_wallet_id": "{{wallet_id}}", "to_email": "{{demo_email}}", "amount": 2500, "currency": "INR"},
            expects={"status": "success", "amount": 2500},
        ),
        Step(
            "POST /transfers/batch",
            "Several, each by itself",
            201,
            body={
                "mode": "best_effort",
                "transfers": [
                    {**_TO_TOMAS, "amount": 300},
                    {**_TO_TOMAS, "amount": 400},
                    {**_TO_TOMAS, "to_wallet_id": "wal_00000000000070008000000000000000"},
                ],
            },
            expects={"accepted": 2, "refused": 1, "results.0.status": "success", "results.2.status": "refused"},
            tests={"says why": 'pm.expect(body.results[2].error.error).to.eql("recipient_not_found");'},
        ),
        Step(
            "POST /transfers/batch",
            "All or nothing",
            422,
            body={
                "mode": "all_or_nothing",
                "transfers": [{**_TO_TOMAS, "amount": 300}, {**_TO_TOMAS, "to_wallet_id": "{{wallet_id}}"}],
            },
            error="transfer_batch_refused",
        ),
        Step(
            "GET /transfers/{transfer_id}",
            "Tomas sees it too",
            by="friend",
            expects={"id": "{{transfer_id}}", "from_wallet_id": "{{wallet_id}}"},
        ),
        Step(
            "GET /transfers",
            "Those that one sent",
            query={"category": "rent", "limit": "5"},
            expects={"data.0.id": "{{transfer_id}}"},
        ),
    ),
)

APPROVALS: Final = Folder(
    "Approvals",
    "Payments above `WALLET_STEP_UP_ABOVE` wait five minutes for a code: the mailed one or, as here, one of vera's app "
    "or a recovery code. Needs the workflow with the authenticator app.",
    (
        Step(
            "POST /transfers",
            "A large transfer",
            202,
            by="demo_app",
            body={**_TO_TOMAS, "from_wallet_id": "{{demo_app_wallet_id}}", "amount": _LARGE},
            expects={"status": "requires_approval"},
            keeps={"waiting_transfer_id": "id"},
        ),
        Step(
            "POST /transfers/{transfer_id}/confirm",
            "A wrong code",
            422,
            by="demo_app",
            path={"transfer_id": "{{waiting_transfer_id}}"},
            body={"code": "000000"},
            error="invalid_code",
            note="Four more tries are left; the key may be used again.",
        ),
        Step(
            "POST /transfers/{transfer_id}/confirm",
            "Confirm the transfer",
            by="demo_app",
            path={"transfer_id": "{{waiting_transfer_id}}"},
            body={"code": "{{recovery_code_1}}"},
            expects={"id": "{{waiting_transfer_id}}", "status": "success"},
        ),
        Step(
            "POST /transfers",
            "Another large transfer",
            202,
            by="demo_app",
            body={**_TO_TOMAS, "from_wallet_id": "{{demo_app_wallet_id}}", "amount": _LARGE},
            keeps={"waiting_transfer_id": "id"},
        ),
        Step(
            "POST /transfers/{transfer_id}/cancel",
            "Cancel the transfer",
            by="demo_app",
            path={"transfer_id": "{{waiting_transfer_id}}"},
            expects={"id": "{{waiting_transfer_id}}", "status": "canceled"},
        ),
        Step(
            "POST /withdrawals",
            "A large withdrawal",
            202,
            by="demo_app",
            body={"amount": _LARGE, "currency": "INR", "destination": "yard-success"},
            expects={"status": "requires_approval"},
            keeps={"waiting_withdrawal_id": "id"},
        ),
        Step(
            "POST /withdrawals/{withdrawal_id}/confirm",
            "Confirm the withdrawal",
            202,
            by="demo_app",
            path={"withdrawal_id": "{{waiting_withdrawal_id}}"},
            body={"code": "{{recovery_code_2}}"},
            expects={"id": "{{waiting_withdrawal_id}}", "status": "pending"},
        ),
        Step(
            "POST /withdrawals",
            "Another large withdrawal",
            202,
            by="demo_app",
            body={"amount": _LARGE, "currency": "INR", "destination": "yard-success"},
            keeps={"waiting_withdrawal_id": "id"},
        ),
        Step(
            "POST /withdrawals/{withdrawal_id}/cancel",
            "Cancel the withdrawal",
            by="demo_app",
            path={"withdrawal_id": "{{waiting_withdrawal_id}}"},
            expects={"id": "{{waiting_withdrawal_id}}", "status": "canceled"},
        ),
    ),
)

HOLDS: Final = Folder(
    "Holds",
    "Money set aside for somebody: a hotel's deposit, a guarantee. Captured once, wholly or in part, or released.",
    (
        Step(
            "POST /holds",
            "Set 120.00 INR aside for Tomas",
            201,
            body={
                "wallet_id": "{{wallet_id}}",
                "to_wallet_id": "{{friend_wallet_id}}",
                "amount": 12000,
                "currency": "INR",
                "expires_in_s": 86400,
                "category": "travel",
            },
            expects={"status": "held", "amount": 12000, "captured_amount": 0},
            keeps={"hold_id": "id"},
        ),
        Step("GET /holds/{hold_id}", "One hold", expects={"id": "{{hold_id}}", "status": "held"}),
        Step(
            "GET /holds",
            "Those that Tomas is to be paid by",
            by="friend",
            query={"role": "payee", "status": "held"},
            expects={"data.0.id": "{{hold_id}}"},
        ),
        Step(
            "POST /holds/{hold_id}/release",
            "Its payer cannot take it back",
            403,
            error="hold_guaranteed",
        ),
        Step(
            "POST /holds/{hold_id}/capture",
            "Tomas takes a part of it",
            by="friend",
            body={"amount": 9000},
            expects={"id": "{{hold_id}}", "status": "captured", "captured_amount": 9000},
            note="The rest goes back to its payer.",
        ),
        Step(
            "POST /holds",
            "Set something aside for the house",
            201,
            body={"wallet_id": "{{wallet_id}}", "amount": 4000, "currency": "INR"},
            expects={"status": "held", "to_wallet_id": None},
            keeps={"hold_id": "id"},
        ),
        Step(
            "POST /holds/{hold_id}/release",
            "Take it back",
            expects={"id": "{{hold_id}}", "status": "released"},
        ),
    ),
)

MULTI_CURRENCY: Final = Folder(
    "Multi-currency",
    "A quote holds for 30 seconds (`WALLET_QUOTE_LIFETIME_S`) and for one conversion between two of one's own wallets.",
    (
        Step(
            "POST /quotes",
            "What do 10,000.00 INR bring in dollars?",
            201,
            body={"from_currency": "INR", "to_currency": "USD", "amount": 1000000},
            expects={"from_currency": "INR", "to_currency": "USD", "amount": 1000000, "conversion_id": None},
            keeps={"quote_id": "id", "quoted_amount": "to_amount"},
        ),
        Step("GET /quotes/{quote_id}", "One quote", expects={"id": "{{quote_id}}", "to_amount": "{{quoted_amount}}"}),
        Step(
            "POST /conversions",
            "Take it",
            201,
            body={"quote_id": "{{quote_id}}", "category": "travel"},
            expects={
                "quote_id": "{{quote_id}}",
                "status": "success",
                "to_amount": "{{quoted_amount}}",
                "to_wallet_id": "{{usd_wallet_id}}",
            },
            keeps={"conversion_id": "id"},
        ),
        Step(
            "POST /conversions",
            "A quote is good for one conversion",
            409,
            body={"quote_id": "{{quote_id}}"},
            error="quote_used",
        ),
        Step("GET /conversions/{conversion_id}", "One conversion", expects={"id": "{{conversion_id}}"}),
        Step(
            "GET /conversions",
            "One's conversions",
            query={"limit": "5"},
            expects={"data.0.id": "{{conversion_id}}"},
        ),
    ),
)
