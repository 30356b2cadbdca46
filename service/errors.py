"""The error tree: one class, one code, one HTTP status, with facts.

WalletServiceError
├── Malformed                      400 malformed_request
│   ├── BodyTooLarge               413 body_too_large
│   ├── UnsupportedMediaType       415 unsupported_media_type
│   ├── RequestTimeout             408 request_timeout
│   ├── UriTooLong                 414 uri_too_long
│   ├── HeadersTooLarge            431 headers_too_large
│   ├── UpgradeRequired            426 upgrade_required
│   ├── IdempotencyKeyMissing      400 idempotency_key_missing
│   ├── IdempotencyKeyInvalid      400 idempotency_key_invalid
│   └── InvalidCursor              400 invalid_cursor
├── InvalidFields                  422 invalid_fields
├── Unauthenticated                401 unauthenticated
│   ├── InvalidCredentials         401 invalid_credentials
│   ├── InvalidRefreshToken        401 invalid_refresh_token
│   └── InvalidSignature           401 invalid_signature
├── AccountDeactivated             403 account_deactivated
├── Forbidden                      403 forbidden
│   ├── SecondAdminRequired        403 second_admin_required
│   └── OwnAccount                 403 own_account
├── NotFound                       404 not_found
├── MethodNotAllowed               405 method_not_allowed
├── Conflict                       409 conflict
│   ├── EmailTaken                 409 email_taken
│   ├── WalletExists               409 wallet_exists
│   ├── IdempotencyKeyInFlight     409 idempotency_key_in_flight
│   ├── IllegalTransition          409 illegal_transition
│   ├── StillBlocked               409 still_blocked
│   ├── UserLockedDown             409 user_locked_down
│   ├── ApprovalLapsed             409 approval_lapsed
│   ├── TooManyTries               409 too_many_tries
│   ├── TotpAlreadyActive          409 totp_already_active
│   ├── TotpNotEnrolled            409 totp_not_enrolled
│   ├── NotCheckpointed            409 not_checkpointed
│   ├── QuoteExpired               409 quote_expired
│   ├── QuoteUsed                  409 quote_used
│   ├── HoldExpired                409 hold_expired
│   ├── RecipientAlreadyNamed      409 recipient_already_named
│   ├── WalletNotEmpty             409 wallet_not_empty
│   ├── WalletHasOpenOperations    409 wallet_has_open_operations
│   ├── WalletBooksDisagree        409 wallet_books_disagree
│   ├── AlreadyReversed            409 already_reversed
│   ├── DeadLetterEnded            409 dead_letter_ended
│   ├── DeadLetterNeeded           409 dead_letter_needed
│   ├── TooManyWebhookEndpoints    409 too_many_webhook_endpoints
│   ├── WebhookEndpointDisabled    409 webhook_endpoint_disabled
│   ├── WebhookTestPending         409 webhook_test_pending
│   └── ApiKeyEnded                409 api_key_ended
├── IdempotencyKeyReused           422 idempotency_key_reused
├── InsufficientFunds              422 insufficient_funds
├── BalanceOverflow                422 balance_overflow
├── NoWalletInCurrency             422 no_wallet_in_currency
├── WalletFrozen                   422 wallet_frozen
├── WalletClosed                   422 wallet_closed
├── WalletOwes                     422 wallet_owes
├── LimitExceeded                  422 limit_exceeded
├── HouseFundsExhausted            422 house_funds_exhausted
├── SameWallet                     422 same_wallet
├── CurrencyMismatch               422 currency_mismatch
├── RecipientNotFound              404 recipient_not_found
├── RecipientWalletFrozen          422 recipient_wallet_frozen
├── RecipientBalanceOverflow       422 recipient_balance_overflow
├── TransferBatchRefused           422 transfer_batch_refused
├── RefusedEarlier                 422 refused_earlier
├── VoucherNotValid                422 voucher_not_valid
├── VoucherSoldOut                 422 voucher_sold_out
├── VoucherLimitReached            422 voucher_limit_reached
├── VoucherStockTooLow             422 voucher_stock_too_low
├── InvalidCode                    422 invalid_code
├── WrongPassword                  422 wrong_password
├── InvalidResetToken              422 invalid_reset_token
├── InvalidProofToken              422 invalid_proof_token
├── TooManyAttempts                429 too_many_attempts
├── RateLimitExceeded              429 rate_limit_exceeded
├── TooManyPending                 429 too_many_pending
├── TooManyExports                 429 too_many_exports
├── TooManyStreams                 429 too_many_streams
├── PositionUnknown                422 position_unknown
├── StatementTooLong               422 statement_too_long
├── TotalOverflow                  422 total_overflow
├── TooManyCategories              422 too_many_categories
├── SearchTooLong                  422 search_too_long
├── RateUnavailable                422 rate_unavailable
├── AmountTooSmall                 422 amount_too_small
├── AmountTooLarge                 422 amount_too_large
├── HoldGuaranteed                 403 hold_guaranteed
├── HoldAboveStepUp                422 hold_above_step_up
├── CaptureExceedsHold             422 capture_exceeds_hold
├── PayerCannotPay                 422 payer_cannot_pay
├── ReversalNotCovered             422 reversal_not_covered
├── UserIsNoService                422 user_is_no_service
├── InternalError                  500 internal_error
└── Unavailable                    503 service_unavailable
    ├── LedgerBusy                 503 ledger_busy
    ├── ExportsBusy                503 exports_busy
    └── ClockOff                   503 clock_off
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import orjson

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(NamedTuple):
    """What is wrong with one part of a request: a JSON pointer (RFC 6901), a code, a sentence."""

    pointer: str
    code: str
    message: str


Fact = str | int | bool | None | list[str]


class WalletServiceError(Exception):
    """Anything that the service refuses or cannot do; `facts` go into the problem document."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"
    # Whether a refusal belongs to the request, so that its key gets it again, or to who asked and when.
    is_kept_under_key: ClassVar[bool] = True

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_s: int | None = None,
        fields: tuple[FieldError, ...] = (),
        **facts: Fact,
    ) -> None:
        self.message = message or self.title
        self.retry_after_s = retry_after_s
        self.fields = fields
        self.facts: Mapping[str, Fact] = facts
        super().__init__(self.message)


