"""What the rules of several commands have in common. Pure, like everything that decides."""

from datetime import datetime
from typing import Protocol

from service.domain.accounts import SystemAccount
from service.domain.clock import to_rfc3339
from service.domain.entries import EntryType
from service.domain.limits import charge, effective_limits, find_exceeded, give_back, usage_at
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.policy import Policy
from service.domain.returns import Return
from service.domain.wallets import Freeze, Movement, Wallet, WalletStatus
from service.errors import (
    AccountDeactivated,
    CurrencyNotOffered,
    InsufficientFunds,
    LimitExceeded,
    NotFound,
    SecondAdminRequired,
    Unauthenticated,
    UserLockedDown,
    WalletClosed,
    WalletFrozen,
    WalletOwes,
)
from service.ledger.commands import Command, PersonalCommand, State

BANK = SystemAccount.BANK


def require_requester(command: PersonalCommand, state: State) -> None:
    """Requires that who asks may ask, at this very moment. Raises AccountDeactivated, Unauthenticated."""
    token_version = state.token_version(command.user_id)
    if token_version is None:
        raise AccountDeactivated
    if command.token_version not in (None, token_version):
        raise Unauthenticated("The access token is no longer valid")


def require_anothers(user_id: str, owner_id: str | None) -> None:
    """Nobody decides about their own money, whatever they may do with others'. Raises SecondAdminRequired."""
    if user_id == owner_id:
        raise SecondAdminRequired


def require_not_locked_down(wallet: Wallet, state: State) -> None:
    """Requires that the wallet's owner is not locked down: one admin alone lets nothing out then.

    The command has to name the wallet in `owners_of`. Raises UserLockedDown.
    """
    if state.lockdown(wallet.user_id) is not None:
        raise UserLockedDown(user_id=wallet.user_id)


def require_own_wallet(wallet_id: str, user_id: str, state: State) -> Wallet:
    wallet = state.wallet(wallet_id)
    if wallet is None or wallet.user_id != user_id:
        raise NotFound(f"There is no wallet {wallet_id}")
    return wallet


def require_offered(currency: str, policy: Policy) -> None:
    """Requires a currency that the service deals in. For money that comes in: a wallet can always be emptied.

    Raises CurrencyNotOffered.
    """
    if not policy.deals_in(currency):
        offered = sorted(policy.currencies)
        raise CurrencyNotOffered(
            f"{currency} is not dealt in, but {', '.join(offered)}", currency=currency, offered=offered
        )


def require_open(wallet: Wallet, flow: Freeze) -> None:
    """Money may go into the wallet, or out of it, as far as its status goes.

    Raises WalletClosed, WalletOwes, WalletFrozen.
    """
    if wallet.status is WalletStatus.CLOSED:
        raise WalletClosed(wallet_id=wallet.id)
    if flow is Freeze.OUT:
        require_nothing_owed(wallet)
    if not wallet.lets(flow):
        raise WalletFrozen(wallet_id=wallet.id, frozen=wallet.freeze)


def require_nothing_owed(wallet: Wallet) -> None:
    """Raises WalletOwes."""
    if wallet.owed:
        raise WalletOwes(
            f"{wallet.owed} {wallet.currency} of a returned deposit is owed",
            wallet_id=wallet.id,
            owed=wallet.owed,
            currency=wallet.currency,
        )


def require_none_waits(returned: Return | None) -> None:
    """Raises WalletOwes for a return that waits to take from a wallet."""
    if returned is not None:
        raise WalletOwes(
            f"{returned.id} of {returned.amount} has not been collected",
            wallet_id=returned.wallet_id,
            owed=returned.amount,
            currency=returned.currency,
        )


def require_payable(wallet: Wallet, amount: int, at: datetime, state: State) -> None:
    """The wallet's owner may let so much out of it: status, funds, limits."""
    require_open(wallet, Freeze.OUT)
    require_funds(wallet, amount)
    _require_within_limits(wallet, amount, at, state)


