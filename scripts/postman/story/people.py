"""Health, users, their log-ins and their second factor."""

from typing import Final

from scripts.postman.steps import NOBODY, Folder, Step

HEALTH: Final = Folder(
    "Health",
    "For people, load balancers and orchestrators. Nobody has to log in for these.",
    (
        Step(
            "GET /livez",
            "Does the process work?",
            by=NOBODY,
            headers={"X-Request-ID": "{{$guid}}"},
            expects={"status": "ok"},
            tests={
                "gives the request's id back": 'pm.expect(pm.response.headers.get("X-Request-ID"))'
                '.to.eql(pm.request.headers.get("X-Request-ID"));'
            },
        ),
        Step(
            "GET /readyz",
            "Can it serve requests?",
            by=NOBODY,
            expects={"checks.mongodb": "ok", "checks.ledger": "ok"},
        ),
        Step("GET /health", "Every part by name", by=NOBODY, expects={"status": "ok", "checks.redis": "ok"}),
        Step("GET /metrics", "What Prometheus is told", by=NOBODY),
    ),
)

AUTHENTICATION: Final = Folder(
    "Authentication",
    "Registering and logging in. The password must not be one that others would guess early.",
    (
        Step(
            "POST /auth/register",
            "The address is taken",
            409,
            by=NOBODY,
            body={
                "first_name": "Priya",
                "last_name": "Nair",
                "email": "{{user_email}}",
                "password": "{{user_password}}",
            },
            error="email_taken",
            note="Where accounts are opened by mail, as in production, the answer is 202 whoever has the address.",
        ),
        Step(
            "POST /auth/register/confirm",
            "A registration token of one's own making",
            422,
            by=NOBODY,
            body={"token": "wev_bm90IG9uZSB0aGF0IGNhbWUgYnkgbWFpbA", "password": "{{user_password}}"},
            error="invalid_proof_token",
            note="With the one of the mail the answer is 200, the address is proven, and one logs in anew.",
        ),
        Step(
            "POST /auth/login",
            "Log in",
            by=NOBODY,
            body={"email": "{{user_email}}", "password": "{{user_password}}"},
            expects={"token_type": "bearer", "user.email": "{{user_email}}"},
            keeps={"user_token": "access_token"},
            tests={"is in no cache": 'pm.expect(pm.response.headers.get("Cache-Control")).to.include("no-store");'},
        ),
        Step(
            "POST /auth/login",
            "A wrong password",
            401,
            by=NOBODY,
            body={"email": "{{friend_email}}", "password": "not-the-password-of-tomas"},
            error="invalid_credentials",
            note="The same answer, after the same time, as for an address that nobody has.",
        ),
    ),
)

USERS: Final = Folder(
    "Users",
    "Oneself, and what one has.",
    (
        Step("GET /me", "Oneself", expects={"id": "{{user_id}}", "email": "{{user_email}}", "is_active": True}),
        Step(
            "PATCH /me",
            "Where one's days begin",
            body={"time_zone": "Asia/Kolkata"},
            expects={"id": "{{user_id}}", "time_zone": "Asia/Kolkata"},
        ),
        Step("GET /users/{user_id}/balance", "What one has, wallet by wallet", expects={"user_id": "{{user_id}}"}),
        Step(
            "GET /users/{user_id}/balance",
            "What one had when the deposit had settled",
            query={"at": "{{deposit_settled_at}}"},
            expects={"balances.0.available": 50000},
        ),
        Step(
            "GET /users/{user_id}/transactions",
            "The entries of all wallets",
            query={"limit": "2"},
            keeps={"entries_cursor": "next_cursor"},
            expects={"has_more": True},
            tests={"has as many as asked for": "pm.expect(body.data).to.have.lengthOf(2);"},
        ),
        Step(
            "GET /users/{user_id}/transactions",
            "The page after it",
            query={"limit": "2", "cursor": "{{entries_cursor}}"},
        ),
        Step(
            "GET /users/{user_id}/balance",
            "Somebody else's balance does not exist",
            404,
            path={"user_id": "{{friend_id}}"},
            error="not_found",
        ),
    ),
)

