"""Reviews: people decide about operations of which the bank and we disagree, or of which it said nothing."""

from dataclasses import dataclass
from typing import assert_never

from service.domain.audit_events import AuditAction
from service.domain.operations import (
    Operation,
    OperationStatus,
    Proposal,
    Verdict,
    operation_view,
    proposal_view,
)
from service.domain.outbox import bank_order_id, submission_of
from service.domain.wallets import Wallet
from service.errors import NotFound, SecondAdminRequired
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Needs, State
from service.ledger.orders import ended_as, illegal, refuse_arrival, settled_by, undone
from service.ledger.rules import require_anothers, require_requester, time_of

_OK = 200
_ACCEPTED = 202


@dataclass(frozen=True, slots=True, kw_only=True)
class OnReview(AuditedCommand):
    """Whoever comes first ends it, the bank with a late word or a person; who comes second finds it ended."""

    operation_id: str
    wallet_id: str

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), wallets=(self.wallet_id,), records=(self.operation_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        operation, wallet = state.record(self.operation_id, Operation), state.wallet(self.wallet_id)
        if operation is None or wallet is None:
            raise NotFound(f"There is no operation {self.operation_id}")
        if operation.status is not OperationStatus.REQUIRES_REVIEW:
            raise illegal(operation, "decided by a person")
        require_anothers(self.user_id, operation.user_id)
        return self.decide_on(operation, wallet, state)

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideReview(OnReview):
    """As if the bank had said so. Above the amount for adjustments another admin has to say the same.

    `relatives`: whose proposals this admin may not confirm, as both go back to an admin who gave roles.
    """

    verdict: Verdict
    entry_id: str
    relatives: frozenset[str] = frozenset()

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        assert self.reason is not None, "a decision has a reason"
        at = time_of(self.now, wallet)
        if state.policy.needs_second_admin(operation.amount, operation.currency):
            known = operation.proposal
            if known is None or known.verdict is not self.verdict:
                return self._proposed(
                    operation._replace(proposal=Proposal(self.verdict, self.user_id, self.reason, at))
                )
            if known.by == self.user_id or known.by in self.relatives:
                raise SecondAdminRequired
        match self.verdict:
            case Verdict.SETTLE:
                trouble = refuse_arrival(operation, wallet)
                if trouble is not None:
                    raise trouble
                changes = settled_by(operation, wallet, self, self.entry_id, None, state)
                action = AuditAction.REVIEW_SETTLED
            case Verdict.FAIL:
                failed = ended_as(operation, OperationStatus.FAILED, at)._replace(
                    failure_code="failed_in_review",
                    failure_message="Looked into, and found not to have been carried out",
                )
                changes = undone(failed, wallet, self, self.entry_id)
                action = AuditAction.REVIEW_FAILED
            case _:
                assert_never(self.verdict)
        ended = changes.record
        assert isinstance(ended, Operation), "an operation is what ends"
        event = self.event(action, operation.id, at, amount=operation.amount, currency=operation.currency)
        return Changes(
            ended,
            changes.movements,
            wallets=changes.wallets,
            also=(event,),
            outbox_rows=changes.outbox_rows,
            done_outbox_ids=changes.done_outbox_ids,
            answer=lambda _: decided_view(ended),
            status_code=_OK,
        )

    def _proposed(self, operation: Operation) -> Changes:
        """Where somebody else proposed the opposite, that is forgotten: they are not of one mind."""
        event = self.event(
            AuditAction.REVIEW_PROPOSED,
            operation.id,
            self.now,
            verdict=self.verdict,
            amount=operation.amount,
            currency=operation.currency,
        )
        return Changes(operation, also=(event,), answer=lambda _: decided_view(operation), status_code=_ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAgain(OnReview):
    """Queues it for the bank again, with its visits counted from zero: asked by reference first, then submitted."""

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:  # noqa: ARG002 no money is moved
        at = time_of(self.now, wallet)
        asked = operation._replace(
            status=OperationStatus.PROCESSING,
            failure_code=None,
            failure_message=None,
            proposal=None,
            updated_at=at,
        )
        return Changes(
            asked,
            also=(self.event(AuditAction.REVIEW_ASKED_AGAIN, operation.id, at),),
            outbox_rows=(submission_of(asked),),
            # A replayed dead letter may have brought back the row of the earlier submission.
            done_outbox_ids=(bank_order_id(asked.id),),
            answer=lambda _: decided_view(asked),
            status_code=_ACCEPTED,
        )


def decided_view(operation: Operation) -> dict[str, object]:
    """As its owner sees it, with whose it is and what was proposed."""
    return operation_view(operation) | {
        "user_id": operation.user_id,
        "proposal": proposal_view(operation.proposal),
    }