def passes_step_up_sum(wallet: Wallet, amount: int, at: datetime, state: State) -> bool:
    """Tells whether more than the policy's sum would have left the wallet that day, in many small payments perhaps.

    Decided in the transaction: of two payments at once, the second one counts the first.
    """
    ceiling = state.policy.step_up_day_above.get(wallet.currency)
    # Nearly always it is clear without looking at the window: one that has ended counts for less.
    if ceiling is None or wallet.usage.day_total + amount <= ceiling:
        return False
    return usage_at(wallet.usage, at, wallet.zone).day_total + amount > ceiling


def require_funds(wallet: Wallet, amount: int) -> None:
    if wallet.available < amount:
        raise InsufficientFunds(
            f"{amount} was asked for and {wallet.available} is available",
            available=wallet.available,
            requested=amount,
            currency=wallet.currency,
        )


def _require_within_limits(wallet: Wallet, amount: int, at: datetime, state: State) -> None:
    limits = effective_limits(state.policy.limits_in(wallet.currency), wallet.limits)
    exceeded = find_exceeded(limits, wallet.usage, amount, at, wallet.zone)
    if exceeded is not None:
        raise LimitExceeded(
            f"The limit {exceeded.limit} is {exceeded.ceiling}, of which {exceeded.left} is left",
            scope="wallet",
            currency=wallet.currency,
            limit=exceeded.limit,
            ceiling=exceeded.ceiling,
            left=exceeded.left,
            resets_at=None if exceeded.resets_at is None else to_rfc3339(exceeded.resets_at),
            time_zone=wallet.zone_name,
        )


def fits(wallet: Wallet, amount: int) -> bool:
    """Tells whether the balance stays within what JSON carries exactly."""
    return wallet.available + wallet.held + amount <= MAX_AMOUNT_MINOR


def time_of(command_now: datetime, wallet: Wallet) -> datetime:
    """The command's time, no earlier than the wallet's last change: times never run backwards within a wallet."""
    return max(command_now, wallet.updated_at)


def time_of_both(command_now: datetime, wallet: Wallet | None, other: Wallet | None, state: State) -> datetime:
    """The command's time, no earlier than the last change of the wallet and, up to `clock_bound` from now, of the
    other one. If only one wallet is given, its last change counts in full.

    A wallet that was stamped by a clock that ran ahead stays ahead until that time has come, but it does not pass its
    time on to the wallets that pay into it.
    """
    if wallet is None or other is None:
        known = other if wallet is None else wallet
        return command_now if known is None else time_of(command_now, known)
    return max(command_now, wallet.updated_at, min(other.updated_at, command_now + state.policy.clock_bound))


def charged(wallet: Wallet, amount: int, at: datetime) -> Wallet:
    """Counted for the limits."""
    usage = charge(wallet.usage, amount, at, wallet.zone)
    return wallet._replace(usage=usage, updated_at=max(at, wallet.updated_at))


def uncharged(wallet: Wallet, amount: int, charged_at: datetime, at: datetime, *, is_whole: bool = True) -> Wallet:
    """Gives the share of the limits of what came to nothing back; a part of it gives no count back."""
    usage = give_back(wallet.usage, amount, count=int(is_whole), charged_at=charged_at)
    return wallet._replace(usage=usage, updated_at=max(at, wallet.updated_at))


def with_one_more_open(wallet: Wallet, at: datetime) -> Wallet:
    """One more operation that may still move it."""
    return wallet._replace(open_operations=wallet.open_operations + 1, updated_at=max(at, wallet.updated_at))


def with_one_fewer_open(wallet: Wallet, at: datetime) -> Wallet:
    assert wallet.open_operations > 0, f"{wallet.id} has nothing open that could end"
    return wallet._replace(open_operations=wallet.open_operations - 1, updated_at=max(at, wallet.updated_at))


class Subject(Protocol):
    """What a movement belongs to: an operation, a transfer, a hold."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def category(self) -> str | None: ...


def movement_of(
    entry_type: EntryType,
    wallet: Wallet,
    amount: int,
    subject: Subject,
    *,
    counterparty: str,
    command: Command,
    entry_id: str,
) -> Movement:
    return Movement(
        wallet_id=wallet.id,
        type=entry_type,
        amount=amount,
        status=subject.status,
        reference=subject.id,
        transaction_id=command.transaction_id,
        counterparty=counterparty,
        entry_id=entry_id,
        at=command.now,
        category=subject.category,
    )
