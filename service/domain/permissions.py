"""Permissions: what a caller may do, by role. Each route declares the one that it takes."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

# Nobody has more than these three, in an order or two.
_REMEMBERED_ROLES = 64


class Permission(StrEnum):
    """`read` and `write` are about what is one's own, `admin` and `any` about everybody's."""

    PROFILE_READ = "profile:read"
    PROFILE_WRITE = "profile:write"
    WALLETS_READ = "wallets:read"
    WALLETS_WRITE = "wallets:write"
    PAYMENTS_READ = "payments:read"
    PAYMENTS_WRITE = "payments:write"
    HOLDS_READ = "holds:read"
    HOLDS_WRITE = "holds:write"
    REWARDS_READ = "rewards:read"
    REWARDS_WRITE = "rewards:write"
    EVENTS_READ = "events:read"
    # As they happen, for as long as a token lasts.
    EVENTS_FOLLOW = "events:follow"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    # Of a service: its own adjustments, and holds that others have with each other.
    ADJUSTMENTS_READ = "adjustments:read"
    ADJUSTMENTS_WRITE = "adjustments:write"
    HOLDS_ANY = "holds:any"
    ADJUSTMENTS_ADMIN = "adjustments:admin"
    WALLETS_ADMIN = "wallets:admin"
    USERS_ADMIN = "users:admin"
    API_KEYS_ADMIN = "api-keys:admin"
    LEDGER_ADMIN = "ledger:admin"
    AUDIT_READ = "audit:read"
    DEAD_LETTERS_ADMIN = "dead-letters:admin"
    CATALOGUE_ADMIN = "catalogue:admin"


class Role(StrEnum):
    """A user has any of them together."""

    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


_OWN_MONEY = frozenset(
    {
        Permission.WALLETS_READ,
        Permission.WALLETS_WRITE,
        Permission.PAYMENTS_READ,
        Permission.PAYMENTS_WRITE,
        Permission.HOLDS_READ,
        Permission.HOLDS_WRITE,
        Permission.REWARDS_READ,
        Permission.REWARDS_WRITE,
        Permission.EVENTS_READ,
    }
)
_OWN_WEBHOOKS = frozenset({Permission.WEBHOOKS_READ, Permission.WEBHOOKS_WRITE})
_OWN_PROFILE = frozenset({Permission.PROFILE_READ, Permission.PROFILE_WRITE})
_OF_TOKENS = frozenset({Permission.EVENTS_FOLLOW})
_SERVICES = frozenset({Permission.ADJUSTMENTS_READ, Permission.ADJUSTMENTS_WRITE, Permission.HOLDS_ANY})

ROLE_PERMISSIONS: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        Role.USER: _OWN_MONEY | _OWN_PROFILE | _OWN_WEBHOOKS | _OF_TOKENS,
        Role.SERVICE: _OWN_MONEY | _OWN_PROFILE | _OWN_WEBHOOKS | _OF_TOKENS | _SERVICES,
        Role.ADMIN: frozenset(Permission),
    }
)

# What a key of a service may be limited to: passwords, sessions and authenticator apps are of those who log in, and
# streams end with a token, where a key has no end.
KEY_PERMISSIONS = ROLE_PERMISSIONS[Role.SERVICE] - _OWN_PROFILE - _OF_TOKENS
# Permissions that move other users' money. A key with one takes two admins, for any owner.
_OTHERS_MONEY = frozenset({Permission.ADJUSTMENTS_WRITE, Permission.HOLDS_ANY})
# Permissions that change the owner's money or data. The issuing admin sees the secret of such a key.
_KEY_WRITES = frozenset(permission for permission in KEY_PERMISSIONS if permission.endswith(":write"))
# Roles that reach other people's money: giving one needs two admins. Taking one away does not.
TWO_ADMIN_ROLES = frozenset({Role.SERVICE, Role.ADMIN})
# What the ledger does not ask about in its own transaction: the user is looked at before anything is shown or done.
# Elsewhere a token that has ended is known within a second (ended_tokens.py).
LIVE_PERMISSIONS = frozenset(
    {
        Permission.PROFILE_WRITE,
        Permission.WEBHOOKS_WRITE,
        Permission.ADJUSTMENTS_READ,
        Permission.ADJUSTMENTS_ADMIN,
        Permission.WALLETS_ADMIN,
        Permission.USERS_ADMIN,
        Permission.API_KEYS_ADMIN,
        Permission.LEDGER_ADMIN,
        Permission.AUDIT_READ,
        Permission.DEAD_LETTERS_ADMIN,
        Permission.CATALOGUE_ADMIN,
    }
)


def key_takes_two_admins(permissions: Collection[Permission], user_id: str, admin_id: str) -> bool:
    """Tells whether this admin may not issue such a key for the user alone, nor another secret for it.

    For themself they may, where it reaches nobody else's money: they can do that with their password too.
    """
    alone_refused = _OTHERS_MONEY if user_id == admin_id else _OTHERS_MONEY | _KEY_WRITES
    return not alone_refused.isdisjoint(permissions)


@lru_cache(maxsize=_REMEMBERED_ROLES)
def permissions_of(roles: tuple[str, ...]) -> frozenset[Permission]:
    """Returns all that these roles may do together. A role that is not known may do nothing."""
    return frozenset().union(*(ROLE_PERMISSIONS.get(role, frozenset()) for role in roles))
