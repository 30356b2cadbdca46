"""A wallet's state, and the one function that moves it from one state to the next."""

from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.entries import EFFECTS, GENESIS_HASH, Entry, EntryType, entry_hash
from service.domain.limits import Limits, Usage
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.time_zones import ZoneSource, has_home_zone, home_zone_name, zone_named

# Returns that one wallet may owe for at a time: they stand in its document and are read with it. Whoever had more
# deposits taken back, or owes more than a JSON number holds, is a case for a person.
MAX_DEBTS = 100


class WalletStatus(StrEnum):
    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


class Freeze(StrEnum):
    """Which way a frozen wallet is shut."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


class Wallet(NamedTuple):
    """`open_operations` counts what has begun here and may still move it; `limits` are its own, besides the usual.

    `event_sequence` is the number of its latest event. `owed` is what returned deposits still lack, and `debts` are
    those returns, oldest first. It is no part of the balance: while something is owed, nothing is available.
    `freeze_event_id` is the audit event of the freeze that stands; None also where an earlier version froze it.
    """

    id: str
    user_id: str
    currency: str
    available: int
    held: int
    status: WalletStatus
    seq: int
    head_hash: str
    created_at: datetime
    updated_at: datetime
    freeze: Freeze | None = None
    open_operations: int = 0
    usage: Usage = Usage()
    limits: Limits | None = None
    event_sequence: int = 0
    owed: int = 0
    debts: tuple[str, ...] = ()
    # Set by an admin. Order: this one, the owner's, the currency's.
    time_zone: str | None = None
    freeze_event_id: str | None = None
    owner_time_zone: str | None = None
    # Its owner has or had limits over all wallets: payments read their counters.
    counts_for_owner: bool = False

    @property
    def zone_name(self) -> str:
        """Of the zone in which its days and months begin."""
        return self.time_zone or self.owner_time_zone or home_zone_name(self.currency)

    @property
    def zone(self) -> tzinfo:
        return zone_named(self.zone_name)

    @property
    def zone_source(self) -> ZoneSource:
        if self.time_zone is not None:
            return ZoneSource.WALLET
        if self.owner_time_zone is not None:
            return ZoneSource.USER
        return ZoneSource.CURRENCY if has_home_zone(self.currency) else ZoneSource.DEFAULT

    def lets(self, flow: Freeze) -> bool:
        """Tells whether money may go in, or out, as far as freezing is concerned."""
        return self.status is not WalletStatus.FROZEN or self.freeze not in (flow, Freeze.BOTH, None)


class Movement(NamedTuple):
    """One step of a wallet: `amount` minor units, moved as EFFECTS[type] says."""

    wallet_id: str
    type: EntryType
    amount: int
    status: str
    reference: str
    transaction_id: str
    counterparty: str
    entry_id: str
    at: datetime
    category: str | None = None


class ImpossibleMovement(Exception):
    """A rule let through what it should have refused."""


def new_wallet(
    wallet_id: str,
    user_id: str,
    currency: str,
    now: datetime,
    owner_time_zone: str | None = None,
    *,
    counts_for_owner: bool = False,
) -> Wallet:
    return Wallet(
        wallet_id, user_id, currency, 0, 0, WalletStatus.ACTIVE, 0, GENESIS_HASH, now, now,
        owner_time_zone=owner_time_zone, counts_for_owner=counts_for_owner,
    )  # fmt: skip


def apply_movement(wallet: Wallet, movement: Movement) -> tuple[Wallet, Entry]:
    """Returns the wallet after the movement, and the entry that proves it.

    Raises ImpossibleMovement where a part of the balance would become negative or too large for JSON.
    """
    effect = EFFECTS[movement.type]
    available = wallet.available + effect.available * movement.amount
    held = wallet.held + effect.held * movement.amount
    if movement.amount <= 0 or available < 0 or held < 0 or available + held > MAX_AMOUNT_MINOR:
        raise ImpossibleMovement(f"{movement.type} of {movement.amount} on {wallet.id} at seq {wallet.seq}")
    at = max(movement.at, wallet.updated_at)
    unsealed = Entry(
        id=movement.entry_id,
        wallet_id=wallet.id,
        user_id=wallet.user_id,
        seq=wallet.seq + 1,
        type=movement.type,
        direction=effect.direction,
        amount=movement.amount,
        currency=wallet.currency,
        available_before=wallet.available,
        available_after=available,
        held_before=wallet.held,
        held_after=held,
        status=movement.status,
        reference=movement.reference,
        transaction_id=movement.transaction_id,
        counterparty=movement.counterparty,
        category=movement.category,
        # Times never run backwards within a wallet, so that "the balance at that time" has one answer.
        created_at=at,
        prev_hash=wallet.head_hash,
        hash="",
    )
    entry = unsealed._replace(hash=entry_hash(unsealed))
    moved = wallet._replace(available=available, held=held, seq=entry.seq, head_hash=entry.hash, updated_at=at)
    return moved, entry


def wallet_view(wallet: Wallet) -> dict[str, Any]:
    """Returns the wallet as the API shows it."""
    return {
        "id": wallet.id,
        "user_id": wallet.user_id,
        "currency": wallet.currency,
        "available": wallet.available,
        "held": wallet.held,
        "balance": wallet.available + wallet.held,
        "owed": wallet.owed,
        "status": wallet.status,
        "frozen": wallet.freeze,
        "seq": wallet.seq,
        "created_at": to_rfc3339(wallet.created_at),
        "updated_at": to_rfc3339(wallet.updated_at),
    }
