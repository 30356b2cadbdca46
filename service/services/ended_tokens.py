"""Access tokens that ended before their time: whose session is over, or whose user has a new `token_version`.

A token is not looked up when it comes: that would be a read for each request. Instead each process of the API asks
once a second what has ended lately, which is next to nothing, and remembers it for as long as such tokens would live.
Money does not hang on that second: the ledger asks for the version in the transaction that moves it.
"""

import asyncio
from datetime import datetime, timedelta

import structlog
from pymongo.errors import PyMongoError

from service.background import end
from service.domain.clock import utc_now
from service.repositories import sessions as session_repository
from service.repositories import users as user_repository
from service.services.access_tokens import LEEWAY_S
from service.services.callers import Caller

log = structlog.get_logger()

_INTERVAL_S = 1.0
# What is stamped now may be committed and seen so much later: clocks differ, and a transaction may try for ten seconds.
_LAG = timedelta(seconds=30)


class EndedTokens:
    """`lifetime_s` is that of access tokens."""

    def __init__(self, lifetime_s: int) -> None:
        self._lifetime = timedelta(seconds=lifetime_s + LEEWAY_S)
        # When each session ended; who had to come with which version from when on.
        self._sessions: dict[str, datetime] = {}
        self._users: dict[str, tuple[int, datetime]] = {}
        self._looked_at: datetime | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Afterwards all is known that ended before, unless MongoDB does not answer."""
        await self._try_to_look()
        self._looking = asyncio.create_task(self._look_for_ever(), name="ended-tokens")

    async def close(self) -> None:
        if self._looking is not None:
            await end(self._looking)

    def has(self, token: Caller) -> bool:
        if token.session_id in self._sessions:
            return True
        user = self._users.get(token.user_id)
        return user is not None and token.token_version < user[0]

    def note_session(self, session_id: str, now: datetime) -> None:
        """For whoever has just ended it: this process refuses its access tokens from now on, without a read."""
        self._sessions.setdefault(session_id, now)

    def note_user(self, user_id: str, token_version: int, now: datetime) -> None:
        """The same for all tokens of the user that are older than this version."""
        found = (token_version, now)
        self._users[user_id] = max(found, self._users.get(user_id, found))

    async def look(self) -> None:
        """Also for whoever has just ended something, so that this process knows at once. Raises PyMongoError."""
        now = utc_now()
        since = now - self._lifetime if self._looked_at is None else self._looked_at - _LAG
        self._sessions |= await session_repository.find_revoked(since)
        for user_id, found in (await user_repository.find_ended(since)).items():
            # Of two looks at once the earlier one may end later.
            self._users[user_id] = max(found, self._users.get(user_id, found))
        self._looked_at = now
        self._forget(now - self._lifetime - _LAG)

    def _forget(self, before: datetime) -> None:
        """Tokens from then have expired. Oldest first, or nearly: what is kept a little longer does no harm."""
        while self._sessions and self._sessions[oldest := next(iter(self._sessions))] < before:
            del self._sessions[oldest]
        while self._users and self._users[oldest := next(iter(self._users))][1] < before:
            del self._users[oldest]

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self._try_to_look()

    async def _try_to_look(self) -> None:
        try:
            await self.look()
        except PyMongoError as error:
            log.warning("ended_tokens.not_known", error=repr(error))
        except Exception:
            # A defect, which must not end the looking.
            log.exception("ended_tokens.failed")
