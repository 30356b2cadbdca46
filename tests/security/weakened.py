"""The service broken on purpose, once or more for each group of attacks, to see that the group would notice.

Each weakening is one that somebody could commit: a check taken out, a rule made lenient. The weakened app shares the
sound one's databases, and nothing of it outlives its test.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import jwt
import pytest
from fastapi import FastAPI
from starlette.types import Scope

from service import log
from service.controllers import bank_callbacks as callback_controller
from service.controllers import problems, requests
from service.controllers.requests import StrictRequest
from service.documents import WalletDocument
from service.domain.wallets import Wallet
from service.errors import FieldError, NotFound, Unauthenticated
from service.ledger import transfers
from service.ledger.commands import State
from service.main import create_app
from service.repositories import wallets as wallet_repository
from service.services import access_tokens
from service.services import bank_callbacks as callback_service
from service.services.callers import Caller
from service.settings import Settings
from service.startup import Resources
from tests.security import (
    amounts,
    bank_callbacks,
    canaries,
    client_address,
    log_injection,
    matrix,
    operators,
    roles,
    tokens,
    transport,
)
from tests.security.findings import Finding
from tests.security.target import Target

Patch = pytest.MonkeyPatch


class Weakening(NamedTuple):
    name: str
    weaken: Callable[[Patch], None]
    attack: Callable[[Target], Awaitable[list[Finding]]]
    # Enough to find it on; the others are spared.
    routes: frozenset[str]
    # What the finding's attack is called, at least one of them.
    finds: str


def build(resources: Resources) -> FastAPI:
    """An app of its own on the open resources, with whatever is patched now."""
    app = create_app(resources.settings)
    app.state.resources = resources
    return app


def _owners_are_not_asked_for(patch: Patch) -> None:
    genuine = wallet_repository.find_owned

    async def find(wallet_id: str, user_id: str, **more: Any) -> Any:
        row = await WalletDocument.get_pymongo_collection().find_one({"_id": wallet_id})
        return await genuine(wallet_id, user_id if row is None else row["user_id"], **more)

    patch.setattr(wallet_repository, "find_owned", find)


def _others_are_told_from_nobodys(patch: Patch) -> None:
    """Still a 404, but one that says that there is something."""
    genuine = wallet_repository.find_owned

    async def find(wallet_id: str, user_id: str, **more: Any) -> Any:
        found = await genuine(wallet_id, user_id, **more)
        if found is None and await WalletDocument.get_pymongo_collection().find_one({"_id": wallet_id}):
            raise NotFound("This wallet is not yours")
        return found

    patch.setattr(wallet_repository, "find_owned", find)


def _permissions_are_not_asked_for(patch: Patch) -> None:
    patch.setattr(Caller, "may", lambda _self, _permission: True)


def _signatures_of_tokens_are_not_checked(patch: Patch) -> None:
    def verify(token: str, _settings: Settings) -> Caller:
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
            return Caller(claims["sub"], tuple(claims["roles"]), claims["ver"])
        except (jwt.PyJWTError, RecursionError, KeyError, TypeError) as error:
            raise Unauthenticated from error

    patch.setattr("service.controllers.dependencies.verify_access_token", verify)


def _tokens_never_expire(patch: Patch) -> None:
    def verify(token: str, settings: Settings) -> Caller:
        try:
            return genuine(token, settings)
        except Unauthenticated as refusal:
            if "expired" not in refusal.message:
                raise
            claims = jwt.decode(token, options={"verify_signature": False})
            return Caller(claims["sub"], tuple(claims["roles"]), claims["ver"])

    genuine = access_tokens.verify_access_token
    patch.setattr("service.controllers.dependencies.verify_access_token", verify)


def _parsed_by(patch: Patch, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Bodies as Python's own parser reads them, and then changed."""
    genuine = requests.parse_json

    def parse(body: bytes) -> Any:
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return genuine(body)
        return change(parsed) if isinstance(parsed, dict) else parsed

    patch.setattr(requests, "parse_json", parse)


def _unknown_members_are_ignored(patch: Patch) -> None:
    """What extra="ignore" would do to a withdrawal."""
    known = {"amount", "currency", "destination", "category", "description", "metadata"}
    _parsed_by(patch, lambda body: {name: value for name, value in body.items() if name in known})


def _operators_are_taken_for_text(patch: Patch) -> None:
    _parsed_by(
        patch,
        lambda body: {name: str(value) if name == "category" else value for name, value in body.items()},
    )


def _parameters_may_come_twice(patch: Patch) -> None:
    patch.setattr(requests, "_refuse_strange_parameters", lambda _query, _may_repeat: None)


def _amounts_are_converted(patch: Patch) -> None:
    """Text, floats and the last of two are taken for what they seem to mean."""

    def convert(body: dict[str, Any]) -> dict[str, Any]:
        with suppress(ValueError, OverflowError, TypeError):
            body["amount"] = int(float(body["amount"]))
        return body

    _parsed_by(patch, convert)


def _callbacks_are_believed(patch: Patch) -> None:
    patch.setattr(
        callback_controller, "verify_signature", lambda _body, headers, _settings: headers["webhook-id"] or "none"
    )


def _callbacks_are_never_too_old(patch: Patch) -> None:
    genuine = callback_service.verify_signature

    def verify(body: bytes, headers: Mapping[str, str], settings: Settings) -> str:
        callback_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        if headers["webhook-signature"] == bank_callbacks.sign(settings, callback_id, timestamp, body):
            return callback_id
        return genuine(body, headers, settings)

    patch.setattr(callback_controller, "verify_signature", verify)


