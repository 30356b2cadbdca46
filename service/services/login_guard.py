"""Who guesses waits, ever longer; who has logged in from a place before is never made to wait by strangers elsewhere.

Failures count under three names. By account and address together, strictly: that is somebody who tries passwords. By
address, for all accounts: somebody who tries one password on many. By account, for all addresses, softly: many who try
together; there a wait is short, because who has lost their place has to get in beside them. At an address from where
the account was logged in to before, only the first counts, so that nobody is locked out by what others do elsewhere.

Nothing here depends on whether there is an account. Refresh tokens are not counted: they cannot be guessed, and whoever
shares an address with somebody who tries would be kept from theirs.
"""

import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from service.domain.keys import KeyPurpose, derive_key
from service.errors import TooManyAttempts, Unauthenticated, WrongPassword
from service.gateways.attempts import Attempt, Attempts, Count
from service.gateways.quick_redis import QuickRedis
from service.services.users import account_name
from service.settings import Settings

log = structlog.get_logger()

_LONGEST_DELAY_S = 60
_LONGEST_DELAY_OF_ACCOUNT_S = 10
# Behind one address there may be an office, and behind one account a botnet.
_ADDRESS_FACTOR = 4
_ACCOUNT_FACTOR = 10
_LIVES_S = 15 * 60
_KNOWN_FOR_S = 90 * 24 * 3600

# Each request is a row and perhaps a mail: of an office as many as need one in a quarter of an hour.
_RESETS = 20
_LONGEST_DELAY_OF_RESET_S = 15 * 60
_RESETS_LIVE_S = 3600

# Who looks for addresses that somebody has sends one after the other; who has a slip in one does not send twenty.
_LONGEST_DELAY_OF_LOOK_UP_S = 15 * 60
_LOOK_UPS_LIVE_S = 3600


class LoginGuard:
    """Asked before any hashing. WALLET_LOGIN_TRIES says from which failure on one waits; 0 turns it all off."""

    def __init__(self, redis: QuickRedis, settings: Settings) -> None:
        self._attempts = Attempts(redis)
        self._tries = settings.login_tries
        self._misses = settings.recipient_misses
        self._key = derive_key(settings.root_key, KeyPurpose.REDIS_KEYS)

    @asynccontextmanager
    async def password_try(self, email: str, address: str) -> AsyncIterator[None]:
        """Around what looks at a password: Unauthenticated, passing through, is a failure. Raises TooManyAttempts."""
        account = self._digest(account_name(email))
        counts = (
            self._count(f"login:{account}:{address}", 1, _LONGEST_DELAY_S),
            self._count(f"login-address:{address}", _ADDRESS_FACTOR, _LONGEST_DELAY_S),
            self._count(f"login-account:{account}", _ACCOUNT_FACTOR, _LONGEST_DELAY_OF_ACCOUNT_S),
        )
        async with self._try(f"login-known:{account}:{address}", counts, known_for_s=_KNOWN_FOR_S):
            yield

    @asynccontextmanager
    async def password_again(self, user_id: str) -> AsyncIterator[None]:
        """Around what asks somebody who is in for their password: WrongPassword is a failure. Raises TooManyAttempts.

        By user and nothing else: who guesses here has a stolen token, and can use it anywhere.
        """
        counts = (self._count(f"password-again:{user_id}", 1, _LONGEST_DELAY_S),)
        async with self._try("password-again", counts, known_for_s=0):
            yield

    async def reset_request(self, address: str) -> None:
        """Counts by who asks, not by account: otherwise strangers could keep its owner from asking.

        That nobody's mailbox is filled is for the worker to see to, which says nothing. Raises TooManyAttempts.
        """
        count = Count(f"reset-address:{address}", _RESETS, _LONGEST_DELAY_OF_RESET_S, _RESETS_LIVE_S)
        await self._begin("reset", (count,))

    async def begin_look_up(self, user_id: str, addresses: int) -> Attempt | None:
        """Counts the addresses that the user wants to pay, before they are looked up. Raises TooManyAttempts."""
        if not self._misses:
            return None
        counts = (self._look_ups(user_id),)
        attempt = await self._attempts.begin("look-up", counts, at_known_place=1, number=addresses)
        if attempt.wait_s > 0:
            log.warning("recipient.held_off", user_id=user_id, wait_s=round(attempt.wait_s, 1))
            message = "Too many addresses that nobody can be paid at; wait before the next one"
            raise TooManyAttempts(message, retry_after_s=math.ceil(attempt.wait_s))
        return attempt

    async def end_look_up(self, attempt: Attempt | None, user_id: str, misses: int) -> None:
        """Leaves what missed counted. What was found counts for nothing."""
        # Once a wait is set, further misses are not counted.
        if attempt is None or misses >= attempt.number:
            return
        await self._attempts.give_back(attempt)
        if misses:
            await self._attempts.begin("look-up", (self._look_ups(user_id),), at_known_place=1, number=misses)

    def _look_ups(self, user_id: str) -> Count:
        return Count(f"look-up:{user_id}", self._misses, _LONGEST_DELAY_OF_LOOK_UP_S, _LOOK_UPS_LIVE_S)

    def _count(self, key: str, factor: int, longest_delay_s: int) -> Count:
        return Count(key, self._tries * factor, longest_delay_s, _LIVES_S)

    @asynccontextmanager
    async def _try(self, place: str, counts: Sequence[Count], *, known_for_s: int) -> AsyncIterator[None]:
        attempt = await self._begin(place, counts)
        try:
            yield
        except (Unauthenticated, WrongPassword):
            raise
        except Exception:
            # It never came to look at what was sent.
            await self._give_back(attempt)
            raise
        # The account's and the address's other failures stay: who guesses may have an account of their own.
        await self._give_back(attempt, forgotten=1 if known_for_s else 0, known_for_s=known_for_s)

    async def _begin(self, place: str, counts: Sequence[Count]) -> Attempt | None:
        if not self._tries:
            return None
        attempt = await self._attempts.begin(place, counts, at_known_place=1)
        if attempt.wait_s > 0:
            log.warning("login.held_off", wait_s=round(attempt.wait_s, 1))
            raise TooManyAttempts(retry_after_s=math.ceil(attempt.wait_s))
        return attempt

    async def _give_back(self, attempt: Attempt | None, *, forgotten: int = 0, known_for_s: int = 0) -> None:
        if attempt is not None:
            await self._attempts.give_back(attempt, forgotten=forgotten, known_for_s=known_for_s)

    def _digest(self, account: str) -> str:
        return hashlib.blake2b(account.encode("utf-8", "replace"), key=self._key, digest_size=16).hexdigest()
