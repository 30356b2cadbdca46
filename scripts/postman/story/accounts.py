"""Wallets: reading them, opening and closing them, their limits and their proofs."""

from typing import Final

from scripts.postman.steps import NOBODY, Folder, Step

_PERIOD: Final = """\
const dayMs = 24 * 60 * 60 * 1000;
pm.environment.set("period_from", new Date(Date.now() - dayMs).toISOString());
pm.environment.set("period_to", new Date(Date.now() + dayMs).toISOString());"""
_MONTHS: Final = """\
const dayMs = 24 * 60 * 60 * 1000;
pm.environment.set("from_month", new Date(Date.now() - dayMs).toISOString().slice(0, 7));
pm.environment.set("to_month", new Date().toISOString().slice(0, 7));"""
_TO_PRIYA: Final = {
    "from_wallet_id": "{{friend_wallet_id}}",
    "to_wallet_id": "{{wallet_id}}",
    "amount": 100,
    "currency": "INR",
}

WALLETS: Final = Folder(
    "Wallets",
    "One for each currency. `available` can be spent, `held` is set aside, `balance` is both.",
    (
        Step(
            "POST /wallets",
            "Open one for dollars",
            201,
            body={"currency": "USD"},
            expects={"currency": "USD", "available": 0, "status": "active"},
            keeps={"usd_wallet_id": "id"},
        ),
        Step(
            "POST /wallets",
            "There is one for dollars already",
            409,
            body={"currency": "USD"},
            error="wallet_exists",
        ),
        Step("GET /wallets", "One's wallets", expects={"data.0.id": "{{usd_wallet_id}}", "data.1.id": "{{wallet_id}}"}),
        Step("GET /wallets/{wallet_id}", "One wallet", expects={"id": "{{wallet_id}}", "status": "active"}),
        Step(
            "GET /wallets/{wallet_id}",
            "As it was when the deposit had settled",
            query={"at": "{{deposit_settled_at}}"},
            expects={"available": 50000, "seq": 1},
        ),
        Step(
            "GET /wallets/{wallet_id}/transactions",
            "Its entries, with filters",
            query={"type": "DEPOSIT", "direction": "credit", "amount_min": "50000", "limit": "10"},
            expects={"data.0.type": "DEPOSIT", "data.0.amount": 50000, "data.0.counterparty": "bank"},
        ),
        Step(
            "GET /wallets/{wallet_id}/statement",
            "A statement",
            before=_PERIOD,
            query={"from": "{{period_from}}", "to": "{{period_to}}"},
            expects={"wallet_id": "{{wallet_id}}", "opening.balance": 0},
            tests={
                "adds up": "pm.expect(body.opening.balance + body.total_in - body.total_out)"
                ".to.eql(body.closing.balance);"
            },
        ),
        Step(
            "GET /wallets/{wallet_id}/statement",
            "The same as a CSV file",
            before=_PERIOD,
            query={"from": "{{period_from}}", "to": "{{period_to}}", "format": "csv"},
            media_type="text/csv",
            tests={
                "is complete": r"pm.expect(pm.response.text()).to.match(/^record,seq,[^]*\r\nclosing,[^]*\r\n$/);",
                "is a file": 'pm.expect(pm.response.headers.get("Content-Disposition")).to.include("attachment");',
            },
        ),
        Step(
            "GET /wallets/{wallet_id}/spending",
            "What was spent, by month and category",
            before=_MONTHS,
            query={"from_month": "{{from_month}}", "to_month": "{{to_month}}"},
            expects={"wallet_id": "{{wallet_id}}"},
        ),
        Step(
            "POST /wallets/{wallet_id}/freeze",
            "An admin freezes Tomas' wallet",
            by="admin",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body={"direction": "out", "reason": "Reported as stolen"},
            expects={"status": "frozen", "frozen": "out"},
        ),
        Step(
            "POST /transfers",
            "Nothing goes out of it",
            422,
            by="friend",
            body=_TO_PRIYA,
            error="wallet_frozen",
        ),
        Step(
            "POST /wallets/{wallet_id}/unfreeze",
            "An admin thaws it",
            by="admin",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body={"reason": "The card was found again"},
            expects={"status": "active", "frozen": None},
        ),
        Step(
            "POST /wallets",
            "Open one for yen",
            201,
            body={"currency": "JPY"},
            keeps={"jpy_wallet_id": "id"},
        ),
        Step(
            "POST /wallets/{wallet_id}/close",
            "Close it again",
            path={"wallet_id": "{{jpy_wallet_id}}"},
            body={"reason": "No longer used"},
            expects={"id": "{{jpy_wallet_id}}", "status": "closed"},
        ),
        Step(
            "POST /wallets/{wallet_id}/reopen",
            "An admin reopens it",
            by="admin",
            path={"wallet_id": "{{jpy_wallet_id}}"},
            body={"reason": "Closed by mistake"},
            expects={"id": "{{jpy_wallet_id}}", "status": "active"},
        ),
        Step(
            "POST /wallets",
            "Not one for a code that nobody holds money in",
            422,
            body={"currency": "USN"},
            error="currency_not_offered",
        ),
        Step(
            "POST /wallets/{wallet_id}/close",
            "One that is not empty stays",
            409,
            body={},
            error="wallet_not_empty",
        ),
    ),
)