def _payers_need_not_own_the_wallet(patch: Patch) -> None:
    def require(wallet_id: str, _user_id: str, state: State) -> Wallet:
        wallet = state.wallet(wallet_id)
        if wallet is None:
            raise NotFound(f"There is no wallet {wallet_id}")
        return wallet

    patch.setattr(transfers, "require_own_wallet", require)


def _media_types_are_not_looked_at(patch: Patch) -> None:
    patch.setattr(requests, "_is_json", lambda _request: True)


def _bodies_have_no_limit(patch: Patch) -> None:
    patch.setattr(StrictRequest, "body_limit_bytes", 10**9)


def _what_a_client_says_of_its_address_is_believed(patch: Patch) -> None:
    def believe(scope: Scope, _trusted: object) -> str:
        said = dict(scope["headers"]).get(b"x-forwarded-for", b"nothing")
        return str(said.partition(b",")[0].decode("latin-1"))

    for module in ("rate_limits", "client_address"):
        patch.setattr(f"service.controllers.{module}.client_address", believe)


def _log_lines_are_put_together_by_hand(patch: Patch) -> None:
    def dumps(event: Mapping[str, Any], **_options: Any) -> str:
        return "{" + ", ".join(f'"{name}": "{value}"' for name, value in event.items()) + "}"

    patch.setattr(log, "_dumps_text", dumps)


def _logs_show_what_is_invisible_as_it_is(patch: Patch) -> None:
    patch.setattr(log, "_escape", lambda match: match[0])


def _errors_repeat_what_was_sent(patch: Patch) -> None:
    def repeat(one: dict[str, Any]) -> FieldError:
        return FieldError("/", one["type"], f"{one['msg']}, not {one.get('input')}")

    patch.setattr(problems, "_field_error", repeat)


def _invalid_input_crashes(patch: Patch) -> None:
    """A handler with a defect: the 500 that an invalid body must never become."""

    def fail(_one: object) -> None:
        raise RuntimeError("a defect")

    patch.setattr(problems, "_field_error", fail)


_WALLET: Final = frozenset({"GET /api/v1/wallets/{wallet_id}"})
_WITHDRAWAL: Final = frozenset({"POST /api/v1/withdrawals"})
_TRANSFER: Final = frozenset({"POST /api/v1/transfers"})
_LISTS: Final = frozenset({"GET /api/v1/withdrawals"})
_ADMINS: Final = frozenset({"GET /api/v1/admin/trial-balance", "GET /api/v1/admin/vouchers"})
_CALLBACK: Final = frozenset({"POST /webhooks/bank-callback"})

WEAKENINGS: Final = (
    Weakening("errors repeat what was sent", _errors_repeat_what_was_sent, canaries.attack, _WITHDRAWAL, "canary"),
    Weakening("log lines are by hand", _log_lines_are_put_together_by_hand, log_injection.attack, _WALLET, "JSON"),
    Weakening(
        "logs show the invisible as it is",
        _logs_show_what_is_invisible_as_it_is,
        log_injection.attack,
        _WALLET,
        ".",
    ),
    Weakening(
        "what a client says of its address is believed",
        _what_a_client_says_of_its_address_is_believed,
        client_address.attack,
        frozenset({"POST /api/v1/auth/login", "POST /api/v1/auth/register", "GET /api/v1/checkpoints/keys"}),
        "X-Forwarded-For$",
    ),
    Weakening("owners are not asked for", _owners_are_not_asked_for, matrix.attack, _WALLET, "another's wallet_id"),
    Weakening(
        "payers need not own the wallet",
        _payers_need_not_own_the_wallet,
        matrix.attack,
        _TRANSFER,
        "another's from_wallet_id",
    ),
    Weakening(
        "another's is told from nobody's", _others_are_told_from_nobodys, matrix.attack, _WALLET, "another's wallet_id"
    ),
    Weakening("permissions are not asked for", _permissions_are_not_asked_for, roles.attack, _ADMINS, "as user"),
    Weakening(
        "signatures of tokens are not checked",
        _signatures_of_tokens_are_not_checked,
        tokens.attack,
        _ADMINS,
        "promoted without",
    ),
    Weakening("tokens never expire", _tokens_never_expire, tokens.attack, _WALLET, "expired"),
    Weakening("unknown members are ignored", _unknown_members_are_ignored, operators.attack, _WITHDRAWAL, "`roles`"),
    Weakening("operators are taken for text", _operators_are_taken_for_text, operators.attack, _WITHDRAWAL, "\\$gt"),
    Weakening("parameters may come twice", _parameters_may_come_twice, operators.attack, _LISTS, "twice"),
    Weakening("amounts are converted", _amounts_are_converted, amounts.attack, _WITHDRAWAL, "1.5 as amount"),
    Weakening("callbacks are believed", _callbacks_are_believed, bank_callbacks.attack, _CALLBACK, "flipped"),
    Weakening("callbacks are never too old", _callbacks_are_never_too_old, bank_callbacks.attack, _CALLBACK, "too old"),
    Weakening(
        "media types are not looked at", _media_types_are_not_looked_at, transport.attack, _WITHDRAWAL, "Content-Type"
    ),
    Weakening("bodies have no limit", _bodies_have_no_limit, transport.attack, _WITHDRAWAL, "huge"),
    Weakening("invalid input crashes", _invalid_input_crashes, transport.attack, _WITHDRAWAL, "."),
)
