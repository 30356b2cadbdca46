"""Blocked withdrawals: an admin lets one go to the bank after all, or cancels it and the money is available again."""

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
from service.ledger.rules import require_anothers, require_requester, time_of

_OK = 200
_ACCEPTED = 202


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBlockedWithdrawal(AuditedCommand):
    """Of two admins, or an admin and the bank's late word, the first one counts."""

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
    """Back on its way to the bank, with all patience anew.

    What still stands against it refuses the release, unless it is forced. What it was forced despite of is recorded
    on the operation, and lets it be submitted; a block that comes up later blocks it again.
    """

    is_forced: bool

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        assert self.reason is not None, "a release has a reason"
        standing = standing_blocks(wallet, state)
        is_frozen, is_deactivated = BlockReason.WALLET_FROZEN in standing, BlockReason.USER_DEACTIVATED in standing
        if standing and not self.is_forced:
            raise StillBlocked(wallet_frozen=is_frozen, user_deactivated=is_deactivated)
        at = time_of(self.now, wallet)
        released = operation._replace(
            status=OperationStatus.PENDING,
            failure_code=None,
            failure_message=None,
            release=Release(self.user_id, self.reason, at, is_frozen, is_deactivated),
            # The order that is submitted now takes its own time.
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
        )
        return Changes(
            released,
            also=(event,),
            outbox_rows=(submission_of(released),),
            # A dead letter that was replayed may have brought the one of before back.
            done_outbox_ids=(bank_order_id(released.id),),
            answer=lambda _: released_view(released),
            status_code=_ACCEPTED,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelWithdrawal(OnBlockedWithdrawal):
    """The money is available again, in a wallet that is as frozen as before.

    The bank does not have it: it was never submitted, or blocked only after the bank had said so with no order of
    ours under way. Should the bank pay all the same, that is an incident.
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