_TOMAS: Final = {"email": "{{friend_email}}", "password": "{{friend_password}}"}
_A_LITTLE: Final = {
    "from_wallet_id": "{{friend_wallet_id}}",
    "to_wallet_id": "{{wallet_id}}",
    "amount": 100,
    "currency": "INR",
}

SESSIONS: Final = Folder(
    "Sessions",
    "Each login begins a session; its refresh token is good once, for the next two tokens. Tomas logs in on his phone "
    "too, and ends what he has begun.",
    (
        Step(
            "POST /auth/login",
            "Tomas logs in on his phone",
            by=NOBODY,
            body=_TOMAS,
            keeps={"phone_token": "access_token", "phone_refresh_token": "refresh_token"},
        ),
        Step(
            "POST /auth/refresh",
            "The next tokens",
            by=NOBODY,
            body={"refresh_token": "{{phone_refresh_token}}"},
            expects={"token_type": "bearer"},
            keeps={"phone_token": "access_token", "phone_refresh_token": "refresh_token"},
            tests={"is in no cache": 'pm.expect(pm.response.headers.get("Cache-Control")).to.include("no-store");'},
        ),
        Step(
            "GET /me/sessions",
            "The sessions of Tomas, seen from the phone",
            by="phone",
            expects={"data.0.is_current": True, "data.1.is_current": False},
            keeps={"phone_session_id": "data.0.id"},
        ),
        Step(
            "DELETE /me/sessions/{session_id}",
            "End the phone's, from elsewhere",
            204,
            by="friend",
            path={"session_id": "{{phone_session_id}}"},
        ),
        Step(
            "POST /auth/refresh",
            "It gets no tokens any more",
            401,
            by=NOBODY,
            body={"refresh_token": "{{phone_refresh_token}}"},
            error="invalid_refresh_token",
        ),
        Step("POST /auth/logout", "Log out", 204, by="friend"),
        Step("POST /auth/login", "Log in again", by=NOBODY, body=_TOMAS, keeps={"friend_token": "access_token"}),
        Step("POST /auth/logout-all", "Log out everywhere", 204, by="friend"),
        Step(
            "POST /transfers",
            "No token from before moves money",
            401,
            by="friend",
            body=_A_LITTLE,
            error="unauthenticated",
        ),
        Step("POST /auth/login", "Log in once more", by=NOBODY, body=_TOMAS, keeps={"friend_token": "access_token"}),
    ),
)

PASSWORDS: Final = Folder(
    "Passwords",
    "A new one by the old one, or by a token that comes by mail, which a collection cannot read.",
    (
        Step(
            "POST /me/password",
            "Change the password",
            by="friend",
            body={"current_password": "{{friend_password}}", "new_password": "{{friend_new_password}}"},
            expects={"token_type": "bearer"},
            keeps={"friend_token": "access_token"},
            note="Every token from before is out; the answer has those of a new session.",
        ),
        Step(
            "POST /me/password",
            "The old one is none any more",
            422,
            by="friend",
            body={"current_password": "{{friend_password}}", "new_password": "{{friend_new_password}}"},
            error="wrong_password",
        ),
        Step(
            "POST /me/password",
            "Change it back",
            by="friend",
            body={"current_password": "{{friend_new_password}}", "new_password": "{{friend_password}}"},
            keeps={"friend_token": "access_token"},
        ),
        Step(
            "POST /auth/password-reset",
            "Ask for a reset token by mail",
            (202, 429),
            by=NOBODY,
            body={"email": "{{friend_email}}"},
            note="The same answer whoever it is. An address that asks all the time has to wait: 429.",
        ),
        Step(
            "POST /auth/password-reset/confirm",
            "A reset token of one's own making",
            422,
            by=NOBODY,
            body={"token": "wpr_bm90IG9uZSB0aGF0IGNhbWUgYnkgbWFpbA", "new_password": "{{friend_new_password}}"},
            error="invalid_reset_token",
            note="With the one of the mail the answer is 204, and every session and token from before is out.",
        ),
    ),
)