EVENTS: Final = Folder(
    "Events",
    "What happened in one's wallets, and the ticket that opens a WebSocket. Postman has a kind of request for it: "
    "`ws://127.0.0.1:8000/api/v1/ws?ticket=…`.",
    (
        Step(
            "GET /events",
            "Newest first",
            query={"types": "deposit.succeeded", "limit": "1"},
            expects={"data.0.type": "deposit.succeeded", "data.0.status": "success"},
        ),
        Step(
            "GET /events",
            "On from a number, in order",
            query={"wallet_id": "{{wallet_id}}", "after_sequence": "0", "limit": "5"},
            expects={"data.0.sequence": 1, "data.1.sequence": 2},
        ),
        Step("POST /ws/tickets", "A ticket for a WebSocket", 201),
    ),
)

LIMITS: Final = Folder(
    "Limits",
    "What may leave a wallet: in one payment, an hour, a day, a month. Admins set others for one user and currency.",
    (
        Step(
            "GET /wallets/{wallet_id}/limits",
            "What may still leave a wallet",
            by="friend",
            path={"wallet_id": "{{friend_wallet_id}}"},
            expects={"wallet_id": "{{friend_wallet_id}}", "is_overridden": False},
        ),
        Step(
            "PUT /admin/users/{user_id}/limits/{currency}",
            "At most 50.00 INR a payment for Tomas",
            by="admin",
            path={"user_id": "{{friend_id}}", "currency": "INR"},
            body={"per_transaction": 5000, "reason": "On request"},
            expects={"is_overridden": True, "limits.per_transaction.ceiling": 5000},
        ),
        Step(
            "POST /transfers",
            "More than that is refused",
            422,
            by="friend",
            body={**_TO_PRIYA, "amount": 5001},
            error="limit_exceeded",
        ),
        Step(
            "DELETE /admin/users/{user_id}/limits/{currency}",
            "Back to the usual limits",
            by="admin",
            path={"user_id": "{{friend_id}}", "currency": "INR"},
            query={"reason": "Not wanted any more"},
            expects={"is_overridden": False, "override": None},
        ),
        Step(
            "PUT /admin/users/{user_id}/limits",
            "At most 0.50 USD a day over all of Tomas' wallets",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"per_day": 50, "reason": "On request"},
            expects={"is_overridden": True, "currency": "USD", "limits.per_day.ceiling": 50},
        ),
        Step(
            "POST /transfers",
            "Rupees count with what they are worth",
            422,
            by="friend",
            body={**_TO_PRIYA, "amount": 5000},
            error="limit_exceeded",
        ),
        Step(
            "GET /me/limits",
            "What may still leave all of one's wallets",
            by="friend",
            expects={"user_id": "{{friend_id}}", "limits.per_day.left": 50},
        ),
        Step(
            "GET /admin/users/{user_id}/limits",
            "As an admin sees it",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            expects={"is_overridden": True},
        ),
        Step(
            "DELETE /admin/users/{user_id}/limits",
            "Back to the usual limits over all wallets",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            query={"reason": "Not wanted any more"},
            expects={"is_overridden": False, "override": None},
        ),
    ),
)

PROOFS: Final = Folder(
    "Proofs",
    "Once an hour all wallets' heads are sealed and signed. Before the first time there is nothing to be shown yet: "
    "then 404 and 409 are the right answers. `make verify-proof` checks the answers offline.",
    (
        Step(
            "GET /checkpoints/keys",
            "The key that checkpoints are signed with",
            by=NOBODY,
            expects={"keys.0.algorithm": "Ed25519"},
        ),
        Step(
            "GET /checkpoints",
            "The checkpoints",
            query={"limit": "5"},
            tests={"they are numbered": "body.data.forEach((one) => pm.expect(one.number).to.be.at.least(1));"},
        ),
        Step(
            "GET /checkpoints/{number}",
            "The first one",
            (200, 404),
            path={"number": "1"},
            expects={"number": 1, "prev_hash": "0" * 64},
        ),
        Step("GET /wallets", "asha's wallets", by="demo", keeps={"demo_wallet_id": "data.0.id"}),
        Step(
            "GET /wallets/{wallet_id}/proof",
            "Proof of a wallet's head",
            (200, 409),
            by="demo",
            path={"wallet_id": "{{demo_wallet_id}}"},
            query={"limit": "20"},
            expects={"wallet_id": "{{demo_wallet_id}}"},
            note="409 `not_checkpointed` until a checkpoint holds the wallet.",
        ),
        Step(
            "GET /wallets/{wallet_id}/absence-proof",
            "Proof that the first checkpoint has no such wallet",
            (200, 404, 409),
            by="demo",
            path={"wallet_id": "{{demo_wallet_id}}"},
            query={"checkpoint": "1"},
            expects={"wallet_id": "{{demo_wallet_id}}"},
            note="200 where the wallet is younger than the checkpoint, 409 `wallet_checkpointed` where it is in it.",
        ),
        Step(
            "GET /wallets/{wallet_id}/transactions/{entry_id}/proof",
            "Proof of an entry",
            expects={"entry.id": "{{entry_id}}"},
            note="Where no checkpoint holds it yet, the answer leads to the wallet's head instead.",
        ),
    ),
)