class Malformed(WalletServiceError):
    """The request cannot be read."""

    code, http_status, title = "malformed_request", 400, "The request is malformed"


class BodyTooLarge(Malformed):
    code, http_status, title = "body_too_large", 413, "The body is too large"


class UnsupportedMediaType(Malformed):
    code, http_status, title = "unsupported_media_type", 415, "The body has to be application/json"


class RequestTimeout(Malformed):
    """It came too slowly; the connection is closed after it."""

    code, http_status, title = "request_timeout", 408, "The request took too long to arrive"


class UriTooLong(Malformed):
    code, http_status, title = "uri_too_long", 414, "The path and query are too long"


class HeadersTooLarge(Malformed):
    code, http_status, title = "headers_too_large", 431, "The headers are too many or too large"


class UpgradeRequired(Malformed):
    """What speaks WebSocket was asked in another way, or by a handshake that is none."""

    code, http_status, title = "upgrade_required", 426, "This is a WebSocket: send its handshake, without a body"


class IdempotencyKeyMissing(Malformed):
    code, title = "idempotency_key_missing", "The Idempotency-Key header is missing"


class IdempotencyKeyInvalid(Malformed):
    code, title = "idempotency_key_invalid", "The Idempotency-Key has to be 1 to 255 visible ASCII characters"


class InvalidCursor(Malformed):
    code, title = "invalid_cursor", "The cursor is not one that this list gave out"


class InvalidFields(WalletServiceError):
    code, http_status, title = "invalid_fields", 422, "Some fields are not valid"


class Unauthenticated(WalletServiceError):
    """No token, or one that does not hold."""

    code, http_status, title = "unauthenticated", 401, "A valid access token is required"
    is_kept_under_key = False


