"""Vouchers: what points can be spent on, how many are left, and who has redeemed which."""

from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.idempotency import Tombstone
from service.domain.identifiers import Prefix
from service.domain.sealed import Sealed
from service.domain.transfers import balance_view
from service.domain.wallets import Wallet

CODE_BITS = 128
# Crockford's base32: without I, L, O and U, which are read as something else or spell what nobody wants to read.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BITS_EACH = 5
_CODE_LENGTH = 26
_GROUP = 5
# The last group takes the one character that would stand alone.
_GROUPS = _CODE_LENGTH // _GROUP
# As long as the hex of other ids.
_DERIVED_LENGTH = 32


class Availability(StrEnum):
    """Why a voucher can or cannot be redeemed at a time, whoever asks."""

    REDEEMABLE = "redeemable"
    INACTIVE = "inactive"
    NOT_YET_VALID = "not_yet_valid"
    OVER = "over"
    SOLD_OUT = "sold_out"


class Voucher(NamedTuple):
    """`cost` in points. What was ever stocked (`stocked_total`) is what is left and what was redeemed together.

    Valid from `valid_from` on and before `valid_until`.
    """

    id: str
    title: str
    description: str | None
    cost: int
    stock: int
    stocked_total: int
    per_user_limit: int | None
    valid_from: datetime | None
    valid_until: datetime | None
    is_active: bool
    created_at: datetime
    updated_at: datetime
    version: int = 0
    # None for vouchers of earlier releases.
    created_by: str | None = None
    updated_by: str | None = None

    def availability(self, at: datetime) -> Availability:
        if not self.is_active:
            return Availability.INACTIVE
        if self.valid_from is not None and at < self.valid_from:
            return Availability.NOT_YET_VALID
        if self.valid_until is not None and at >= self.valid_until:
            return Availability.OVER
        return Availability.REDEEMABLE if self.stock > 0 else Availability.SOLD_OUT


class VoucherUse(NamedTuple):
    """How often one person has redeemed one voucher."""

    id: str
    voucher_id: str
    user_id: str
    redeemed: int
    version: int = 0


class Redemption(NamedTuple):
    """Written once and never changed. `title` and `cost` are the voucher's at that moment; the code is its owner's."""

    id: str
    user_id: str
    wallet_id: str
    voucher_id: str
    title: str
    cost: int
    code_sealed: Sealed
    transaction_id: str
    request_id: str | None
    created_at: datetime
    tombstone: Tombstone | None = None

    @property
    def status(self) -> str:
        """As its entry has it: a redemption is over as soon as it is there."""
        return "success"

    @property
    def category(self) -> str | None:
        """None: points have no categories."""
        return None


def voucher_use_id(voucher_id: str, user_id: str) -> str:
    """Derived, so that two first redemptions of one person cannot both begin to count."""
    both = sha256(f"{voucher_id}:{user_id}".encode()).hexdigest()
    return f"{Prefix.VOUCHER_USE}_{both[:_DERIVED_LENGTH]}"


def redemption_code(number: int) -> str:
    """128 random bits, readable: '0A1B2-C3D4E-F5G6H-J7K8M-9N0P1Q'."""
    digits = [_ALPHABET[number >> shift * _BITS_EACH & 31] for shift in reversed(range(_CODE_LENGTH))]
    text = "".join(digits)
    starts = [group * _GROUP for group in range(_GROUPS)]
    return "-".join(text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True))


def voucher_view(voucher: Voucher) -> dict[str, Any]:
    """Returns the voucher as everybody sees it."""
    return {
        "id": voucher.id,
        "title": voucher.title,
        "description": voucher.description,
        "cost": voucher.cost,
        "stock": voucher.stock,
        "per_user_limit": voucher.per_user_limit,
        "valid_from": None if voucher.valid_from is None else to_rfc3339(voucher.valid_from),
        "valid_until": None if voucher.valid_until is None else to_rfc3339(voucher.valid_until),
        "is_active": voucher.is_active,
    }


def kept_voucher_view(voucher: Voucher) -> dict[str, Any]:
    """Returns the voucher as those see it who keep the catalogue."""
    return voucher_view(voucher) | {
        "stocked_total": voucher.stocked_total,
        "created_at": to_rfc3339(voucher.created_at),
        "updated_at": to_rfc3339(voucher.updated_at),
        "created_by": voucher.created_by,
        "updated_by": voucher.updated_by,
    }


def redemption_view(redemption: Redemption, code: str | None) -> dict[str, Any]:
    """With the code: for its owner only. None where it is to be filled in later."""
    return {
        "id": redemption.id,
        "voucher_id": redemption.voucher_id,
        "title": redemption.title,
        "cost": redemption.cost,
        "code": code,
        "wallet_id": redemption.wallet_id,
        "transaction_id": redemption.transaction_id,
        "redeemed_at": to_rfc3339(redemption.created_at),
    }


def redemption_receipt(redemption: Redemption, wallet: Wallet | None) -> dict[str, Any]:
    """Returns the answer to a redemption: with what is left, and without the code, since it is kept with the key."""
    return redemption_view(redemption, code=None) | ({} if wallet is None else {"balance": balance_view(wallet)})
