"""How the service says no: what every client meets sooner or later."""

from typing import Any, Final

from scripts.postman.steps import NOBODY, Folder, Step

_DEPOSIT: Final[dict[str, Any]] = {"amount": 10000, "currency": "INR", "source": "savings-success"}

REFUSALS: Final = Folder(
    "Refusals",
    "Every error is `application/problem+json` (RFC 9457), with a code in `error` that clients go by, and the id of "
    "the request.",
    (
        Step("GET /me", "Without a token", 401, by=NOBODY, error="unauthenticated"),
        Step("POST /deposits", "Without a key", 400, key=None, body=_DEPOSIT, error="idempotency_key_missing"),
        Step(
            "POST /withdrawals",
            "The same key for another amount",
            422,
            key="{{withdrawal_key}}",
            body={"amount": 20001, "currency": "INR", "destination": "shop-success", "category": "rent"},
            error="idempotency_key_reused",
        ),
        Step(
            "POST /deposits",
            "An amount that is not a whole number",
            422,
            body={**_DEPOSIT, "amount": 100.5},
            error="invalid_fields",
            tests={"says where": 'pm.expect(body.errors[0].pointer).to.eql("/amount");'},
        ),
        Step(
            "POST /deposits",
            "A field that is not known",
            422,
            body={**_DEPOSIT, "user_id": "{{friend_id}}"},
            error="invalid_fields",
            tests={"says where": 'pm.expect(body.errors[0].pointer).to.eql("/user_id");'},
        ),
        Step("POST /deposits", "Not JSON", 400, body='{"amount": 10000,', error="malformed_request"),
        Step(
            "POST /withdrawals",
            "No wallet in this currency",
            422,
            by="friend",
            body={"amount": 100, "currency": "EUR", "destination": "shop-success"},
            error="no_wallet_in_currency",
        ),
        Step(
            "GET /deposits",
            "A cursor of one's own making",
            400,
            query={"cursor": "bm90IGEgY3Vyc29y"},
            error="invalid_cursor",
        ),
        Step(
            "GET /wallets/{wallet_id}",
            "Somebody else's wallet does not exist",
            404,
            by="friend",
            error="not_found",
        ),
    ),
)