class InvalidCredentials(Unauthenticated):
    """Said alike for an unknown e-mail, a wrong password and a deactivated account."""

    code, title = "invalid_credentials", "The e-mail or the password is wrong"


class InvalidRefreshToken(Unauthenticated):
    """Said alike for one that is none, was used, has expired, or whose session or account is over."""

    code, title = "invalid_refresh_token", "The refresh token is not valid, or no longer"


class InvalidSignature(Unauthenticated):
    code, title = "invalid_signature", "The signature does not hold"


class AccountDeactivated(WalletServiceError):
    code, http_status, title = "account_deactivated", 403, "The account is deactivated"
    is_kept_under_key = False


class Forbidden(WalletServiceError):
    """The token or the key is good, but does not reach this far."""

    code, http_status, title = "forbidden", 403, "This takes a permission that you do not have"
    is_kept_under_key = False


class CsrfTokenInvalid(Forbidden):
    """A browser came with its cookies, and without what only a page of ours can know."""

    code, title = "csrf_token_invalid", "Send the session's CSRF token in X-CSRF-Token beside cookies"


class SecondAdminRequired(Forbidden):
    """Four eyes: who asked for it, or depends on whoever asked, cannot be the one who approves it."""

    code, title = "second_admin_required", "Another admin has to approve it"


class OwnAccount(Forbidden):
    """Nobody shuts themself out, or gives themself more."""

    code, title = "own_account", "Another admin has to do this to your account"


class NotFound(WalletServiceError):
    """Missing, or somebody else's: the two cannot be told apart from outside."""

    code, http_status, title = "not_found", 404, "Not found"


class MethodNotAllowed(WalletServiceError):
    code, http_status, title = "method_not_allowed", 405, "Method not allowed"


class Conflict(WalletServiceError):
    code, http_status, title = "conflict", 409, "The state of the resource does not allow this"


class EmailTaken(Conflict):
    code, title = "email_taken", "There is an account with this e-mail already"


class WalletExists(Conflict):
    code, title = "wallet_exists", "There is a wallet in this currency already"


class IdempotencyKeyInFlight(Conflict):
    code, title = "idempotency_key_in_flight", "The first request with this key is still running"


class IllegalTransition(Conflict):
    code, title = "illegal_transition", "The operation cannot go from its status to this one"


class StillBlocked(Conflict):
    """Its wallet is still frozen, or its user deactivated: an admin has to say that it shall go out all the same."""

    code, title = "still_blocked", "What the withdrawal was blocked for still stands"


class UserLockedDown(Conflict):
    """One admin alone gives a user who is locked down nothing back: two of them lift the lockdown."""

    code, title = "user_locked_down", "The user is locked down, and two admins have to lift that first"


class ApprovalLapsed(Conflict):
    code, title = "approval_lapsed", "The approval was not given in time, and the funds were given back"


class TooManyTries(Conflict):
    code, title = "too_many_tries", "The code was wrong too often, and the funds were given back"


class TotpAlreadyActive(Conflict):
    code, title = "totp_already_active", "An authenticator app is active already"


class TotpNotEnrolled(Conflict):
    code, title = "totp_not_enrolled", "There is no authenticator app to ask for a code"


class NotCheckpointed(Conflict):
    """There is nothing signed to prove it by yet."""

    code, title = "not_checkpointed", "No checkpoint contains it yet"


class WalletCheckpointed(Conflict):
    """The wallet is under the checkpoint, or it is one of the first version, which cannot show that it is not."""

    code, title = "wallet_checkpointed", "The checkpoint cannot show that it has no such wallet"


class QuoteExpired(Conflict):
    code, title = "quote_expired", "The quote has expired"


class QuoteUsed(Conflict):
    """A quote is good for one conversion; says which one that was."""

    code, title = "quote_used", "The quote was used already"


class HoldExpired(Conflict):
    code, title = "hold_expired", "The hold was not captured in time, and the funds were given back"


class RecipientAlreadyNamed(Conflict):
    code, title = "recipient_already_named", "The hold names its recipient already"


