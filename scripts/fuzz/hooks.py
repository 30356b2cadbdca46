"""What schemathesis cannot know about this API by its document; loaded into its process by run.py.

Nothing is muted here without the reason beside it.
"""

import json
import os
import re
from hashlib import sha256
from typing import Any, Final

import requests
import schemathesis
from hypothesis import strategies
from schemathesis.openapi.checks import RejectedPositiveData
from standardwebhooks.webhooks import Webhook

from service.domain.clock import utc_now
from service.domain.money import EXPONENTS, ORDINARY_CURRENCIES, POINTS

AnyCase = schemathesis.Case[Any]

# Names of variables: the stack's secret, and what there is, by the names of parameters and fields.
WEBHOOK_SECRET: Final = "FUZZ_WEBHOOK_SECRET"  # noqa: S105 it is a name
IDS: Final = "FUZZ_IDS"
_KEY: Final = "Idempotency-Key"
# One of so many is sent just as it was generated; others get a key that belongs to them, and what is there.
_AS_GENERATED: Final = 5
# What nobody's balance or limits are in the way of, in what the wallets below are in.
_SMALL_AMOUNT: Final = 500
_CURRENCY: Final = "INR"
_ID: Final = re.compile(r"[a-z]{3}_[0-9a-f]{32}")
_EXAMPLE_ID: Final = "0198c0ffee"
_ids: dict[str, str] = json.loads(os.environ.get(IDS, "{}"))
_USERS: Final = "/api/v1/admin/users/{user_id}"
_BANK_CALLBACK: Final = "/webhooks/bank-callback"
_ENDPOINTS: Final = "/api/v1/webhook-endpoints"
# Where nobody listens. In place of hosts that were made up, and of the document's: no name server is to be asked.
_ENDPOINT_URL: Final = "http://127.0.0.1:9/events"
_WITH_HOST: Final = re.compile(r"https?://[^/?#]", re.IGNORECASE)
# What is refused as invalid though its schema allows it, since no schema can say it.
_BEYOND_SCHEMAS: Final = {
    "value_error",  # two fields against each other: to_wallet_id or to_email
    "same_currency",  # likewise
    "not_after_from",  # likewise
    "ends_before_it_begins",  # likewise
    "before_from_month",  # likewise
    "too_many_months",  # likewise
    "missing",  # likewise: a reason, where the wallet is somebody else's
    "wallet_missing",  # likewise: a number that counts within a wallet
    "invalid_url",  # format: uri is wider: other schemes, no host, fragments
    "scheme_not_allowed",  # likewise
    "in_the_past",  # a time that has to come
    "too_long",  # the longest hold is a setting
    "invalid_email",  # format: email is wider: domains that cannot be, parts that are too long
    "password_common",  # how early others would guess it
    "time_out_of_range",  # years in a date-time
    "not_printable",  # the generator takes \p{C} for control characters; unassigned ones are in it too
}
_NOT_WRITTEN_AS_INTEGER: Final = {"invalid_amount", "int_type"}

schemathesis.openapi.format("iso-4217", strategies.sampled_from(sorted(ORDINARY_CURRENCIES)))
schemathesis.openapi.format("iana-time-zone", strategies.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"]))
schemathesis.openapi.format("iso-4217-or-pts", strategies.sampled_from([*sorted(ORDINARY_CURRENCIES), POINTS]))


@schemathesis.hook
def filter_failure(
    _context: schemathesis.HookContext, failure: Exception, case: AnyCase, response: schemathesis.Response
) -> bool:
    """A request that its schema allows may be refused by a rule of business, not as malformed or invalid."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = response.json()
    match response.status_code, problem["error"]:
        case 422, "invalid_fields":
            beyond = _BEYOND_SCHEMAS | (_NOT_WRITTEN_AS_INTEGER if _has_whole_float(case.body) else set())
            return not all(one["code"] in beyond for one in problem["errors"])
        case (422, _) | (400, "invalid_cursor"):
            # A cursor is opaque: only those that a list gave out are good.
            return False
    return True


def _has_whole_float(body: object) -> bool:
    """10.0 is an integer to JSON Schema; here it is refused, so that nobody's 10.1 comes as far as being rounded."""
    if isinstance(body, dict):
        return any(_has_whole_float(part) for part in body.values())
    if isinstance(body, list):
        return any(_has_whole_float(part) for part in body)
    return isinstance(body, float) and body.is_integer()


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: AnyCase, kwargs: dict[str, Any]) -> None:
    """Lets good requests come further than to the first rule: what is behind it is tried too."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.path == _BANK_CALLBACK and case.method == "POST":
        kwargs["auth"] = _Signature()
    if case.path.startswith(_ENDPOINTS) and isinstance(case.body, dict) and _WITH_HOST.match(str(case.body.get("url"))):
        case.body["url"] = _ENDPOINT_URL
    # By what the request is, not by how many there were: the same case has to be the same request again, or Hypothesis
    # gives its state machine up.
    digest = sha256(repr((case.path, case.path_parameters, case.body)).encode("utf-8", "replace")).hexdigest()
    if int(digest, 16) % _AS_GENERATED:
        _make_likely(case, digest)
    if case.path.startswith(_USERS) and case.path_parameters.get("user_id") == _ids["user_id"]:
        # An admin who shuts themselves out fuzzes nothing more.
        case.path_parameters["user_id"] = _ids["other_user_id"]


def _make_likely(case: AnyCase, digest: str) -> None:
    if case.headers and _KEY in case.headers:
        case.headers[_KEY] = digest
    body: Any = case.body
    for named in (case.path_parameters, body):
        if isinstance(named, dict):
            _name_what_is_there(named)
    if isinstance(body, dict) and type(body.get("amount")) is int and body["amount"] > 0:
        body["amount"] = 1 + body["amount"] % _SMALL_AMOUNT
        if body.get("currency") in EXPONENTS:
            body["currency"] = _CURRENCY


def _name_what_is_there(named: dict[str, Any]) -> None:
    """In place of what was made up; ids of earlier answers stay."""
    for name in named.keys() & _ids.keys():
        if isinstance(named[name], str) and (_EXAMPLE_ID in named[name] or not _ID.fullmatch(named[name])):
            named[name] = _ids[name]


class _Signature(requests.auth.AuthBase):
    """Signs the very bytes that are sent, as the bank does."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # A callback that its schema allows has a body.
        body: Any = request.body
        text: str = body.decode() if isinstance(body, bytes) else body
        sent_id: Any = request.headers["webhook-id"]
        callback_id: str = sent_id.decode("latin-1") if isinstance(sent_id, bytes) else sent_id
        moment, secret = utc_now(), os.environ[WEBHOOK_SECRET]
        request.headers["webhook-timestamp"] = str(int(moment.timestamp()))
        request.headers["webhook-signature"] = Webhook(secret).sign(callback_id, moment, text)
        return request
