"""Lockdowns: the ledger freezes each wallet of the user both ways, and opens it again once two admins agreed."""

from dataclasses import dataclass

from service.domain.audit_events import AuditAction
from service.domain.lockdowns import LOCKDOWN_DETAIL, FreezeBefore, is_shut
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.errors import WalletOwes
from service.ledger.audit_events import Unchanged
from service.ledger.commands import Changes, Needs, State
from service.ledger.rules import require_anothers
from service.ledger.wallet_life import OnWallet, OpeningWallet


@dataclass(frozen=True, slots=True, kw_only=True)
class LockWallet(OnWallet):
    """Freezes both ways. Its event keeps which way the wallet was frozen before, for the lift."""

    lockdown_id: str

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), wallets=(self.wallet_id,), owners_of=(self.wallet_id,))

    def decide_on(self, wallet: Wallet, state: State) -> Changes:
        lockdown = state.lockdown(wallet.user_id)
        # Another admin may have lifted it meanwhile.
        is_over = lockdown is None or lockdown.is_lift_approved or lockdown.id != self.lockdown_id
        if is_over or is_shut(wallet):
            raise Unchanged
        told = {LOCKDOWN_DETAIL: self.lockdown_id}
        return self.turned(wallet, WalletStatus.FROZEN, Freeze.BOTH, AuditAction.WALLET_FROZEN, told)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockWallet(OpeningWallet):
    """Makes the wallet as it was before the lockdown froze it. It stays frozen out while something is owed.

    Nothing changes unless another admin approved the lift, nor where the wallet was frozen anew meanwhile.
    """

    lockdown_id: str
    before: FreezeBefore

    def decide_on(self, wallet: Wallet, state: State) -> Changes:
        require_anothers(self.user_id, wallet.user_id)
        lockdown = state.lockdown(wallet.user_id)
        is_ours = wallet.status is WalletStatus.FROZEN and wallet.freeze_event_id == self.before.event_id
        if lockdown is None or not lockdown.is_lift_approved or lockdown.id != self.lockdown_id or not is_ours:
            raise Unchanged
        direction, told = self.before.direction, {LOCKDOWN_DETAIL: self.lockdown_id}
        if direction is not Freeze.OUT:
            try:
                self.require_nothing_returned(wallet, state)
            except WalletOwes:
                direction = Freeze.OUT
        if direction is None:
            return self.turned(wallet, WalletStatus.ACTIVE, None, AuditAction.WALLET_UNFROZEN, told)
        return self.turned(wallet, WalletStatus.FROZEN, direction, AuditAction.WALLET_FROZEN, told)