class WalletNotEmpty(Conflict):
    code, title = "wallet_not_empty", "There is money in the wallet"


class WalletHasOpenOperations(Conflict):
    """What has begun may still move it: a deposit on its way, an adjustment that waits for its approval."""

    code, title = "wallet_has_open_operations", "The wallet has operations that are not over"


class WalletBooksDisagree(Conflict):
    """Frozen for a break that is open: explain or resolve that first."""

    code, title = "wallet_books_disagree", "The wallet's books disagree, and nobody has explained why"


class AlreadyReversed(Conflict):
    code, title = "already_reversed", "It was reversed already"


class DeadLetterEnded(Conflict):
    """Says whether it was replayed or discarded, and so cannot be the other any more."""

    code, title = "dead_letter_ended", "The dead letter was replayed or discarded already"


class DeadLetterNeeded(Conflict):
    """What it is about is still open: without this row nothing would ever bring it to its end."""

    code, title = "dead_letter_needed", "Its subject is still open and needs it: replay it instead"


class TooManyWebhookEndpoints(Conflict):
    code, title = "too_many_webhook_endpoints", "You have as many webhook endpoints as one may"


class WebhookEndpointDisabled(Conflict):
    """Nothing is sent there until its owner enables it."""

    code, title = "webhook_endpoint_disabled", "The webhook endpoint is disabled"


class WebhookTestPending(Conflict):
    """What becomes of the test before stands in the endpoint's deliveries."""

    code, title = "webhook_test_pending", "A test event is on its way to this endpoint already"


class ApiKeyEnded(Conflict):
    """Says whether it was revoked, has expired or waits for a second admin."""

    code, title = "api_key_ended", "The API key is not active"


class IdempotencyKeyReused(WalletServiceError):
    code, http_status, title = "idempotency_key_reused", 422, "The key was used for another request"


class InsufficientFunds(WalletServiceError):
    """The wallet's available balance is below the amount asked for."""

    code, http_status, title = "insufficient_funds", 422, "The available balance is too low"


class BalanceOverflow(WalletServiceError):
    """The balance would leave the range that JSON numbers carry exactly."""

    code, http_status, title = "balance_overflow", 422, "The balance would become too large"


class NoWalletInCurrency(WalletServiceError):
    code, http_status, title = "no_wallet_in_currency", 422, "There is no wallet in this currency"


class WalletFrozen(WalletServiceError):
    code, http_status, title = "wallet_frozen", 422, "The wallet is frozen"


class CurrencyNotOffered(WalletServiceError):
    """Known, but not one of those that this service deals in. Says which these are."""

    code, http_status, title = "currency_not_offered", 422, "This service does not deal in the currency"


class WalletClosed(WalletServiceError):
    code, http_status, title = "wallet_closed", 422, "The wallet is closed"


class WalletOwes(WalletServiceError):
    """A deposit was taken back that the wallet did not cover. Nothing leaves before `owed` is paid."""

    code, http_status, title = "wallet_owes", 422, "Something is owed in this wallet, and has to be paid first"


class LimitExceeded(WalletServiceError):
    """Says which limit of the wallet or of its owner (`scope`), what of it is left, and when it starts anew."""

    code, http_status, title = "limit_exceeded", 422, "The amount is beyond a limit of the wallet or of its owner"


class HouseFundsExhausted(WalletServiceError):
    """The house has not enough of that currency to pay this out. How much it has is nobody's business.

    It passes once the house brings money in, so no key keeps it: the same request may be sent again, under its key.
    """

    code, http_status, title = "house_funds_exhausted", 422, "The house has not enough of this currency at the moment"
    is_kept_under_key = False


class SameWallet(WalletServiceError):
    code, http_status, title = "same_wallet", 422, "The money would go where it comes from"


class CurrencyMismatch(WalletServiceError):
    code, http_status, title = "currency_mismatch", 422, "The wallet is in another currency"


class RecipientNotFound(WalletServiceError):
    """Told only to those who could pay: nobody else learns who is there to be paid."""

    code, http_status, title = "recipient_not_found", 404, "There is nobody to be paid there in this currency"


