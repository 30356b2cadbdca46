"""Lockdowns: one act of an admin that stops everything of a user, until two admins lift it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from service.domain.wallets import Freeze, Wallet, WalletStatus

LOCKDOWN_DETAIL = "lockdown_id"
"""Names, in the audit event of a freeze, the lockdown that the freeze belongs to."""


class StandingLockdown(NamedTuple):
    """What the ledger reads of a lockdown. `id` is the id of its audit event."""

    id: str
    is_lift_approved: bool


class FreezeBefore(NamedTuple):
    """How a wallet was frozen before a lockdown froze it both ways with the audit event `event_id`."""

    event_id: str
    direction: Freeze | None


class LockdownStatus(StrEnum):
    NONE = "none"
    INCOMPLETE = "incomplete"
    LOCKED = "locked"
    LIFT_PROPOSED = "lift_proposed"
    LIFTING = "lifting"


def is_shut(wallet: Wallet) -> bool:
    """Tells whether nothing goes into or out of the wallet."""
    return wallet.status is WalletStatus.CLOSED or (
        wallet.status is WalletStatus.FROZEN and wallet.freeze is Freeze.BOTH
    )


def status_of(*, is_standing: bool, is_proposed: bool, is_approved: bool, wallets: Iterable[Wallet]) -> LockdownStatus:
    """Returns `incomplete` or `lifting` where the process ended in the middle: the act can be repeated then."""
    if not is_standing:
        return LockdownStatus.NONE
    if is_approved:
        return LockdownStatus.LIFTING
    if not all(is_shut(wallet) for wallet in wallets):
        return LockdownStatus.INCOMPLETE
    return LockdownStatus.LIFT_PROPOSED if is_proposed else LockdownStatus.LOCKED
