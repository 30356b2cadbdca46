"""What the ledger does about a break: the wallet is shut by the system itself, which is no user to ask about."""

from dataclasses import dataclass

from service.errors import NotFound
from service.ledger.commands import Changes, Needs, State
from service.ledger.wallet_life import FreezeWallet


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeBrokenWallet(FreezeWallet):
    """As an admin's freeze, and for an admin to end."""

    @property
    def needs(self) -> Needs:
        return Needs(wallets=(self.wallet_id,))

    def decide(self, state: State) -> Changes:
        wallet = state.wallet(self.wallet_id)
        if wallet is None:
            raise NotFound(f"There is no wallet {self.wallet_id}")
        return self.decide_on(wallet, state)