class RecipientWalletFrozen(WalletServiceError):
    code, http_status, title = "recipient_wallet_frozen", 422, "The recipient's wallet takes nothing in"


class RecipientBalanceOverflow(WalletServiceError):
    code, http_status, title = "recipient_balance_overflow", 422, "The recipient's balance would become too large"


class TransferBatchRefused(WalletServiceError):
    """One of many was refused, and so all were; `position` counts from 0."""

    code, http_status, title = "transfer_batch_refused", 422, "One of the transfers was refused, so none was made"


class RefusedEarlier(WalletServiceError):
    """One of many, when their key was new: why is kept no longer than the key's answer."""

    code, http_status, title = "refused_earlier", 422, "Refused when the key was new; the reason is no longer kept"


class VoucherNotValid(WalletServiceError):
    """`reason` says why: inactive, not_yet_valid or over."""

    code, http_status, title = "voucher_not_valid", 422, "The voucher cannot be redeemed at this time"


class VoucherSoldOut(WalletServiceError):
    code, http_status, title = "voucher_sold_out", 422, "There is none of this voucher left"


class VoucherLimitReached(WalletServiceError):
    code, http_status, title = "voucher_limit_reached", 422, "You have redeemed this voucher as often as one may"


class VoucherStockTooLow(WalletServiceError):
    """What was redeemed already cannot be taken out of the stock."""

    code, http_status, title = "voucher_stock_too_low", 422, "There are fewer in stock than would be taken out"


class InvalidCode(WalletServiceError):
    """A one-time code that does not fit, or no longer: which of these is not for the asker to know."""

    code, http_status, title = "invalid_code", 422, "The code is wrong or was used already"
    is_kept_under_key = False


class WrongPassword(WalletServiceError):
    """Somebody who is logged in was asked for their password again."""

    code, http_status, title = "wrong_password", 422, "The password is wrong"
    is_kept_under_key = False


class InvalidResetToken(WalletServiceError):
    """Said alike for one that is none, was used, has expired, or whose account is deactivated."""

    code, http_status, title = "invalid_reset_token", 422, "The reset token is wrong, was used or has expired"
    is_kept_under_key = False


class InvalidProofToken(WalletServiceError):
    """Said alike for one that is none, was used or has expired, for another password, and where there is an account."""

    code, http_status, title = (
        "invalid_proof_token",
        422,
        "The token or the password is wrong, or the token is used",
    )
    is_kept_under_key = False


class TooManyAttempts(WalletServiceError):
    """Whether this try would have been right is not looked at."""

    code, http_status, title = "too_many_attempts", 429, "Too many wrong codes or passwords; wait before the next try"
    is_kept_under_key = False


class RateLimitExceeded(WalletServiceError):
    """Nothing was done: the same request may be sent again, under the same key."""

    code, http_status, title = "rate_limit_exceeded", 429, "Too many requests; wait before the next one"
    is_kept_under_key = False


class TooManyPending(WalletServiceError):
    """The user has filled their share of the ledger's queue; nothing was done."""

    code, http_status, title = "too_many_pending", 429, "Too many of your requests are waiting; wait for their answers"
    is_kept_under_key = False


class TooManyExports(WalletServiceError):
    """The user has an export that is not finished."""

    code, http_status, title = "too_many_exports", 429, "Another export of yours is being made; wait for its end"
    is_kept_under_key = False


class TooManyStreams(WalletServiceError):
    code, http_status, title = "too_many_streams", 429, "Too many streams of events are open; close one first"
    is_kept_under_key = False


class PositionUnknown(WalletServiceError):
    """A number that no event has had yet: whoever has seen it has seen another database."""

    code, http_status, title = "position_unknown", 422, "There is no event of that number yet"


class StatementTooLong(WalletServiceError):
    """More movements than one JSON document should hold."""

    code, http_status = "statement_too_long", 422
    title = "The statement is too long for JSON: take format=csv, or a shorter period"


