"""What becomes of a wallet besides its money: frozen, unfrozen, closed, reopened. The wallet document guards each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from service.domain.audit_events import AuditAction
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.errors import (
    FieldError,
    InvalidFields,
    NotFound,
    WalletClosed,
    WalletFrozen,
    WalletHasOpenOperations,
    WalletNotEmpty,
)
from service.ledger.audit_events import AuditedCommand, Unchanged
from service.ledger.commands import Changes, Needs, State
from service.ledger.rules import (
    require_anothers,
    require_none_waits,
    require_not_locked_down,
    require_nothing_owed,
    require_offered,
    require_requester,
    time_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnWallet(AuditedCommand):
    """Somebody who may changes what a wallet lets through. What is so already is left alone (Unchanged)."""

    wallet_id: str

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), wallets=(self.wallet_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        wallet = state.wallet(self.wallet_id)
        if wallet is None:
            raise NotFound(f"There is no wallet {self.wallet_id}")
        return self.decide_on(wallet, state)

    def decide_on(self, wallet: Wallet, state: State) -> Changes:
        raise NotImplementedError

    def turned(
        self,
        wallet: Wallet,
        status: WalletStatus,
        freeze: Freeze | None,
        action: AuditAction,
        told: Mapping[str, str] = MappingProxyType({}),
    ) -> Changes:
        at = time_of(self.now, wallet)
        event = self.event(
            action, wallet.id, at, direction=freeze, was_status=wallet.status, was_direction=wallet.freeze, **told
        )
        after = wallet._replace(
            status=status,
            freeze=freeze,
            freeze_event_id=event.id if status is WalletStatus.FROZEN else None,
            updated_at=at,
        )
        return Changes(event, wallets=(after,))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningWallet(OnWallet):
    """Base of the commands that may let money out of a frozen or closed wallet.

    It stays as it is while anything is owed or a return waits to take: from the wallet itself, or from one of its
    owner's others with money, which are `beside` it.
    """

    beside: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        named = (self.wallet_id, *self.beside)
        return Needs(users=(self.user_id,), wallets=named, owners_of=(self.wallet_id,), waiting_returns_of=named)

    @property
    def locks_wallets(self) -> bool:
        """A return to one of the others that is booked at this very moment changes that one only: the two conflict
        on it, so that either the return freezes this wallet or this command sees what is owed.
        """
        return True

    def require_nothing_returned(self, wallet: Wallet, state: State) -> None:
        """Raises WalletOwes."""
        others = [one for one in map(state.wallet, self.beside) if one is not None]
        self.require_nothing_returned_of([wallet, *others], state)

    @staticmethod
    def require_nothing_returned_of(wallets: Sequence[Wallet], state: State) -> None:
        """Raises WalletOwes where one of the wallets owes, or a return waits to take from it."""
        for one in wallets:
            require_nothing_owed(one)
            require_none_waits(state.waiting_return(one.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWallet(OpeningWallet):
    """Nothing new goes in, out, or either way. What the bank has ends as it would have ended."""

    freeze: Freeze

    def decide_on(self, wallet: Wallet, state: State) -> Changes:
        if wallet.status is WalletStatus.CLOSED:
            raise WalletClosed(wallet_id=wallet.id)
        if wallet.status is WalletStatus.FROZEN and wallet.freeze is self.freeze:
            raise Unchanged
        if wallet.status is WalletStatus.FROZEN and self.freeze is not Freeze.BOTH:
            # What was shut is opened one way.
            require_anothers(self.user_id, wallet.user_id)
            require_not_locked_down(wallet, state)
            if self.freeze is Freeze.IN:
                self.require_nothing_returned(wallet, state)
        return self.turned(wallet, WalletStatus.FROZEN, self.freeze, AuditAction.WALLET_FROZEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfreezeWallet(OpeningWallet):
    def decide_on(self, wallet: Wallet, state: State) -> Changes:
        if wallet.status is WalletStatus.CLOSED:
            raise WalletClosed(wallet_id=wallet.id)
        if wallet.status is WalletStatus.ACTIVE:
            raise Unchanged
        require_anothers(self.user_id, wallet.user_id)
        require_not_locked_down(wallet, state)
        self.require_nothing_returned(wallet, state)
        return self.turned(wallet, WalletStatus.ACTIVE, None, AuditAction.WALLET_UNFROZEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseWallet(OnWallet):
    """By its owner or an admin. A frozen one only by an admin: freezing is not for the owner to end."""

    is_admin: bool

    def decide_on(self, wallet: Wallet, state: State) -> Changes:  # noqa: ARG002 as its neighbours
        if wallet.user_id != self.user_id:
            if not self.is_admin:
                raise NotFound(f"There is no wallet {self.wallet_id}")
            if self.reason is None:
                raise InvalidFields(fields=(FieldError("/reason", "missing", "Say why you close another's wallet"),))
        if wallet.status is WalletStatus.CLOSED:
            raise Unchanged
        if wallet.status is WalletStatus.FROZEN and not self.is_admin:
            raise WalletFrozen(wallet_id=wallet.id, frozen=wallet.freeze)
        require_nothing_owed(wallet)
        _require_over(wallet)
        return self.turned(wallet, WalletStatus.CLOSED, None, AuditAction.WALLET_CLOSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReopenWallet(OpeningWallet):
    """An admin makes a closed wallet of somebody else's active again, with its history: a user has one in a currency,
    so that they would have none in it otherwise. It is as empty as it was when it was closed.

    Where the bank has sent something back meanwhile, it is reopened frozen *out*: nothing leaves it before that is
    booked and an admin unfreezes it. It stays closed while another wallet of its owner owes,
    or a return waits to take from another.
    """

    def decide(self, state: State) -> Changes:
        wallet = state.wallet(self.wallet_id)
        if wallet is not None and wallet.status is WalletStatus.CLOSED:
            require_requester(self, state)
            require_offered(wallet.currency, state.policy)
        return OnWallet.decide(self, state)

    def decide_on(self, wallet: Wallet, state: State) -> Changes:
        if wallet.status is WalletStatus.FROZEN:
            raise WalletFrozen(wallet_id=wallet.id, frozen=wallet.freeze)
        if wallet.status is WalletStatus.ACTIVE:
            raise Unchanged
        require_anothers(self.user_id, wallet.user_id)
        require_not_locked_down(wallet, state)
        _require_empty(wallet)
        self.require_nothing_returned_of([one for one in map(state.wallet, self.beside) if one is not None], state)
        if wallet.open_operations:
            return self.turned(wallet, WalletStatus.FROZEN, Freeze.OUT, AuditAction.WALLET_REOPENED)
        return self.turned(wallet, WalletStatus.ACTIVE, None, AuditAction.WALLET_REOPENED)


def _require_over(wallet: Wallet) -> None:
    """Nothing is in it, and nothing that has begun may still move it."""
    _require_empty(wallet)
    if wallet.open_operations:
        raise WalletHasOpenOperations(**_contents(wallet))


def _require_empty(wallet: Wallet) -> None:
    if wallet.available or wallet.held:
        raise WalletNotEmpty(**_contents(wallet))


def _contents(wallet: Wallet) -> dict[str, Any]:
    return {
        "currency": wallet.currency,
        "available": wallet.available,
        "held": wallet.held,
        "open_operations": wallet.open_operations,
    }
