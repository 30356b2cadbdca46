"""Vouchers: the catalogue that admins keep, and redeeming, which takes points and stock in one breath."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.accounts import SystemAccount
from service.domain.audit_events import AuditAction
from service.domain.entries import EntryType
from service.domain.money import POINTS
from service.domain.records import Record
from service.domain.sealed import Sealed
from service.domain.vouchers import (
    Availability,
    Redemption,
    Voucher,
    VoucherUse,
    kept_voucher_view,
    redemption_receipt,
    voucher_use_id,
)
from service.domain.wallets import Freeze, Wallet
from service.errors import (
    FieldError,
    InvalidFields,
    NotFound,
    NoWalletInCurrency,
    VoucherLimitReached,
    VoucherNotValid,
    VoucherSoldOut,
    VoucherStockTooLow,
)
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Needs, PersonalCommand, State
from service.ledger.rules import movement_of, require_funds, require_open, require_requester, time_of

_OK, _CREATED = 200, 201


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVoucher(AuditedCommand):
    """`voucher` as it is to be: nothing of it depends on what is there."""

    voucher: Voucher

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        _require_sense(self.voucher)
        created = self.voucher._replace(created_by=self.user_id, updated_by=self.user_id)
        event = self.event(
            AuditAction.VOUCHER_CREATED,
            created.id,
            created.created_at,
            cost=created.cost,
            stock=created.stock,
            is_active=created.is_active,
        )
        return Changes(created, also=(event,), answer=lambda _: kept_voucher_view(created), status_code=_CREATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateVoucher(AuditedCommand):
    """`changes` are fields as they are to be, save the stock: that is counted up or down, so that what is redeemed at
    the same time is never overwritten.
    """

    voucher_id: str
    changes: Mapping[str, Any]
    add_stock: int

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), records=(self.voucher_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        voucher = _require_voucher(self.voucher_id, state)
        if voucher.stock + self.add_stock < 0:
            raise VoucherStockTooLow(stock=voucher.stock)
        changed = voucher._replace(
            **self.changes,
            stock=voucher.stock + self.add_stock,
            stocked_total=voucher.stocked_total + self.add_stock,
            updated_at=max(self.now, voucher.updated_at),
            updated_by=self.user_id,
        )
        _require_sense(changed)
        event = self.event(
            AuditAction.VOUCHER_CHANGED,
            changed.id,
            changed.updated_at,
            fields=", ".join(sorted(self.changes)) or None,
            add_stock=self.add_stock,
            cost=changed.cost,
            stock=changed.stock,
            is_active=changed.is_active,
        )
        return Changes(changed, also=(event,), answer=lambda _: kept_voucher_view(changed), status_code=_OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeemVoucher(PersonalCommand):
    """Points, stock and the person's own count: all three allow it, or nothing happens."""

    voucher_id: str
    redemption_id: str
    entry_id: str
    code_sealed: Sealed

    @property
    def needs(self) -> Needs:
        return Needs(
            users=(self.user_id,),
            owned_wallets=((self.user_id, POINTS),),
            records=(self.voucher_id, self._use_id),
        )

    @property
    def _use_id(self) -> str:
        return voucher_use_id(self.voucher_id, self.user_id)

    @property
    def made_id(self) -> str:
        return self.redemption_id

    def answer_made(self, made: Sequence[Record], state: State) -> tuple[int, Mapping[str, Any]]:
        (redemption,) = made
        assert isinstance(redemption, Redemption), "the same request makes the same kind of record"
        return _CREATED, redemption_receipt(redemption, state.wallet(redemption.wallet_id))

    def decide(self, state: State) -> Changes:
        """The voucher first, then the person, then their points."""
        require_requester(self, state)
        voucher = _require_voucher(self.voucher_id, state)
        self._require_available(voucher)
        use = state.record(self._use_id, VoucherUse) or VoucherUse(self._use_id, voucher.id, self.user_id, 0)
        if voucher.per_user_limit is not None and use.redeemed >= voucher.per_user_limit:
            raise VoucherLimitReached(per_user_limit=voucher.per_user_limit)
        wallet = state.wallet_in(self.user_id, POINTS)
        if wallet is None:
            raise NoWalletInCurrency(currency=POINTS)
        require_open(wallet, Freeze.OUT)
        require_funds(wallet, voucher.cost)
        redemption = self._new_redemption(voucher, wallet)
        spent = movement_of(
            EntryType.VOUCHER,
            wallet,
            voucher.cost,
            redemption,
            counterparty=SystemAccount.REWARDS,
            command=self,
            entry_id=self.entry_id,
        )
        return Changes(
            redemption,
            (spent,),
            also=(voucher._replace(stock=voucher.stock - 1), use._replace(redeemed=use.redeemed + 1)),
            answer=lambda after: redemption_receipt(redemption, after.wallet(wallet.id)),
            status_code=_CREATED,
        )

    def _require_available(self, voucher: Voucher) -> None:
        availability = voucher.availability(self.now)
        if availability is Availability.SOLD_OUT:
            raise VoucherSoldOut
        if availability is not Availability.REDEEMABLE:
            raise VoucherNotValid(reason=availability)

    def _new_redemption(self, voucher: Voucher, wallet: Wallet) -> Redemption:
        return Redemption(
            id=self.redemption_id,
            user_id=self.user_id,
            wallet_id=wallet.id,
            voucher_id=voucher.id,
            title=voucher.title,
            cost=voucher.cost,
            code_sealed=self.code_sealed,
            transaction_id=self.transaction_id,
            request_id=self.request_id,
            created_at=time_of(self.now, wallet),
        )


def _require_voucher(voucher_id: str, state: State) -> Voucher:
    voucher = state.record(voucher_id, Voucher)
    if voucher is None:
        raise NotFound(f"There is no voucher {voucher_id}")
    return voucher


def _require_sense(voucher: Voucher) -> None:
    """Checks what only the whole of it tells: a change of one end may pass the other."""
    if voucher.valid_from is not None and voucher.valid_until is not None and voucher.valid_from >= voucher.valid_until:
        raise InvalidFields(fields=(FieldError("/valid_until", "ends_before_it_begins", "Send a later time"),))
