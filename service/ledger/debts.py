"""What a wallet owes for returned deposits, and how whatever comes in pays it. Pure, like everything that decides.

A rule only says that something is owed (`owe`). The ledger itself collects it: after the movements of each command, a
wallet that owes pays from what is available, the oldest return first (batch.py). So no command can forget to.
"""

from collections.abc import Mapping
from hashlib import sha256

from service.domain.accounts import SystemAccount
from service.domain.entries import EntryType
from service.domain.identifiers import Prefix
from service.domain.records import Record
from service.domain.returns import Return, ReturnStatus, ReturnType
from service.domain.wallets import Movement, Wallet
from service.ledger.commands import Command
from service.ledger.rules import BANK, movement_of, time_of, with_one_fewer_open

# An id is a prefix, `_`, and 12 hexadecimal digits of time before what tells it from others.
_TIME_DIGITS = slice(4, 16)
_FURTHER_DIGITS = 20


def owe(wallet: Wallet, returned: Return) -> tuple[Wallet, Return]:
    """All of the return is owed; what the wallet has is taken by `pay_oldest` in the same transaction."""
    assert returned.id not in wallet.debts, f"{wallet.id} owes {returned.id} already"
    owing = wallet._replace(owed=wallet.owed + returned.amount, debts=(*wallet.debts, returned.id))
    return owing, returned._replace(status=ReturnStatus.OWED, owed=returned.amount)


def pay_oldest(wallet: Wallet, returned: Return, command: Command) -> tuple[Wallet, Return, Movement]:
    """The wallet's oldest return takes what is available, as far as it needs it: the wallet before the movement, the
    return after it, and the movement.
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
    """Derived, because no command knows that it will pay a debt, and what is decided twice has to come to the same.

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
