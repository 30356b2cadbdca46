"""Tickets for WebSockets: whoever has logged in gets one, and shows it instead of a token, which a browser could only
put where logs and histories keep it.

A ticket is sealed and says all that is to know, so that giving one out writes nothing. Used ones are noted in MongoDB,
by their hash and until they would have expired: a Redis that is away refuses nobody, and lets nobody in twice.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_hex
from typing import NamedTuple

import orjson

from service.domain.clock import utc_now
from service.domain.keys import KeyPurpose, derive_key
from service.errors import Unauthenticated
from service.repositories import used_tickets
from service.services.callers import Caller
from service.settings import Settings

# From the answer to the handshake: a few round trips.
TICKET_LIFETIME = timedelta(seconds=30)
# Ours have about 250 characters.
LENGTH_LIMIT = 512
_SEAL_BYTES = 32
_NONCE_BYTES = 16


class Ticket(NamedTuple):
    """Until when it may be used, and the stream that it opens may last."""

    text: str
    expires_at: datetime
    stream_ends_at: datetime


def issue_ticket(caller: Caller, token_expires_at: datetime, settings: Settings) -> Ticket:
    """For the session of the token; it opens no stream that outlives the token."""
    expires_at = min(utc_now() + TICKET_LIFETIME, token_expires_at)
    said = orjson.dumps(
        [
            token_hex(_NONCE_BYTES),
            caller.user_id,
            caller.roles,
            caller.token_version,
            caller.session_id,
            expires_at.timestamp(),
            token_expires_at.timestamp(),
        ]
    )
    seal = _seal(said, settings.root_keys[0])
    return Ticket(urlsafe_b64encode(seal + said).rstrip(b"=").decode(), expires_at, token_expires_at)


async def use_ticket(text: str, settings: Settings) -> tuple[Caller, datetime]:
    """Returns whose it is, and until when their stream may last. Raises Unauthenticated, also for one that was used."""
    caller, expires_at, stream_ends_at = _read(text, settings)
    if expires_at <= utc_now():
        raise Unauthenticated("The ticket has expired")
    digest = sha256(text.encode()).hexdigest()
    if not await used_tickets.insert_once(digest, expires_at + TICKET_LIFETIME):
        raise Unauthenticated("The ticket was used already")
    return caller, stream_ends_at


def _read(text: str, settings: Settings) -> tuple[Caller, datetime, datetime]:
    if len(text) > LENGTH_LIMIT:
        raise Unauthenticated("The ticket is not valid")
    try:
        decoded = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, Base64Error) as error:
        raise Unauthenticated("The ticket is not valid") from error
    # Of several spellings of one ticket only the one that was given out counts, or each could be used once.
    is_plain = urlsafe_b64encode(decoded).rstrip(b"=").decode() == text
    seal, said = decoded[:_SEAL_BYTES], decoded[_SEAL_BYTES:]
    if not is_plain or not any(hmac.compare_digest(seal, _seal(said, key)) for key in settings.root_keys):
        raise Unauthenticated("The ticket is not valid")
    _, user_id, roles, token_version, session_id, expires_s, stream_ends_s = orjson.loads(said)
    caller = Caller(user_id, tuple(roles), token_version, session_id)
    return caller, datetime.fromtimestamp(expires_s, UTC), datetime.fromtimestamp(stream_ends_s, UTC)


def _seal(said: bytes, root_key: bytes) -> bytes:
    return hmac.digest(derive_key(root_key, KeyPurpose.STREAM_TICKETS), said, "sha256")
