"""Workflows across the API's parts; the first one is where to begin."""

from typing import Final

from scripts.postman.snippets import TOTP_CODE
from scripts.postman.steps import NOBODY, Folder, Step, Wait

UNTIL_SETTLED: Final = Wait(member="status", while_it_is=("pending", "processing"))

MAIN: Final = Folder(
    "Start here: create user, deposit, check balance, withdraw",
    "The main job. The bank is slow: deposits and withdrawals are accepted at once (202) and settled within some "
    "seconds, so the requests that wait ask again once a second, at most 45 times.",
    (
        Step(
            "POST /auth/register",
            "1. Create a user",
            201,
            by=NOBODY,
            before='pm.environment.set("user_email", `priya.${Date.now()}@example.com`);',
            body={
                "first_name": "Priya",
                "last_name": "Nair",
                "email": "{{user_email}}",
                "password": "{{user_password}}",
            },
            expects={"user.email": "{{user_email}}", "wallet.currency": "INR", "wallet.available": 0},
            keeps={"user_id": "user.id", "wallet_id": "wallet.id"},
            note="A new address each time, so that it can be run again.",
        ),
        Step(
            "POST /auth/login",
            "2. Log in",
            by=NOBODY,
            body={"email": "{{user_email}}", "password": "{{user_password}}"},
            expects={"token_type": "bearer", "user.id": "{{user_id}}"},
            keeps={"user_token": "access_token"},
        ),
        Step(
            "POST /deposits",
            "3. Deposit 500.00 INR",
            202,
            body={"amount": 50000, "currency": "INR", "source": "savings-success", "category": "salary"},
            expects={"status": "pending", "amount": 50000, "wallet_id": "{{wallet_id}}"},
            keeps={"deposit_id": "id"},
            note="The simulated bank pays from any account that ends in `-success`.",
        ),
        Step(
            "GET /deposits/{deposit_id}",
            "4. Wait until the deposit has settled",
            wait=UNTIL_SETTLED,
            expects={"status": "success"},
            keeps={"deposit_settled_at": "updated_at"},
        ),
        Step(
            "GET /users/{user_id}/balance",
            "5. Check the balance",
            expects={"user_id": "{{user_id}}", "balances.0.available": 50000, "balances.0.held": 0},
        ),
        Step(
            "POST /withdrawals",
            "6. Withdraw 200.00 INR",
            202,
            before='pm.environment.set("withdrawal_key", pm.variables.replaceIn("{{$guid}}"));',
            key="{{withdrawal_key}}",
            body={"amount": 20000, "currency": "INR", "destination": "shop-success", "category": "rent"},
            expects={"status": "pending", "amount": 20000},
            keeps={"withdrawal_id": "id"},
            tests={
                "is not a replay": 'pm.expect(pm.response.headers.has("Idempotent-Replayed")).to.be.false;',
                "shows only the end of the account": 'pm.expect(body.destination).to.eql("•••• cess");',
            },
        ),
        Step(
            "POST /withdrawals",
            "7. Send the same again: nothing moves twice",
            202,
            key="{{withdrawal_key}}",
            body={"amount": 20000, "currency": "INR", "destination": "shop-success", "category": "rent"},
            expects={"id": "{{withdrawal_id}}", "status": "pending"},
            tests={"is a replay": 'pm.expect(pm.response.headers.get("Idempotent-Replayed")).to.eql("true");'},
            note="The same key and the same body: the first answer again, byte for byte.",
        ),
        Step(
            "GET /wallets/{wallet_id}",
            "8. The amount is no longer available",
            expects={"available": 30000},
            note="It is `held` until the bank has paid.",
        ),
        Step(
            "GET /withdrawals/{withdrawal_id}",
            "9. Wait until the withdrawal has settled",
            wait=UNTIL_SETTLED,
            expects={"status": "success", "failure_code": None},
        ),
        Step(
            "GET /users/{user_id}/balance",
            "10. Check the balance again",
            expects={"balances.0.available": 30000, "balances.0.held": 0, "balances.0.balance": 30000},
        ),
        Step(
            "GET /wallets/{wallet_id}/transactions",
            "11. See what moved",
            expects={
                "data.0.type": "WITHDRAWAL_SETTLEMENT",
                "data.1.type": "WITHDRAWAL",
                "data.2.type": "DEPOSIT",
                "has_more": False,
            },
            keeps={"entry_id": "data.2.id"},
            tests={"each entry seals the one before": "pm.expect(body.data[0].prev_hash).to.eql(body.data[1].hash);"},
        ),
    ),
)


def _logs_in(title: str, name: str) -> Step:
    return Step(
        "POST /auth/login",
        title,
        by=NOBODY,
        body={"email": f"{{{{{name}_email}}}}", "password": f"{{{{{name}_password}}}}"},
        keeps={f"{name}_token": "access_token", f"{name}_id": "user.id"},
    )


