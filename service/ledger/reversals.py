"""Reversals: what a transfer or an adjustment moved is moved back, once, whatever became of the money meanwhile."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from service.domain.accounts import SystemAccount
from service.domain.adjustments import Adjustment, AdjustmentStatus, AdjustmentType
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.entries import EntryType
from service.domain.operations import OperationStatus
from service.domain.reversals import Reversal, reversal_view
from service.domain.transfers import Transfer
from service.domain.wallets import Movement, Wallet, WalletStatus
from service.errors import (
    AlreadyReversed,
    BalanceOverflow,
    IllegalTransition,
    NotFound,
    ReversalNotCovered,
    SecondAdminRequired,
    WalletClosed,
)
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Needs, State
from service.ledger.day_sums import MovedAlone, count_alone, day_sum_ids
from service.ledger.points_returns import needs_of_points, with_points_back
from service.ledger.rules import fits, movement_of, require_anothers, require_requester, time_of_both, uncharged

Original = Transfer | Adjustment

_CREATED = 201
_SETTLED = (OperationStatus.SUCCESS, AdjustmentStatus.SUCCESS)


class Way(NamedTuple):
    """The wallets that a reversal takes from and gives to, and the currency of both; None is the house."""

    from_wallet_id: str | None
    to_wallet_id: str | None
    currency: str


def way_back(original: Original) -> Way:
    """An original's wallets and currency never change, so a command can name them."""
    if isinstance(original, Transfer):
        return Way(original.to_wallet_id, original.wallet_id, original.currency)
    if original.type is AdjustmentType.CREDIT:
        return Way(original.wallet_id, None, original.currency)
    return Way(None, original.wallet_id, original.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseOriginal(AuditedCommand):
    """By an admin, on frozen wallets too, and not for themselves.

    With `is_forced` the house bears what the money's getter no longer has.
    """

    reversal_id: str
    original_id: str
    from_wallet_id: str | None
    to_wallet_id: str | None
    currency: str
    # Of a transfer: who sent it, and may have earned points by it.
    sender_id: str | None = None
    is_forced: bool
    out_entry_id: str
    in_entry_id: str
    house_entry_id: str

    @property
    def needs(self) -> Needs:
        named = (self.from_wallet_id, self.to_wallet_id)
        points = Needs() if self.sender_id is None else needs_of_points(self.original_id, self.sender_id)
        return Needs(
            users=(self.user_id,),
            wallets=tuple(wallet_id for wallet_id in named if wallet_id is not None),
            owned_wallets=points.owned_wallets,
            records=(self.original_id, *day_sum_ids((self.user_id,), self.currency), *points.records),
            owners_of=() if self.from_wallet_id is None else (self.from_wallet_id,),
        )

    def decide(self, state: State) -> Changes:
        """Once only: the original names its reversal, and whoever comes second reads that."""
        require_requester(self, state)
        original = state.record(self.original_id, Transfer) or state.record(self.original_id, Adjustment)
        if original is None:
            raise NotFound(f"There is no {self.original_id}")
        if original.reversal_id is not None:
            raise AlreadyReversed(reversal_id=original.reversal_id)
        if original.status not in _SETTLED:
            raise IllegalTransition(
                f"{original.id} is {original.status} and has moved nothing to take back", status_now=original.status
            )
        giver, taker = _wallet_not_closed(self.from_wallet_id, state), _wallet_not_closed(self.to_wallet_id, state)
        if taker is not None:
            require_anothers(self.user_id, taker.user_id)
        shortfall = 0 if giver is None else max(0, original.amount - giver.available)
        if giver is not None and shortfall and not self.is_forced:
            raise ReversalNotCovered(
                f"{original.amount} is to be taken back and {giver.available} is available",
                wallet_id=giver.id,
                available=giver.available,
                requested=original.amount,
                shortfall=shortfall,
                currency=original.currency,
            )
        if giver is not None and state.lockdown(giver.user_id) is not None:
            raise SecondAdminRequired("It takes from somebody who is locked down: a debit that another one approves")
        self._require_second_admin(original, original.amount if giver is None else shortfall, state)
        if taker is not None and not fits(taker, original.amount):
            raise BalanceOverflow
        alone = self._count_alone(original, shortfall if taker is None else original.amount, state)
        at = time_of_both(self.now, giver, taker, state)
        reversal = self._new_reversal(original, shortfall, at)._replace(
            counted_day=alone.counted.day, counted_for=alone.counted.actors
        )
        changes = Changes(
            reversal,
            self._movements(reversal, giver, taker),
            wallets=_with_limits_back(original, taker, at),
            also=(
                original._replace(reversal_id=reversal.id, updated_at=at),
                self._event_of(original, reversal),
                *alone.sums,
            ),
            answer=lambda _: reversal_view(reversal),
            status_code=_CREATED,
        )
        if not isinstance(original, Transfer):
            return changes
        return with_points_back(changes, original.id, original.user_id, self, state)

    def _require_second_admin(self, original: Original, borne: int, state: State) -> None:
        """Lets one admin reverse no more than they may give away as a credit.

        A debit that was taken back is seen by two where somebody else had made it.
        """
        if not state.policy.needs_second_admin(borne, original.currency):
            return
        if isinstance(original, Transfer) or original.requested_by == self.user_id:
            raise SecondAdminRequired(
                f"The house would bear {borne}, which takes two admins: a credit that another one approves",
                borne=borne,
                currency=original.currency,
            )

    def _count_alone(self, original: Original, amount: int, state: State) -> MovedAlone:
        """Counts what a user gets and what the house bears. Taking a credit back gives nobody anything."""
        alone = count_alone((self.user_id,), amount, original.currency, self.now, state)
        if alone is None:
            raise SecondAdminRequired(
                "More than one admin moves in a day takes two: an adjustment that another one approves",
                currency=original.currency,
            )
        return alone

    def _movements(self, reversal: Reversal, giver: Wallet | None, taker: Wallet | None) -> tuple[Movement, ...]:
        """Moves what is there from wallet to wallet, and what is missing from the house. Nothing is no movement."""
        house = SystemAccount.ADJUSTMENTS
        taken = reversal.amount - reversal.shortfall
        to, of = (house if taker is None else taker.id), (house if giver is None else giver.id)
        steps = (
            (EntryType.REVERSAL_OUT, giver, taken, to, self.out_entry_id),
            (EntryType.REVERSAL_IN, taker, taken, of, self.in_entry_id),
            (EntryType.REVERSAL_IN, taker, reversal.shortfall, house, self.house_entry_id),
        )
        return tuple(
            movement_of(kind, wallet, amount, reversal, counterparty=other, command=self, entry_id=entry_id)
            for kind, wallet, amount, other, entry_id in steps
            if wallet is not None and amount
        )

    def _new_reversal(self, original: Original, shortfall: int, at: datetime) -> Reversal:
        assert self.reason is not None, "a reversal has a reason"
        return Reversal(
            id=self.reversal_id,
            original_id=original.id,
            from_wallet_id=self.from_wallet_id,
            to_wallet_id=self.to_wallet_id,
            amount=original.amount,
            shortfall=shortfall,
            currency=original.currency,
            status=OperationStatus.SUCCESS,
            reason=self.reason,
            is_forced=self.is_forced,
            category=original.category,
            requested_by=self.user_id,
            transaction_id=self.transaction_id,
            request_id=self.request_id,
            created_at=at,
        )

    def _event_of(self, original: Original, reversal: Reversal) -> AuditEvent:
        is_transfer = isinstance(original, Transfer)
        return self.event(
            AuditAction.TRANSFER_REVERSED if is_transfer else AuditAction.ADJUSTMENT_REVERSED,
            original.id,
            reversal.created_at,
            reversal_id=reversal.id,
            amount=reversal.amount,
            currency=reversal.currency,
            force=reversal.is_forced,
            shortfall=reversal.shortfall,
        )


def _wallet_not_closed(wallet_id: str | None, state: State) -> Wallet | None:
    """None for the house. Raises WalletClosed: nothing moves a closed wallet any more."""
    if wallet_id is None:
        return None
    wallet = state.wallet(wallet_id)
    assert wallet is not None, f"{wallet_id} has gone"
    if wallet.status is WalletStatus.CLOSED:
        raise WalletClosed(wallet_id=wallet.id)
    return wallet


def _with_limits_back(original: Original, taker: Wallet | None, at: datetime) -> tuple[Wallet, ...]:
    """A transfer that was taken back has come to nothing, and its sender may send as much again."""
    if not isinstance(original, Transfer) or taker is None:
        return ()
    return (uncharged(taker, original.amount, original.created_at, at),)
