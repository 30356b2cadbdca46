"""Step-up approval: the challenge of an operation, its code, and the mail that carries the code."""

import secrets
from collections.abc import Callable
from datetime import datetime
from functools import partial

from service.domain.keys import KeyPurpose, derive_key
from service.domain.money import format_minor
from service.domain.step_up import CODE_LIFETIME, CODE_TRIES, Challenge, derive_code, hash_code
from service.gateways.mailbox import Mail
from service.settings import Settings

_NONCE_BYTES = 16


def new_challenge(settings: Settings, operation_id: str, now: datetime) -> Challenge:
    """Makes a new code for the operation, in nobody's hands yet: code_for makes it again for the mail."""
    return _challenge(settings, operation_id, secrets.token_hex(_NONCE_BYTES), now)


def challenge_maker(settings: Settings, operation_id: str, now: datetime) -> Callable[[], Challenge]:
    """Makes the same challenge each time, for the ledger to call where it finds that one is needed.

    Deriving a code costs more than most of a payment's rules, and few payments need one.
    """
    return partial(_challenge, settings, operation_id, secrets.token_hex(_NONCE_BYTES), now)


def _challenge(settings: Settings, operation_id: str, nonce: str, now: datetime) -> Challenge:
    root_key = settings.root_keys[0]
    code_hash = _hash(root_key, operation_id, _code(root_key, operation_id, nonce))
    return Challenge(nonce, code_hash, now + CODE_LIFETIME, CODE_TRIES)


def code_for(settings: Settings, operation_id: str, challenge: Challenge) -> str:
    """Returns the code that answers the challenge, under whichever key that was made."""
    codes = [(key, _code(key, operation_id, challenge.nonce)) for key in settings.root_keys]
    fitting = (code for key, code in codes if _hash(key, operation_id, code) == challenge.code_hash)
    return next(fitting, codes[0][1])


def hash_sent_code(settings: Settings, operation_id: str, code: str, challenge: Challenge | None) -> str:
    """For check_code: what somebody sent, in the form in which the challenge keeps what is right."""
    hashes = [_hash(root_key, operation_id, code) for root_key in settings.root_keys]
    # While keys are changed, the challenge may be older than the current one.
    return challenge.code_hash if challenge is not None and challenge.code_hash in hashes else hashes[0]


def _code(root_key: bytes, operation_id: str, nonce: str) -> str:
    return derive_code(derive_key(root_key, KeyPurpose.STEP_UP_CODES), operation_id, nonce)


def _hash(root_key: bytes, operation_id: str, code: str) -> str:
    return hash_code(derive_key(root_key, KeyPurpose.STEP_UP_HASHES), operation_id, code)


def compose_code_mail(
    *, email: str, operation_id: str, purpose: str, amount: int, currency: str, nonce: str, code: str
) -> Mail:
    """`purpose` is what the payer knows it by: 'withdrawal to •••• 0001'. The same arguments give the same mail and id.

    The code stands in the text only: a subject shows on locked screens.
    """
    money = format_minor(amount, currency)
    text = (
        f"Your code is {code}\n"
        "\n"
        f"It confirms this payment and no other: {money}, {purpose} ({operation_id}).\n"
        f"It is valid for {CODE_LIFETIME.seconds // 60} minutes.\n"
        "\n"
        "We never ask for this code, not by telephone, by mail or in a chat: whoever does is after your money.\n"
        "If this payment is not yours, keep the code to yourself, and no money moves. Then change your password.\n"
    )
    return Mail(id=f"{operation_id}.{nonce}", to=email, subject=f"Confirm your payment of {money}", text=text)
