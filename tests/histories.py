"""Histories of wallets as they would be after months, written as the ledger writes: a right chain, in transactions."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from service.database import Databases, session_in_transaction
from service.domain.entries import Entry, EntryType
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import Movement, Wallet, apply_movement
from service.repositories import transaction_logs as log_repository
from service.repositories import wallets as wallet_repository
from tests.factories import current, make_user, make_wallet

OPENED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Step(NamedTuple):
    """One movement, so many hours after the one before."""

    type: EntryType
    amount: int
    category: str | None = None
    after_h: float = 1.0
    reference: str | None = None
    counterparty: str = "bank"
    status: str = "success"


async def make_old_wallet(databases: Databases, currency: str = "INR") -> Wallet:
    """Empty, opened at OPENED_AT."""
    user = await make_user(databases)
    return await make_wallet(databases, user, currency=currency, created_at=OPENED_AT, updated_at=OPENED_AT)


async def write_history(databases: Databases, wallet: Wallet, *steps: Step) -> list[Entry]:
    """Oldest first; the first step's time counts from the last entry that there was."""
    now = before = await current(wallet)
    entries = []
    for step in steps:
        now, entry = apply_movement(now, _movement(now, step))
        entries.append(entry)
    if entries:
        await write(databases, before, now, entries)
    return entries


async def write(databases: Databases, before: Wallet, after: Wallet, entries: Sequence[Entry]) -> None:
    async with session_in_transaction(databases.client) as session:
        assert await wallet_repository.update_guarded([(before, after)], session=session)
        await log_repository.insert_many(entries, session=session)


def _movement(wallet: Wallet, step: Step) -> Movement:
    return Movement(
        wallet_id=wallet.id,
        type=step.type,
        amount=step.amount,
        status=step.status,
        reference=step.reference or new_id(Prefix.WITHDRAWAL),
        transaction_id=new_id(Prefix.TRANSACTION),
        counterparty=step.counterparty,
        entry_id=new_id(Prefix.ENTRY),
        at=wallet.updated_at + timedelta(hours=step.after_h),
        category=step.category,
    )