OTHERS: Final = Folder(
    "Who else takes part",
    "Tomas, whom Priya pays, and five of the demo users: asha, the admins ines and jonas, the service relay, and vera, "
    "who has an authenticator app.",
    (
        Step(
            "POST /auth/register",
            "Create Tomas",
            201,
            by=NOBODY,
            before='pm.environment.set("friend_email", `tomas.${Date.now()}@example.com`);',
            body={
                "first_name": "Tomas",
                "last_name": "Lund",
                "email": "{{friend_email}}",
                "password": "{{friend_password}}",
            },
            keeps={"friend_wallet_id": "wallet.id"},
        ),
        _logs_in("Tomas logs in", "friend"),
        _logs_in("asha logs in", "demo"),
        _logs_in("ines, an admin, logs in", "admin"),
        _logs_in("jonas, another admin, logs in", "second_admin"),
        _logs_in("relay, a service, logs in", "service"),
        _logs_in("vera, who has an authenticator app, logs in", "demo_app"),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "ines puts 1,100,000.00 INR into Priya's wallet",
            202,
            by="admin",
            body={"amount": 110000000, "currency": "INR", "reason": "So that there is something to pay with"},
            expects={"status": "requires_approval", "wallet_id": "{{wallet_id}}"},
            keeps={"funding_id": "id"},
            note="It takes two admins, so that the story can be run often: what one moves alone in a day is bounded.",
        ),
        Step(
            "POST /adjustments/{adjustment_id}/approve",
            "jonas approves it",
            by="second_admin",
            path={"adjustment_id": "{{funding_id}}"},
            expects={"id": "{{funding_id}}", "status": "success"},
        ),
    ),
)

LARGE_PAYMENT: Final = Folder(
    "Workflow: a large payment, confirmed with an authenticator app",
    "What is above `WALLET_STEP_UP_ABOVE` (200,000.00 INR) waits for a one-time code. Without an app the code comes by "
    "mail, which a collection cannot read; vera has an app, and the script before the request computes its code.",
    (
        Step(
            "GET /wallets",
            "1. vera's wallet",
            by="demo_app",
            expects={"data.0.currency": "INR"},
            keeps={"demo_app_wallet_id": "data.0.id"},
        ),
        Step(
            "POST /wallets/{wallet_id}/credits",
            "2. ines asks to put 1,100,000.00 INR into it",
            202,
            by="admin",
            path={"wallet_id": "{{demo_app_wallet_id}}"},
            body={"amount": 110000000, "currency": "INR", "reason": "So that there is something to pay with"},
            expects={"status": "requires_approval", "wallet_id": "{{demo_app_wallet_id}}"},
            keeps={"funding_id": "id"},
        ),
        Step(
            "POST /adjustments/{adjustment_id}/approve",
            "3. jonas approves it",
            by="second_admin",
            path={"adjustment_id": "{{funding_id}}"},
            expects={"id": "{{funding_id}}", "status": "success"},
        ),
        Step(
            "POST /transfers",
            "4. Transfer 250,000.00 INR: it requires approval",
            202,
            by="demo_app",
            body={
                "from_wallet_id": "{{demo_app_wallet_id}}",
                "to_wallet_id": "{{friend_wallet_id}}",
                "amount": 25000000,
                "currency": "INR",
                "description": "For the boat",
            },
            expects={"status": "requires_approval"},
            keeps={"large_transfer_id": "id"},
        ),
        Step(
            "POST /transfers/{transfer_id}/confirm",
            "5. Confirm it with the app's code",
            by="demo_app",
            path={"transfer_id": "{{large_transfer_id}}"},
            before=TOTP_CODE,
            body={"code": "{{totp_code}}"},
            expects={"status": "success", "id": "{{large_transfer_id}}"},
        ),
        Step(
            "GET /wallets/{wallet_id}/transactions",
            "6. Tomas has it",
            by="friend",
            path={"wallet_id": "{{friend_wallet_id}}"},
            query={"type": "TRANSFER_IN"},
            expects={"data.0.amount": 25000000, "data.0.reference": "{{large_transfer_id}}"},
        ),
        Step(
            "POST /me/totp/recovery-codes",
            "7. Ten new recovery codes, with the app's next code",
            by="demo_app",
            before=TOTP_CODE,
            body={"code": "{{totp_code}}"},
            expects={"status": "active"},
            keeps={
                "recovery_code_1": "recovery_codes.0",
                "recovery_code_2": "recovery_codes.1",
                "recovery_code_3": "recovery_codes.2",
            },
            tests={"there are ten recovery codes": "pm.expect(body.recovery_codes).to.have.lengthOf(10);"},
            note="A mail tells vera of it.",
        ),
    ),
)
