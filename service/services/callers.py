"""Who asks, and what they may."""

from typing import NamedTuple

from service.domain.permissions import Permission, Role, permissions_of
from service.services.orders import Requester


class Caller(NamedTuple):
    """As an access token says, whatever became of the user since it was given out; or as an API key is now."""

    user_id: str
    roles: tuple[str, ...]
    token_version: int
    # The session that the token was given out for; empty where there is none, as for keys, and for tokens of tests.
    session_id: str = ""
    # Of an API key, which may do less than its user; None: whatever the roles allow.
    scopes: frozenset[Permission] | None = None
    api_key_id: str | None = None
    # Of an API key: wallets to which it captures holds of others.
    capture_to: frozenset[str] = frozenset()

    def may(self, permission: Permission) -> bool:
        return permission in permissions_of(self.roles) and (self.scopes is None or permission in self.scopes)

    @property
    def is_admin(self) -> bool:
        """By role: what takes two admins does so for the key of one too, however little it may do besides."""
        return Role.ADMIN in self.roles

    @property
    def requester(self) -> Requester:
        return Requester(self.user_id, self.token_version)
