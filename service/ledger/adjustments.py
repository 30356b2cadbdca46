"""Adjustments: credits and debits by admins and services, above a settable amount only with a second admin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from service.domain.accounts import SystemAccount
from service.domain.adjustments import Adjustment, AdjustmentStatus, AdjustmentType, adjustment_view
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.entries import EntryType
from service.domain.records import Record
from service.domain.wallets import Freeze, Movement, Wallet, WalletStatus
from service.errors import (
    BalanceOverflow,
    CurrencyMismatch,
    IllegalTransition,
    NotFound,
    SecondAdminRequired,
    WalletClosed,
)
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Needs, State
from service.ledger.day_sums import count_alone, day_sum_ids
from service.ledger.rules import (
    fits,
    movement_of,
    require_funds,
    require_open,
    require_requester,
    time_of,
    with_one_fewer_open,
    with_one_more_open,
)

_OK = 200
_CREATED = 201
_ACCEPTED = 202


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAdjustment(AuditedCommand):
    """`is_admin`: may adjust a frozen wallet, and needs a second admin for large amounts.

    What credits the asker's own wallet needs one for services too, and so does what credits one of `related`: whoever
    gave the asker a role or made the key that was used, whoever gave those a role, and so on.

    So does what takes from somebody who is locked down.

    What is made at once counts in the day's sums of the asker, the key and its `makers`. Beyond the policy's sum it
    waits too.
    """

    api_key_id: str | None = None
    related: frozenset[str] = frozenset()
    makers: frozenset[str] = frozenset()

    adjustment_id: str
    entry_id: str
    type: AdjustmentType
    wallet_id: str
    amount: int
    currency: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    is_admin: bool

    @property
    def needs(self) -> Needs:
        sums = day_sum_ids(self.actors, self.currency)
        named = (self.wallet_id,)
        return Needs(users=(self.user_id,), wallets=named, records=sums, owners_of=named)

    @property
    def actors(self) -> tuple[str, ...]:
        key = () if self.api_key_id is None else (self.api_key_id,)
        return tuple(sorted({self.user_id, *key, *self.makers}))

    @property
    def made_id(self) -> str:
        return self.adjustment_id

    def answer_made(self, made: Sequence[Record], state: State) -> tuple[int, Mapping[str, Any]]:  # noqa: ARG002 it shows no wallet
        (adjustment,) = made
        assert isinstance(adjustment, Adjustment), "the same request makes the same kind of record"
        is_waiting = adjustment.status is AdjustmentStatus.REQUIRES_APPROVAL
        return _ACCEPTED if is_waiting else _CREATED, adjustment_view(adjustment)

    def decide(self, state: State) -> Changes:
        """Holds nothing for what waits for a second admin, but counts it as open: a wallet is not closed under it."""
        require_requester(self, state)
        wallet = state.wallet(self.wallet_id)
        if wallet is None:
            raise NotFound(f"There is no wallet {self.wallet_id}")
        if wallet.currency != self.currency:
            raise CurrencyMismatch(wallet_id=wallet.id, currency=wallet.currency)
        if not self.is_admin:
            require_open(wallet, Freeze.IN if self.type is AdjustmentType.CREDIT else Freeze.OUT)
        _require_adjustable(wallet, self.type, self.amount)
        at = time_of(self.now, wallet)
        waiting = self._new_adjustment(wallet, at)
        is_for_oneself = self.type is AdjustmentType.CREDIT and wallet.user_id in (self.user_id, *self.related)
        is_locked = self.type is AdjustmentType.DEBIT and state.lockdown(wallet.user_id) is not None
        is_large = self.is_admin and state.policy.needs_second_admin(self.amount, self.currency)
        alone = count_alone(self.actors, self.amount, self.currency, self.now, state)
        if is_for_oneself or is_locked or is_large or alone is None:
            return Changes(
                waiting,
                wallets=(with_one_more_open(wallet, at),),
                also=(_event(self, AuditAction.ADJUSTMENT_REQUESTED, waiting, at),),
                answer=lambda _: adjustment_view(waiting),
                status_code=_ACCEPTED,
            )
        counted = waiting._replace(counted_day=alone.counted.day, counted_for=alone.counted.actors)
        made, movement = _made(counted, wallet, self, self.entry_id, at)
        return Changes(
            made,
            (movement,),
            also=(_event(self, AuditAction.ADJUSTMENT_REQUESTED, made, at), *alone.sums),
            answer=lambda _: adjustment_view(made),
            status_code=_CREATED,
        )

    def _new_adjustment(self, wallet: Wallet, at: datetime) -> Adjustment:
        assert self.reason is not None, "an adjustment has a reason"
        return Adjustment(
            id=self.adjustment_id,
            type=self.type,
            user_id=wallet.user_id,
            wallet_id=wallet.id,
            amount=self.amount,
            currency=self.currency,
            status=AdjustmentStatus.REQUIRES_APPROVAL,
            reason=self.reason,
            category=self.category,
            description=self.description,
            metadata=self.metadata,
            requested_by=self.user_id,
            decided_by=None,
            decided_at=None,
            rejection_reason=None,
            available_after=None,
            held_after=None,
            transaction_id=None,
            request_id=self.request_id,
            created_at=at,
            updated_at=at,
            api_key_id=self.api_key_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnAdjustment(AuditedCommand):
    """An admin decides about one that waits. Its id and wallet never change, so they can be named."""

    adjustment_id: str
    wallet_id: str

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), wallets=(self.wallet_id,), records=(self.adjustment_id,))

    def decide(self, state: State) -> Changes:
        """Once only: of two who decide at the same time the second finds it decided."""
        require_requester(self, state)
        adjustment, wallet = state.record(self.adjustment_id, Adjustment), state.wallet(self.wallet_id)
        if adjustment is None or wallet is None:
            raise NotFound(f"There is no adjustment {self.adjustment_id}")
        if adjustment.status is not AdjustmentStatus.REQUIRES_APPROVAL:
            raise IllegalTransition(
                f"{adjustment.id} is {adjustment.status} and cannot be decided again", status_now=adjustment.status
            )
        return self.decide_on(adjustment, wallet)

    def decide_on(self, adjustment: Adjustment, wallet: Wallet) -> Changes:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveAdjustment(OnAdjustment):
    """By another admin than who asked, and not for themselves. What no longer fits the wallet goes on waiting.

    `relatives`: whose requests this admin may not approve, as both go back to an admin who gave roles or made a key.
    """

    entry_id: str
    relatives: frozenset[str] = frozenset()

    def decide_on(self, adjustment: Adjustment, wallet: Wallet) -> Changes:
        if self.user_id in (adjustment.requested_by, adjustment.user_id) or adjustment.requested_by in self.relatives:
            raise SecondAdminRequired
        _require_adjustable(wallet, adjustment.type, adjustment.amount)
        at = time_of(self.now, wallet)
        made, movement = _made(adjustment, wallet, self, self.entry_id, at)
        return Changes(
            made,
            (movement,),
            wallets=(with_one_fewer_open(wallet, at),),
            also=(_event(self, AuditAction.ADJUSTMENT_APPROVED, made, at),),
            answer=lambda _: adjustment_view(made),
            status_code=_OK,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectAdjustment(OnAdjustment):
    """By any admin: who asked for it may take it back."""

    def decide_on(self, adjustment: Adjustment, wallet: Wallet) -> Changes:
        at = time_of(self.now, wallet)
        rejected = adjustment._replace(
            status=AdjustmentStatus.REJECTED,
            decided_by=self.user_id,
            decided_at=at,
            rejection_reason=self.reason,
            updated_at=at,
        )
        return Changes(
            rejected,
            wallets=(with_one_fewer_open(wallet, at),),
            also=(_event(self, AuditAction.ADJUSTMENT_REJECTED, rejected, at),),
        )


def _require_adjustable(wallet: Wallet, adjustment_type: AdjustmentType, amount: int) -> None:
    """The wallet takes it, as far as its being there and its balance go. Limits are for what its owner sends."""
    if wallet.status is WalletStatus.CLOSED:
        raise WalletClosed(wallet_id=wallet.id)
    match adjustment_type:
        case AdjustmentType.CREDIT:
            if not fits(wallet, amount):
                raise BalanceOverflow
        case AdjustmentType.DEBIT:
            require_funds(wallet, amount)
        case _:
            assert_never(adjustment_type)


def _made(
    adjustment: Adjustment, wallet: Wallet, command: AuditedCommand, entry_id: str, at: datetime
) -> tuple[Adjustment, Movement]:
    """Returns the adjustment once it has moved the wallet, and the movement."""
    is_credit = adjustment.type is AdjustmentType.CREDIT
    made = adjustment._replace(
        status=AdjustmentStatus.SUCCESS,
        decided_by=command.user_id,
        decided_at=at,
        available_after=wallet.available + (adjustment.amount if is_credit else -adjustment.amount),
        held_after=wallet.held,
        transaction_id=command.transaction_id,
        updated_at=at,
    )
    movement = movement_of(
        EntryType.CREDIT if is_credit else EntryType.DEBIT,
        wallet,
        made.amount,
        made,
        counterparty=SystemAccount.ADJUSTMENTS,
        command=command,
        entry_id=entry_id,
    )
    return made, movement


def _event(command: AuditedCommand, action: AuditAction, adjustment: Adjustment, at: datetime) -> AuditEvent:
    return command.event(
        action,
        adjustment.id,
        at,
        type=adjustment.type,
        status=adjustment.status,
        wallet_id=adjustment.wallet_id,
        amount=adjustment.amount,
        currency=adjustment.currency,
    )
