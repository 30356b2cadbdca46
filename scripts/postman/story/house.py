"""What admins, services and the bank do."""

from typing import Any, Final

from scripts.postman.snippets import WEBHOOK_SIGNATURE
from scripts.postman.steps import NOBODY, Folder, Step

# Above the amount from which a second admin has to agree.
_FOR_TWO_ADMINS: Final = {"amount": 100000001, "currency": "INR", "reason": "The lottery, first prize"}

ADJUSTMENTS: Final = Folder(
    "Adjustments",
    "Credits and debits by services and admins. What an admin asks for above `WALLET_ADJUSTMENT_APPROVAL_ABOVE` "
    "(1,000,000.00 INR) waits for another admin.",
    (
        Step(
            "POST /wallets/{wallet_id}/credits",
            "A service puts 50.00 INR in",
            201,
            by="service",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body={"amount": 5000, "currency": "INR", "reason": "Charged twice on 3 October", "category": "goodwill"},
            expects={"type": "credit", "status": "success", "amount": 5000},
            keeps={"adjustment_id": "id"},
        ),
        Step(
            "POST /wallets/{wallet_id}/debits",
            "A service takes 10.00 INR out",
            201,
            by="service",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body={"amount": 1000, "currency": "INR", "reason": "Fee for a paper statement"},
            expects={"type": "debit", "status": "success"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "Users may not",
            403,
            body={"amount": 5000, "currency": "INR", "reason": "I should like to have more"},
            error="forbidden",
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "An admin asks for a large credit",
            202,
            by="admin",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body=_FOR_TWO_ADMINS,
            expects={"status": "requires_approval", "transaction_id": None},
            keeps={"large_adjustment_id": "id"},
        ),
        Step(
            "POST /adjustments/{adjustment_id}/approve",
            "Nobody approves for themselves",
            403,
            by="admin",
            path={"adjustment_id": "{{large_adjustment_id}}"},
            error="second_admin_required",
        ),
        Step(
            "POST /adjustments/{adjustment_id}/approve",
            "Another admin approves it",
            by="second_admin",
            path={"adjustment_id": "{{large_adjustment_id}}"},
            expects={"id": "{{large_adjustment_id}}", "status": "success", "decided_by": "{{second_admin_id}}"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "An admin asks for another one",
            202,
            by="admin",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body=_FOR_TWO_ADMINS,
            keeps={"rejected_adjustment_id": "id"},
        ),
        Step(
            "POST /adjustments/{adjustment_id}/reject",
            "Another admin rejects it",
            by="second_admin",
            path={"adjustment_id": "{{rejected_adjustment_id}}"},
            body={"reason": "There was one first prize only"},
            expects={"status": "rejected", "rejection_reason": "There was one first prize only"},
        ),
        Step(
            "GET /adjustments/{adjustment_id}",
            "One adjustment",
            by="service",
            expects={"id": "{{adjustment_id}}", "requested_by": "{{service_id}}"},
        ),
        Step(
            "GET /admin/adjustments",
            "Those that were rejected",
            by="admin",
            query={"status": "rejected", "limit": "5"},
            expects={"data.0.status": "rejected"},
        ),
    ),
)

REVERSALS: Final = Folder(
    "Reversals",
    "An admin takes a transfer or an adjustment back, once.",
    (
        Step(
            "POST /transfers/{transfer_id}/reversal",
            "Take a transfer back",
            201,
            by="admin",
            body={"reason": "Sent by a thief"},
            expects={"original_id": "{{transfer_id}}", "taken": 1500, "shortfall": 0},
            keeps={"reversal_id": "id"},
        ),
        Step(
            "POST /transfers/{transfer_id}/reversal",
            "A second time",
            409,
            by="admin",
            body={"reason": "Sent by a thief"},
            error="already_reversed",
        ),
        Step(
            "POST /adjustments/{adjustment_id}/reversal",
            "Take an adjustment back",
            201,
            by="admin",
            body={"reason": "The customer had been charged once after all", "force": True},
            expects={"original_id": "{{adjustment_id}}", "status": "success"},
        ),
        Step(
            "GET /reversals/{reversal_id}",
            "One reversal",
            by="admin",
            expects={"id": "{{reversal_id}}", "original_id": "{{transfer_id}}"},
        ),
    ),
)

_NOT_WAITING: Final = (
    "The story's own operations have ended or are on their way: only what waits for a person is decided here."
)

OUTCOMES: Final = Folder(
    "Outcomes",
    "What the bank left open, contradicted or sent back. A bank that behaves leaves these lists empty.",
    (
        Step(
            "GET /admin/reviews",
            "What waits for a person",
            by="admin",
            query={"limit": "5"},
            tests={"only what waits": 'body.data.forEach((one) => pm.expect(one.status).to.eql("requires_review"));'},
        ),
        Step(
            "GET /admin/operations/{operation_id}",
            "Each call to the bank about a deposit",
            by="admin",
            path={"operation_id": "{{deposit_id}}"},
            expects={"id": "{{deposit_id}}", "type": "deposit"},
            tests={"was submitted": "pm.expect(body.attempts).to.be.at.least(1);"},
        ),
        Step(
            "POST /admin/reviews/{operation_id}/settle",
            "Nothing to decide about",
            409,
            by="admin",
            path={"operation_id": "{{deposit_id}}"},
            body={"reason": "The bank says so on the telephone"},
            error="illegal_transition",
            note=_NOT_WAITING,
        ),
        Step(
            "POST /admin/reviews/{operation_id}/fail",
            "Nothing to give back",
            409,
            by="admin",
            path={"operation_id": "{{deposit_id}}"},
            body={"reason": "The bank says on the telephone that it never got it"},
            error="illegal_transition",
            note=_NOT_WAITING,
        ),
        Step(
            "POST /admin/reviews/{operation_id}/ask-again",
            "Nothing to ask about",
            409,
            by="admin",
            path={"operation_id": "{{deposit_id}}"},
            body={"reason": "The bank is back"},
            error="illegal_transition",
            note=_NOT_WAITING,
        ),
        Step(
            "GET /admin/blocked-withdrawals",
            "What was blocked before the bank got it",
            by="admin",
            query={"limit": "5"},
            tests={"only what is blocked": 'body.data.forEach((one) => pm.expect(one.status).to.eql("blocked"));'},
        ),
        Step(
            "POST /admin/blocked-withdrawals/{operation_id}/release",
            "Nothing to release",
            409,
            by="admin",
            path={"operation_id": "{{deposit_id}}"},
            body={"reason": "The customer has shown whose account it is", "force": True},
            error="illegal_transition",
            note=_NOT_WAITING,
        ),
        Step(
            "POST /admin/blocked-withdrawals/{operation_id}/cancel",
            "Nothing to cancel",
            409,
            by="admin",
            path={"operation_id": "{{deposit_id}}"},
            body={"reason": "The account was taken over by somebody else"},
            error="illegal_transition",
            note=_NOT_WAITING,
        ),
        Step(
            "GET /admin/incidents",
            "Where the bank contradicts the books",
            by="admin",
            query={"status": "open", "limit": "5"},
            tests={"open ones": 'body.data.forEach((one) => pm.expect(one.status).to.eql("open"));'},
        ),
        Step(
            "GET /admin/incidents/{incident_id}",
            "An incident that there is not",
            404,
            by="admin",
            path={"incident_id": "inc_00000000000000000000000000000000"},
            error="not_found",
        ),
        Step(
            "POST /admin/incidents/{incident_id}/explain",
            "None to explain",
            404,
            by="admin",
            path={"incident_id": "inc_00000000000000000000000000000000"},
            body={"reason": "A report of another customer's order"},
            error="not_found",
        ),
        Step(
            "POST /admin/incidents/{incident_id}/resolve",
            "None to resolve",
            404,
            by="admin",
            path={"incident_id": "inc_00000000000000000000000000000000"},
            body={"reason": "Paid back by the bank"},
            error="not_found",
        ),
        Step(
            "GET /admin/returns",
            "What no wallet could follow yet",
            by="admin",
            query={"status": "requires_review", "limit": "5"},
            tests={"waiting ones": 'body.data.forEach((one) => pm.expect(one.status).to.eql("requires_review"));'},
        ),
        Step(
            "GET /admin/returns/{return_id}",
            "A return that there is not",
            404,
            by="admin",
            path={"return_id": "rtn_00000000000000000000000000000000"},
            error="not_found",
        ),
        Step(
            "POST /admin/returns/{return_id}/collect",
            "None to collect",
            404,
            by="admin",
            path={"return_id": "rtn_00000000000000000000000000000000"},
            body={"reason": "The customer has paid in what was missing"},
            error="not_found",
        ),
        Step("GET /admin/incidents", "Not for users", 403, error="forbidden"),
    ),
)

_NEW_VOUCHER: Final = Step(
    "POST /admin/vouchers",
    "Put a voucher into the catalogue",
    201,
    by="admin",
    body={
        "title": "A cup of coffee",
        "description": "Any size, in any of our shops",
        "cost": 100,
        "stock": 500,
        "per_user_limit": 1,
    },
    expects={"cost": 100, "stock": 500, "is_active": True},
    keeps={"voucher_id": "id"},
)

# A sound stack has none.
_NO_BREAK: Final[Any] = {
    "by": "admin",
    "path": {"break_id": "brk_00000000000070008000000000000000"},
    "error": "not_found",
}

ADMIN: Final = Folder(
    "Admin",
    "The books, what was done by whom, and the catalogue of vouchers.",
    (
        Step(
            "GET /admin/trial-balance",
            "Every account against every wallet",
            by="admin",
            expects={"is_balanced": True},
            tests={"adds up to nothing": "body.currencies.forEach((one) => pm.expect(one.total).to.eql(0));"},
        ),
        Step(
            "GET /admin/audit-events",
            "Who froze Tomas' wallet, and why?",
            by="admin",
            query={"action": "wallet.frozen", "subject_id": "{{friend_wallet_id}}"},
            expects={"data.0.action": "wallet.frozen", "data.0.reason": "Reported as stolen"},
            tests={"by whom": 'pm.expect(body.data[0].actor_id).to.eql(pm.environment.get("admin_id"));'},
        ),
        Step(
            "GET /admin/integrity",
            "How the books are, at a glance",
            by="admin",
            expects={"is_sound": True, "trial_balance.is_balanced": True},
        ),
        Step(
            "GET /admin/breaks",
            "Wallets whose balance is not what their entries make",
            by="admin",
            query={"kind": "wallet_balance", "state": "open"},
            expects={"data": [], "has_more": False},
        ),
        Step("GET /admin/breaks/{break_id}", "One break: here there is none", 404, **_NO_BREAK),
        Step(
            "POST /admin/breaks/{break_id}/explain",
            "Say why the books disagree",
            404,
            body={"reason": "A repair by hand that is not finished yet"},
            **_NO_BREAK,
        ),
        Step(
            "POST /admin/breaks/{break_id}/resolve",
            "Close a break for good",
            404,
            body={"reason": "The bank has corrected its statement"},
            **_NO_BREAK,
        ),
        _NEW_VOUCHER,
        Step(
            "PATCH /admin/vouchers/{voucher_id}",
            "A hundred more of them",
            by="admin",
            body={"add_stock": 100},
            expects={"id": "{{voucher_id}}", "stock": 600, "stocked_total": 600},
        ),
        Step(
            "GET /admin/vouchers",
            "All vouchers",
            by="admin",
            query={"limit": "5"},
            expects={"data.0.id": "{{voucher_id}}"},
        ),
        Step(
            "GET /admin/trial-balance",
            "Not for users",
            403,
            error="forbidden",
        ),
    ),
)

POINTS_AND_VOUCHERS: Final = Folder(
    "Points and vouchers",
    "Points are a currency of their own, PTS. Operations earn some where `WALLET_EARNING_RULES` says so; here an admin "
    "gives some. The voucher is the one of the folder Admin, and leaves the catalogue in the end.",
    (
        Step(
            "POST /wallets",
            "Open a wallet for points",
            201,
            body={"currency": "PTS"},
            keeps={"points_wallet_id": "id"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "An admin gives 250 points",
            201,
            by="admin",
            path={"wallet_id": "{{points_wallet_id}}"},
            body={"amount": 250, "currency": "PTS", "reason": "Welcome"},
            expects={"currency": "PTS", "available_after": 250},
        ),
        Step(
            "GET /vouchers",
            "What can be redeemed now",
            query={"limit": "5"},
            expects={"data.0.id": "{{voucher_id}}"},
        ),
        Step("GET /vouchers/{voucher_id}", "One voucher", expects={"id": "{{voucher_id}}", "cost": 100}),
        Step(
            "POST /vouchers/{voucher_id}/redeem",
            "Redeem it",
            201,
            expects={"voucher_id": "{{voucher_id}}", "cost": 100, "balance.available": 150},
            keeps={"redemption_id": "id"},
        ),
        Step(
            "POST /vouchers/{voucher_id}/redeem",
            "Once for each person",
            422,
            error="voucher_limit_reached",
        ),
        Step("GET /redemptions", "What one has redeemed", expects={"data.0.id": "{{redemption_id}}"}),
        Step(
            "GET /redemptions/{redemption_id}",
            "One redemption, with its code",
            expects={"id": "{{redemption_id}}", "voucher_id": "{{voucher_id}}"},
        ),
        Step("GET /rewards", "The points that operations have earned", query={"limit": "5"}),
        Step(
            "PATCH /admin/vouchers/{voucher_id}",
            "The voucher leaves the catalogue",
            by="admin",
            body={"is_active": False},
            expects={"is_active": False},
        ),
    ),
)

WEBHOOKS: Final = Folder(
    "Webhooks",
    "Where the bank reports to, signed as in Standard Webhooks 1.0.0.",
    (
        Step(
            "POST /webhooks/bank-callback",
            "The bank's report",
            (200, 401),
            by=NOBODY,
            before=WEBHOOK_SIGNATURE,
            headers={
                "webhook-id": "{{webhook_id}}",
                "webhook-timestamp": "{{webhook_timestamp}}",
                "webhook-signature": "{{webhook_signature}}",
            },
            body={
                "type": "payment.settled",
                "reference": "{{deposit_id}}",
                "status": "success",
                "amount": 50000,
                "currency": "INR",
            },
            expects={"received": True},
            tests={
                "is accepted where the secret is known": "const isKnown = Boolean(pm.environment.get("
                '"bank_webhook_secret"));\npm.expect(pm.response.code).to.eql(isKnown ? 200 : 401);'
            },
            note="The stack has a secret of its own. Put it into `bank_webhook_secret` and the answer is 200 (what had "
            "settled before stays as it is); without it this is a forgery, and refused with 401 `invalid_signature`.",
        ),
        Step(
            "POST /webhooks/bank-callback",
            "A report without a signature",
            401,
            by=NOBODY,
            body={
                "type": "payment.settled",
                "reference": "{{deposit_id}}",
                "status": "failed",
                "amount": 50000,
                "currency": "INR",
            },
            error="invalid_signature",
        ),
    ),
)

_A_CREDIT: Final = {"amount": 100, "currency": "INR", "reason": "A returned bottle"}

API_KEYS: Final = Folder(
    "API keys",
    "What a service sends as `X-API-Key` in place of a token. Admins make them; the secret is shown once. What moves "
    "other people's money opens nothing before another admin has confirmed it.",
    (
        Step(
            "POST /admin/api-keys",
            "Make one for relay that only looks",
            201,
            by="admin",
            body={"user_id": "{{service_id}}", "name": "Shop, display", "permissions": ["wallets:read"]},
            expects={"user_id": "{{service_id}}", "status": "active", "proposal_id": None},
            keeps={"key_id": "id"},
        ),
        Step(
            "POST /admin/api-keys/{key_id}/rotate",
            "Another secret for it",
            by="admin",
            body={"overlap_s": 0},
            expects={"id": "{{key_id}}", "proposal_id": None},
        ),
        Step(
            "POST /admin/api-keys",
            "Make one that moves money",
            202,
            by="admin",
            body={
                "user_id": "{{service_id}}",
                "name": "Shop, till 4",
                "permissions": ["adjustments:read", "adjustments:write"],
            },
            expects={"user_id": "{{service_id}}", "status": "requires_approval"},
            keeps={"key_id": "id", "api_key": "secret", "key_proposal_id": "proposal_id"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "It opens nothing yet",
            401,
            api_key="api_key",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body=_A_CREDIT,
            error="unauthenticated",
        ),
        Step(
            "POST /admin/proposals/{proposal_id}/approve",
            "jonas confirms it",
            by="second_admin",
            path={"proposal_id": "{{key_proposal_id}}"},
            expects={"status": "success", "api_key_id": "{{key_id}}"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "Use it",
            201,
            api_key="api_key",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body=_A_CREDIT,
            expects={"status": "success", "requested_by": "{{service_id}}"},
        ),
        Step("GET /wallets", "It may do no more than was given to it", 403, api_key="api_key", error="forbidden"),
        Step("GET /admin/api-keys", "All keys", by="admin", query={"limit": "5"}, expects={"data.0.id": "{{key_id}}"}),
        Step("GET /admin/api-keys/{key_id}", "One key", by="admin", expects={"id": "{{key_id}}", "status": "active"}),
        Step(
            "POST /admin/api-keys/{key_id}/rotate",
            "Another secret for the one that moves money",
            202,
            by="admin",
            body={"overlap_s": 0},
            expects={"id": "{{key_id}}"},
            keeps={"new_api_key": "secret", "key_proposal_id": "proposal_id"},
        ),
        Step(
            "POST /admin/proposals/{proposal_id}/approve",
            "jonas confirms the new secret",
            by="second_admin",
            path={"proposal_id": "{{key_proposal_id}}"},
            expects={"kind": "api_key_rotation", "status": "success"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "The secret before is none any more",
            401,
            api_key="api_key",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body=_A_CREDIT,
            error="unauthenticated",
        ),
        Step(
            "DELETE /admin/api-keys/{key_id}",
            "Revoke it",
            by="admin",
            query={"reason": "Till 4 is gone"},
            expects={"id": "{{key_id}}", "status": "revoked"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "A revoked one does nothing",
            401,
            api_key="new_api_key",
            path={"wallet_id": "{{friend_wallet_id}}"},
            body=_A_CREDIT,
            error="unauthenticated",
        ),
    ),
)

_TOMAS: Final = {"email": "{{friend_email}}", "password": "{{friend_password}}"}

USER_ADMINISTRATION: Final = Folder(
    "User administration",
    "Other people's accounts. Tomas is shut out, let in again, and is a service for a moment.",
    (
        Step(
            "GET /admin/users",
            "Find somebody",
            by="admin",
            query={"email": "{{friend_email}}"},
            expects={"data.0.id": "{{friend_id}}", "has_more": False},
        ),
        Step(
            "GET /admin/users/{user_id}",
            "One user",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            expects={"id": "{{friend_id}}", "email": "{{friend_email}}", "is_active": True},
        ),
        Step(
            "PUT /admin/users/{user_id}/roles",
            "Give a role: another admin has to confirm it",
            202,
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"roles": ["user", "service"], "reason": "Integrates the shop"},
            expects={"kind": "roles", "status": "requires_approval", "roles": ["user", "service"]},
            keeps={"proposal_id": "id"},
        ),
        Step(
            "POST /admin/proposals/{proposal_id}/approve",
            "jonas confirms it",
            by="second_admin",
            expects={"status": "success", "user_id": "{{friend_id}}"},
        ),
        Step(
            "POST /admin/users/{user_id}/deactivate",
            "Shut somebody out",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"reason": "Asked for it on the telephone"},
            expects={"id": "{{friend_id}}", "is_active": False},
        ),
        Step(
            "POST /transfers",
            "Tomas can begin nothing any more",
            (403, 401),
            by="friend",
            body={
                "from_wallet_id": "{{friend_wallet_id}}",
                "to_wallet_id": "{{wallet_id}}",
                "amount": 100,
                "currency": "INR",
            },
            error="account_deactivated",
            note="403 from the ledger, which looks at the user itself; 401 once this process of the API has heard that "
            "their tokens have ended, within a second.",
        ),
        Step(
            "POST /admin/users/{user_id}/reactivate",
            "Let somebody in again",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"reason": "Was somebody else"},
            expects={"id": "{{friend_id}}", "is_active": True},
        ),
        Step(
            "PUT /admin/users/{user_id}/roles",
            "Take it away",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"roles": ["user"], "reason": "The shop is integrated"},
            expects={"roles": ["user"]},
            note="Whoever loses a role is out at once, and logs in anew.",
        ),
        Step("POST /auth/login", "Tomas logs in again", by=NOBODY, body=_TOMAS, keeps={"friend_token": "access_token"}),
        Step(
            "POST /admin/users/{user_id}/deactivate",
            "Nobody does it to themselves",
            403,
            by="admin",
            path={"user_id": "{{admin_id}}"},
            body={"reason": "Enough for today"},
            error="own_account",
        ),
    ),
)

PROPOSALS: Final = Folder(
    "Access proposals",
    "What gives somebody more access: one admin asks for it, another one confirms it. Taking access away needs one.",
    (
        Step(
            "PUT /admin/users/{user_id}/roles",
            "ines asks to make Tomas an admin",
            202,
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"roles": ["user", "admin"], "reason": "Helps out in July"},
            expects={"status": "requires_approval"},
            keeps={"proposal_id": "id"},
        ),
        Step(
            "POST /admin/proposals/{proposal_id}/approve",
            "Nobody confirms what they asked for",
            403,
            by="admin",
            error="second_admin_required",
        ),
        Step(
            "GET /admin/proposals",
            "What waits for a second admin",
            by="second_admin",
            query={"status": "requires_approval", "limit": "1"},
            expects={"data.0.id": "{{proposal_id}}"},
        ),
        Step(
            "POST /admin/proposals/{proposal_id}/reject",
            "jonas rejects it",
            by="second_admin",
            body={"reason": "July is over"},
            expects={"status": "rejected", "rejection_reason": "July is over"},
        ),
        Step(
            "GET /admin/proposals/{proposal_id}",
            "What became of it",
            by="admin",
            expects={"status": "rejected", "was_roles": ["user"]},
        ),
        Step(
            "POST /admin/users/{user_id}/totp/remove",
            "ines asks to remove the app of vera",
            202,
            by="admin",
            path={"user_id": "{{demo_app_id}}"},
            body={"reason": "Says that the telephone is lost"},
            expects={"kind": "totp_removal", "status": "requires_approval"},
            keeps={"proposal_id": "id"},
        ),
        Step(
            "POST /admin/proposals/{proposal_id}/reject",
            "She has found it again",
            by="admin",
            body={"reason": "The telephone is back"},
            expects={"status": "rejected"},
        ),
        Step(
            "PUT /admin/users/{user_id}/roles",
            "ines asks to make Tomas a service",
            202,
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"roles": ["user", "service"], "reason": "Integrates the shop"},
            keeps={"proposal_id": "id"},
        ),
        Step(
            "POST /admin/proposals/{proposal_id}/approve",
            "jonas confirms it",
            by="second_admin",
            expects={"status": "success", "roles": ["user", "service"]},
        ),
        Step(
            "PUT /admin/users/{user_id}/roles",
            "Taking it away needs nobody else",
            by="admin",
            path={"user_id": "{{friend_id}}"},
            body={"roles": ["user"], "reason": "The shop is integrated"},
            expects={"roles": ["user"]},
        ),
        Step("POST /auth/login", "Tomas logs in again", by=NOBODY, body=_TOMAS, keeps={"friend_token": "access_token"}),
    ),
)

_NO_LETTER: Final = {"dead_letter_id": "dlq_0198c0ffee0070008000000000000001"}

DEAD_LETTERS: Final = Folder(
    "Dead letters",
    "What the workers could not do, however often they tried. In a sound stack there are none.",
    (
        Step(
            "GET /admin/dead-letters",
            "What waits for somebody",
            by="admin",
            query={"state": "dead", "queue": "outbox", "limit": "5"},
            expects={"next_cursor": None},
        ),
        Step(
            "POST /admin/dead-letters/replay",
            "Put many back into their queues",
            by="admin",
            body={"queue": "outbox", "error_type": "NoSuchError", "limit": 100},
            expects={"replayed": 0, "has_more": False},
        ),
        Step(
            "GET /admin/dead-letters/{dead_letter_id}",
            "One that there is not",
            404,
            by="admin",
            path=_NO_LETTER,
            error="not_found",
        ),
        Step(
            "POST /admin/dead-letters/{dead_letter_id}/replay",
            "Put one back",
            404,
            by="admin",
            path=_NO_LETTER,
            error="not_found",
        ),
        Step(
            "POST /admin/dead-letters/{dead_letter_id}/discard",
            "Give one up",
            404,
            by="admin",
            path=_NO_LETTER,
            body={"reason": "Its user is gone"},
            error="not_found",
        ),
    ),
)
