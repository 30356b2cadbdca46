"""Blocked withdrawals: an admin releases one to the bank, or cancels it and makes its money available again."""

from dataclasses import dataclass

from service.domain.audit_events import AuditAction
from service.domain.operations import (
    BlockReason,
    Operation,
    OperationStatus,
    Release,
    operation_view,
    release_view,
)
from service.domain.outbox import bank_order_id, submission_of
from service.domain.wallets import Wallet
from service.errors import NotFound, StillBlocked
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Needs, State
from service.ledger.orders import ended_as, illegal, standing_blocks, undone
from service.ledger.rules import (
    require_anothers,
    require_not_locked_down,
    require_nothing_owed,
    require_requester,
    time_of,
)

_OK = 200
_ACCEPTED = 202


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBlockedWithdrawal(AuditedCommand):
    """The first decision counts, whether it is an admin's or a late report of the bank."""

    operation_id: str
    wallet_id: str

    @property
    def needs(self) -> Needs:
        return Needs(
            users=(self.user_id,),
            wallets=(self.wallet_id,),
            records=(self.operation_id,),
            owners_of=(self.wallet_id,),
        )

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        operation, wallet = state.record(self.operation_id, Operation), state.wallet(self.wallet_id)
        if operation is None or wallet is None:
            raise NotFound(f"There is no operation {self.operation_id}")
        if operation.status is not OperationStatus.BLOCKED:
            raise illegal(operation, "released or canceled by an admin")
        require_anothers(self.user_id, operation.user_id)
        return self.decide_on(operation, wallet, state)

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseWithdrawal(OnBlockedWithdrawal):
    """Queues the withdrawal for the bank again, with its visits counted from zero.

    A freeze or a deactivation that still stands refuses the release, unless it is forced. The release records which of
    the two it overrides; the other one still blocks the withdrawal, also later, and so does a later freeze or
    deactivation. While the wallet owes, or its owner is
    locked down, nothing is released.
    """

    is_forced: bool

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        assert self.reason is not None, "a release has a reason"
        require_not_locked_down(wallet, state)
        require_nothing_owed(wallet)
        standing = standing_blocks(wallet, state)
        is_frozen, is_deactivated = BlockReason.WALLET_FROZEN in standing, BlockReason.USER_DEACTIVATED in standing
        if standing and not self.is_forced:
            raise StillBlocked(wallet_frozen=is_frozen, user_deactivated=is_deactivated)
        at = time_of(self.now, wallet)
        release = Release(
            self.user_id,
            self.reason,
            at,
            is_frozen,
            is_deactivated,
            freeze_event_id=standing.get(BlockReason.WALLET_FROZEN),
            deactivation_event_id=standing.get(BlockReason.USER_DEACTIVATED),
        )
        released = operation._replace(
            status=OperationStatus.PENDING,
            failure_code=None,
            failure_message=None,
            release=release,
            # Computed anew when the order is submitted.
            expected_by=None,
            updated_at=at,
        )
        event = self.event(
            AuditAction.WITHDRAWAL_RELEASED,
            operation.id,
            at,
            amount=operation.amount,
            currency=operation.currency,
            despite_freeze=is_frozen,
            despite_deactivation=is_deactivated,
            freeze_event_id=release.freeze_event_id,
            deactivation_event_id=release.deactivation_event_id,
        )
        return Changes(
            released,
            also=(event,),
            outbox_rows=(submission_of(released),),
            # A replayed dead letter may have brought back the row of the earlier submission.
            done_outbox_ids=(bank_order_id(released.id),),
            answer=lambda _: released_view(released),
            status_code=_ACCEPTED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelWithdrawal(OnBlockedWithdrawal):
    """Makes the money available again. A freeze of the wallet stays.

    The bank does not have the order: it was never submitted, or it was blocked after the bank had said that it does
    not know it and no order of ours could still arrive. If the bank pays all the same, that opens an incident.
    """

    entry_id: str

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:  # noqa: ARG002 as its neighbour
        at = time_of(self.now, wallet)
        canceled = ended_as(operation, OperationStatus.CANCELED, at)._replace(
            failure_code="canceled_by_admin", failure_message="Canceled before the bank got the order"
        )
        changes = undone(canceled, wallet, self, self.entry_id)
        event = self.event(
            AuditAction.WITHDRAWAL_CANCELED,
            operation.id,
            at,
            amount=operation.amount,
            currency=operation.currency,
            blocked_for=operation.failure_code,
        )
        return Changes(
            canceled,
            changes.movements,
            wallets=changes.wallets,
            also=(event,),
            done_outbox_ids=changes.done_outbox_ids,
            answer=lambda _: released_view(canceled),
            status_code=_OK,
        )


def released_view(operation: Operation) -> dict[str, object]:
    """As its owner sees it, with whose it is and who released it."""
    return operation_view(operation) | {"user_id": operation.user_id, "release": release_view(operation.release)}
