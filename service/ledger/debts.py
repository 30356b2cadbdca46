"""What a wallet owes for returned deposits, and how whatever comes in pays it. Pure, like everything that decides.

A rule only says that something is owed (`owe`). The ledger itself collects it: after the movements of each command, a
wallet that owes pays from what is available, the oldest return first (batch.py). So no command can forget to.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import assert_never

from service.domain.accounts import SystemAccount
from service.domain.entries import EntryType
from service.domain.identifiers import Prefix
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.records import Record
from service.domain.returns import Return, ReturnStatus, ReturnType
from service.domain.wallets import MAX_DEBTS, Movement, Wallet, WalletStatus
from service.errors import BalanceOverflow, WalletClosed, WalletOwes
from service.ledger.commands import Command
from service.ledger.rules import BANK, fits, movement_of, time_of, with_one_fewer_open

# An id is a prefix of three letters, `_`, 12 hexadecimal digits of time, and 20 further ones.
_TIME_DIGITS = slice(4, 16)
_FURTHER_DIGITS = 20


def owe(wallet: Wallet, returned: Return) -> tuple[Wallet, Return]:
    """Adds the whole return to what is owed. `pay_oldest` collects what is available in the same transaction."""
    assert returned.id not in wallet.debts, f"{wallet.id} owes {returned.id} already"
    owing = wallet._replace(owed=wallet.owed + returned.amount, debts=(*wallet.debts, returned.id))
    return owing, returned._replace(status=ReturnStatus.OWED, owed=returned.amount)


def pay_oldest(wallet: Wallet, returned: Return, command: Command) -> tuple[Wallet, Return, Movement]:
    """Pays the wallet's oldest return from what is available.

    Returns the wallet before the movement, the return after it, and the movement.
    """
    amount = min(wallet.available, returned.owed)
    owed, at = returned.owed - amount, time_of(command.now, wallet)
    paid = returned._replace(owed=owed, transaction_id=command.transaction_id, updated_at=max(at, returned.updated_at))
    owing = wallet._replace(owed=wallet.owed - amount)
    if not owed:
        paid = paid._replace(status=ReturnStatus.SUCCESS, trouble=None)
        owing = with_one_fewer_open(owing._replace(debts=owing.debts[1:]), at)
    is_points = returned.type is ReturnType.POINTS
    movement = movement_of(
        EntryType.POINTS_RETURN if is_points else EntryType.DEPOSIT_RETURN,
        owing,
        amount,
        paid,
        counterparty=SystemAccount.REWARDS if is_points else BANK,
        command=command,
        entry_id=_entry_id(wallet, command),
    )
    return owing, paid, movement


def _entry_id(wallet: Wallet, command: Command) -> str:
    """Derives the entry's id: no command brings one for a debt, and a repeated attempt has to make the same id.

    Its time is that of the transaction's id, which was made together with the ids of the command's own entries.
    """
    digest = sha256(f"{command.transaction_id}:{wallet.id}:{wallet.seq + 1}".encode()).hexdigest()
    return f"{Prefix.ENTRY}_{command.transaction_id[_TIME_DIGITS]}{digest[:_FURTHER_DIGITS]}"


def assert_debts_explained(before: Wallet, after: Wallet, records: Mapping[str, Record]) -> None:
    """A rule may add debts, each with a return of its own, and take none away: only payment does that."""
    known = len(before.debts)
    assert after.debts[:known] == before.debts, f"{after.id} no longer owes what it owed"
    owed = 0
    for return_id in after.debts[known:]:
        returned = records.get(return_id)
        assert isinstance(returned, Return), f"{after.id} owes {return_id}, which is no return"
        owed += returned.owed
    assert after.owed - before.owed == owed, f"{after.id} owes {after.owed - before.owed} more, its returns {owed}"


def trouble_of(returned: Return, wallet: Wallet) -> str | None:
    """Says why the wallet cannot follow the bank. That it is frozen is no reason: the money has moved already."""
    if wallet.status is WalletStatus.CLOSED:
        return WalletClosed.code
    match returned.type:
        case ReturnType.WITHDRAWAL:
            return None if fits(wallet, returned.amount) else BalanceOverflow.code
        case ReturnType.DEPOSIT | ReturnType.POINTS:
            is_full = len(wallet.debts) >= MAX_DEBTS or wallet.owed + returned.amount > MAX_AMOUNT_MINOR
            return WalletOwes.code if is_full else None
        case _:
            assert_never(returned.type)