class TotalOverflow(WalletServiceError):
    """A sum of many amounts, beyond what JSON numbers carry exactly."""

    code, http_status, title = "total_overflow", 422, "The total is too large: take a shorter period"


class TooManyCategories(WalletServiceError):
    code, http_status, title = "too_many_categories", 422, "There are too many categories: take fewer months"


class SearchTooLong(WalletServiceError):
    """The filters match so rarely, or the range is so long, that too much would have to be read."""

    code, http_status, title = "search_too_long", 422, "The search took too long: take a shorter period"


class RateUnavailable(WalletServiceError):
    """The refusal is temporary: it ends when the table has the rate. So the same key may be sent again."""

    code, http_status, title = "rate_unavailable", 422, "There is no rate for this pair of currencies"
    is_kept_under_key = False


class AmountTooSmall(WalletServiceError):
    """Nothing would be left of it after rounding down."""

    code, http_status, title = "amount_too_small", 422, "The amount is too small to be converted"


class AmountTooLarge(WalletServiceError):
    """What it is worth would leave the range that JSON numbers carry exactly."""

    code, http_status, title = "amount_too_large", 422, "The amount is too large to be converted"


class PayerCannotPay(WalletServiceError):
    """For the recipient of a hold, in place of WalletOwes: what its payer owes to others is not theirs to know."""

    code, http_status, title = "payer_cannot_pay", 422, "The payer of this hold cannot pay at the moment"


class HoldGuaranteed(WalletServiceError):
    """The payer wants back what is set aside for somebody else."""

    code, http_status, title = "hold_guaranteed", 403, "Only the recipient may release this hold"
    is_kept_under_key = False


class HoldAboveStepUp(WalletServiceError):
    """A payment of that size needs a one-time code; a hold and its capture would be a way around it."""

    code, http_status, title = (
        "hold_above_step_up",
        422,
        "Above this amount a payment needs a code, so it cannot be a hold",
    )


class CaptureExceedsHold(WalletServiceError):
    code, http_status, title = "capture_exceeds_hold", 422, "More was asked for than is held"


class ReversalNotCovered(WalletServiceError):
    """Who got the money has spent it; with `force` the house bears what is missing."""

    code, http_status, title = "reversal_not_covered", 422, "The money is no longer there to be taken back"


class UserIsNoService(WalletServiceError):
    code, http_status, title = "user_is_no_service", 422, "API keys are for users who have the role service"


class InternalError(WalletServiceError):
    """A defect of ours; the text never says more than this."""


class Unavailable(WalletServiceError):
    """Something that the service needs does not answer; nothing is known to have happened."""

    code, http_status, title = "service_unavailable", 503, "The service is not available for the moment"


class TooManyConnections(Unavailable):
    """Open from one address, or in this process; nothing was read of this one."""

    code, title = "too_many_connections", "Too many connections are open"


class LedgerBusy(Unavailable):
    code, title = "ledger_busy", "Too many requests are waiting"


class ExportsBusy(Unavailable):
    """As many exports as a process makes at one time are being made."""

    code, title = "exports_busy", "Too many exports are being made"


class ClockOff(Unavailable):
    """The clock of this process is too far from MongoDB's; no commands are taken until it is right again."""

    code, title = "clock_off", "The clock of this server is wrong"


def problem_document(error: WalletServiceError, request_id: str | None) -> dict[str, Any]:
    """The error as RFC 9457 problem details, with the service's own members beside the standard ones."""
    problem: dict[str, Any] = {
        "type": f"urn:wallet:problem:{error.code}",
        "title": error.title,
        "status": error.http_status,
        "detail": error.message,
        "error": error.code,
        "message": error.message,
        "request_id": request_id,
        **error.facts,
    }
    if error.fields:
        problem["errors"] = [field._asdict() for field in error.fields]
    if error.retry_after_s is not None:
        problem["retry_after"] = error.retry_after_s
    return problem


def problem_body(error: WalletServiceError, request_id: str | None) -> bytes:
    return orjson.dumps(problem_document(error, request_id))
