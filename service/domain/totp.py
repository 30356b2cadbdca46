"""Codes of an authenticator app (TOTP, RFC 6238) and recovery codes: when one fits, and how both are kept."""

import base64
import hmac
import re
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

import pyotp
from pyotp.exceptions import OTPVerificationError

from service.domain.keys import KeyPurpose, derive_key
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge

ISSUER = "Wallet service"
# 30 s before and after: a phone's clock, and the time that typing takes (RFC 6238, section 5.2).
_WINDOW_STEPS = 1

RECOVERY_CODES = 10
# 80 bits: nobody guesses one, and sixteen letters can be copied by hand.
RECOVERY_CODE_BYTES = 10
_GROUP = 4

# A million codes of which three fit at a time: five tries in 15 minutes make one in seven hundred a day.
TRIES = 5
TRIES_WINDOW = timedelta(minutes=15)

# Mails with a code for a new app, to one person: each beginning sends one.
ENROLMENT_MAILS = 5
ENROLMENT_MAILS_WINDOW = timedelta(hours=1)

_TOTP_CODE = re.compile(r"[0-9]{6}")


class TotpStatus(StrEnum):
    NONE = "none"
    # The secret was shown, but no code has proved yet that an app has it.
    PENDING = "pending"
    ACTIVE = "active"


class Enrolment(NamedTuple):
    """One user's. `last_step` is the time step of the last code taken: codes of it and before it are used up.

    `last_use` names the request that has used one up: repeated, it finds its code good still.
    """

    user_id: str
    status: TotpStatus
    # Another one for each secret: an earlier enrolment's code must not count for a later one.
    secret_id: str
    sealed_secret: Sealed | None
    last_step: int
    recovery_hashes: tuple[str, ...]
    tries: int
    tries_until: datetime
    activated_at: datetime | None
    last_use: str = ""
    # While an app is pending: the mailed code by which the owner of the address agrees to it.
    challenge: Challenge | None = None
    # From when on the app confirms payments; until then mailed codes do. None: from its activation on.
    confirms_from: datetime | None = None
    # How often a code for a new app was mailed until `mails_until`.
    mails: int = 0
    mails_until: datetime | None = None

    def confirms_payments(self, now: datetime) -> bool:
        is_waiting = self.confirms_from is not None and now < self.confirms_from
        return self.status is TotpStatus.ACTIVE and not is_waiting


class Proof(NamedTuple):
    """A fitting code's time step, or the hash of what may be a recovery code; the database knows what is used up."""

    step: int | None = None
    recovery_hash: str | None = None


def otpauth_uri(secret: str, email: str) -> str:
    """Returns what an authenticator app reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def looks_like_totp(code: str) -> bool:
    return _TOTP_CODE.fullmatch(_bare(code)) is not None


def matching_step(secret: str, code: str, now: datetime) -> int | None:
    """Returns the time step whose code this is, among the current one and its neighbours."""
    if not looks_like_totp(code):
        return None
    try:
        return pyotp.TOTP(secret).verify_and_get_timecode(_bare(code), for_time=now, valid_window=_WINDOW_STEPS)
    except OTPVerificationError:
        return None


def recovery_code(random_bytes: bytes) -> str:
    """'ABCD-EFGH-IJKL-MNOP': base32, which has no 0, 1 and 8 to mistake for letters."""
    text = base64.b32encode(random_bytes).decode()
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def hash_recovery_code(secret: str, user_id: str, code: str) -> str:
    """Hyphens, white space and capitals do not matter.

    One HMAC and no argon2id: slow hashes are for passwords, which people choose and others guess. These are 80 random
    bits, more than can be tried even by who has the key; and without it there is nothing to try against. The key comes
    from the app's secret, which is kept sealed: so a change of the encryption key takes no recovery codes with it.
    """
    key = derive_key(secret.encode(), KeyPurpose.RECOVERY_CODES)
    return hmac.digest(key, f"{user_id}\0{_bare(code).upper()}".encode(), sha256).hex()


def _bare(code: str) -> str:
    return re.sub(r"[\s-]", "", code)