SECOND_FACTOR: Final = Folder(
    "Second factor",
    "An authenticator app (TOTP, RFC 6238). Tomas begins with one; the code that makes it count comes by mail, which a "
    "collection cannot read. vera has one already.",
    (
        Step("GET /me/totp", "Is there one?", by="friend", expects={"status": "none", "recovery_codes_left": 0}),
        Step(
            "POST /me/totp",
            "Begin",
            201,
            by="friend",
            body={"password": "{{friend_password}}"},
            expects={"status": "pending"},
        ),
        Step(
            "POST /me/totp/confirm",
            "Without the mailed code it does not count",
            422,
            by="friend",
            body={"code": "123456", "mailed_code": "123456"},
            error="invalid_code",
        ),
        Step(
            "POST /me/totp/recovery-codes",
            "Ten new recovery codes, with an old one",
            by="demo_app",
            body={"code": "{{recovery_code_3}}"},
            expects={"status": "active"},
            note="A recovery code stands for the app's code once.",
        ),
        Step(
            "POST /me/totp/disable",
            "Nobody gives the app up without a code of it",
            422,
            by="demo_app",
            body={"password": "{{demo_app_password}}", "code": "wrong"},
            error="invalid_code",
        ),
    ),
)

_DELIVERY: Final = {"delivery_id": "whd_0198c0ffee0070008000000000000001"}

WEBHOOK_ENDPOINTS: Final = Folder(
    "Webhook endpoints",
    "Being told of events at a URL. The endpoint here is disabled right away: put a receiver of yours into "
    "`webhook_url`, leave that step out, and the test event arrives.",
    (
        Step(
            "POST /webhook-endpoints",
            "Be told when a wallet is closed",
            201,
            body={"url": "{{webhook_url}}", "event_types": ["wallet.closed"], "description": "Books"},
            expects={"status": "active", "event_types.0": "wallet.closed"},
            keeps={"endpoint_id": "id"},
            tests={"shows the secret": "pm.expect(body.secret).to.match(/^whsec_/);"},
        ),
        Step(
            "POST /webhook-endpoints",
            "Not to ourselves",
            422,
            body={"url": "https://169.254.169.254/latest/meta-data"},
            error="invalid_fields",
            expects={"errors.0.pointer": "/url"},
        ),
        Step(
            "PATCH /webhook-endpoints/{endpoint_id}",
            "Not now",
            body={"status": "disabled"},
            expects={"status": "disabled", "disabled_reason": "by_owner"},
        ),
        Step("GET /webhook-endpoints", "One's own", expects={"data.0.id": "{{endpoint_id}}"}),
        Step(
            "GET /webhook-endpoints/{endpoint_id}",
            "One of them, without its secret",
            tests={"shows no secret": 'pm.expect(body).to.not.have.property("secret");'},
        ),
        Step(
            "POST /webhook-endpoints/{endpoint_id}/rotate-secret",
            "Another secret; for an hour both sign",
            body={"overlap_s": 3600},
            tests={"shows the new one": "pm.expect(body.secret).to.match(/^whsec_/);"},
        ),
        Step(
            "POST /webhook-endpoints/{endpoint_id}/test",
            "Nothing is sent to a disabled one",
            409,
            error="webhook_endpoint_disabled",
        ),
        Step("GET /webhook-endpoints/{endpoint_id}/deliveries", "What was sent: nothing yet"),
        Step(
            "GET /webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}",
            "One delivery, which is not there",
            404,
            path=_DELIVERY,
            error="not_found",
        ),
        Step(
            "POST /webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
            "Nothing is sent again to a disabled one either",
            409,
            path=_DELIVERY,
            error="webhook_endpoint_disabled",
        ),
        Step("DELETE /webhook-endpoints/{endpoint_id}", "Nothing more", 204),
    ),
)
