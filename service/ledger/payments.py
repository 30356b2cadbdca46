"""The paying part of transfers, which happens at once or after an approval."""

from service.domain.entries import EntryType
from service.domain.transfers import Transfer
from service.domain.wallets import Freeze, Movement, Wallet, WalletStatus
from service.errors import (
    CurrencyMismatch,
    RecipientBalanceOverflow,
    RecipientNotFound,
    RecipientWalletFrozen,
)
from service.ledger.commands import Command
from service.ledger.rules import fits, movement_of


def require_recipient(wallet: Wallet | None, amount: int, currency: str) -> Wallet:
    """A wallet that can take the amount in; a closed one is as good as none."""
    if wallet is None or wallet.status is WalletStatus.CLOSED:
        raise RecipientNotFound
    if wallet.currency != currency:
        raise CurrencyMismatch(wallet_id=wallet.id, currency=wallet.currency)
    if not wallet.lets(Freeze.IN):
        raise RecipientWalletFrozen(wallet_id=wallet.id)
    if not fits(wallet, amount):
        raise RecipientBalanceOverflow
    return wallet


def pay(
    transfer: Transfer, sender: Wallet, recipient: Wallet, command: Command, out_entry_id: str, in_entry_id: str
) -> tuple[Movement, Movement]:
    """Makes the two sides of it."""
    amount = transfer.amount
    return (
        movement_of(
            EntryType.TRANSFER_OUT,
            sender,
            amount,
            transfer,
            counterparty=recipient.id,
            command=command,
            entry_id=out_entry_id,
        ),
        movement_of(
            EntryType.TRANSFER_IN,
            recipient,
            amount,
            transfer,
            counterparty=sender.id,
            command=command,
            entry_id=in_entry_id,
        ),
    )
