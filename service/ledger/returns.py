"""Returns: the bank sends back, or takes back, the money of an operation that has succeeded; once for each.

The operation stays a success and names its return. Where the wallet cannot follow, the return waits for a person, and
nothing has moved: no balance becomes negative, and no money is lost sight of.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from service.domain.accounts import SystemAccount
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.entries import EntryType
from service.domain.incidents import Incident, IncidentKind, Said
from service.domain.operations import Operation, OperationStatus, OperationType
from service.domain.returns import Return, ReturnStatus, return_id_of, return_view
from service.domain.wallets import Freeze, Movement, Wallet, WalletStatus
from service.errors import (
    BalanceOverflow,
    IllegalTransition,
    InsufficientFunds,
    NotFound,
    WalletClosed,
    WalletServiceError,
)
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Command, Needs, State
from service.ledger.incidents import new_incident, opened_event
from service.ledger.orders import OnOperation, illegal, may_mean_the_same
from service.ledger.rules import (
    BANK,
    fits,
    movement_of,
    require_anothers,
    require_funds,
    require_requester,
    time_of,
    uncharged,
    with_one_fewer_open,
    with_one_more_open,
)

_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeReturn(OnOperation):
    """Raises IllegalTransition for what contradicts how the operation stands; the same said again changes nothing."""

    said: Said
    entry_id: str
    incident_id: str
    incident_event_id: str
    freeze_event_id: str

    @property
    def needs(self) -> Needs:
        named = (self.operation_id, return_id_of(self.operation_id), self.incident_id)
        return Needs(wallets=(self.wallet_id,), records=named)

    def decide_on(self, operation: Operation, wallet: Wallet, state: State) -> Changes:
        known = state.record(return_id_of(operation.id), Return)
        said = self.said.amount, self.said.currency
        if known is not None:
            if said == (known.amount, known.currency) and may_mean_the_same(known, self.said):
                return Changes(known)
            raise illegal(operation, "returned once more")
        if operation.status is not OperationStatus.SUCCESS or said != (operation.amount, operation.currency):
            raise illegal(operation, "returned")
        at = time_of(self.now, wallet)
        returned = self._new_return(operation, at)
        after = wallet
        if operation.type is OperationType.WITHDRAWAL:
            # It has come to nothing, so its owner may send as much again.
            after = uncharged(wallet, operation.amount, operation.created_at, at)
        original = operation._replace(return_id=returned.id, returned_at=at, updated_at=at)
        trouble = _trouble_of(returned, wallet)
        if trouble is not None:
            return self._waiting(returned._replace(trouble=trouble.code), original, after, state)
        booked, movement = _booked(returned, after, self, self.entry_id, at)
        return Changes(booked, (movement,), wallets=(after,), also=(original,))

    def _waiting(self, returned: Return, operation: Operation, wallet: Wallet, state: State) -> Changes:
        """Nothing moves yet. Who spent what was collected and then taken back pays nobody else before that is clear."""
        waiting = returned._replace(status=ReturnStatus.REQUIRES_REVIEW)
        incident = new_incident(
            self.incident_id,
            IncidentKind.RETURN_NOT_BOOKED,
            operation.id,
            self.said,
            operation,
            self,
            returned.created_at,
        )
        after = with_one_more_open(wallet, returned.created_at)
        also: tuple[Operation | AuditEvent, ...] = (operation,)
        if returned.type is OperationType.DEPOSIT and wallet.status is not WalletStatus.CLOSED:
            after, event = self._frozen(after, waiting)
            also = (*also, *event)
        known = state.record(self.incident_id, Incident)
        news = () if known is not None else (incident, opened_event(incident, self.incident_event_id))
        return Changes(waiting, wallets=(after,), also=(*also, *news))

    def _frozen(self, wallet: Wallet, returned: Return) -> tuple[Wallet, tuple[AuditEvent, ...]]:
        if not wallet.lets(Freeze.OUT):
            return wallet, ()
        freeze = Freeze.OUT if wallet.lets(Freeze.IN) else Freeze.BOTH
        event = AuditEvent(
            id=self.freeze_event_id,
            at=returned.created_at,
            actor_id=SystemAccount.BANK,
            action=AuditAction.WALLET_FROZEN,
            subject_id=wallet.id,
            reason="A returned deposit is not covered",
            details={"direction": freeze, "was_status": wallet.status, "was_direction": wallet.freeze}
            | {"return_id": returned.id},
            request_id=self.request_id,
        )
        return wallet._replace(status=WalletStatus.FROZEN, freeze=freeze), (event,)

    def _new_return(self, operation: Operation, at: datetime) -> Return:
        return Return(
            id=return_id_of(operation.id),
            type=operation.type,
            operation_id=operation.id,
            user_id=operation.user_id,
            wallet_id=operation.wallet_id,
            amount=operation.amount,
            currency=operation.currency,
            status=ReturnStatus.SUCCESS,
            bank_reference=self.said.bank_reference,
            return_code=self.said.code,
            return_message=self.said.message,
            trouble=None,
            category=operation.category,
            decided_by=None,
            decided_at=None,
            transaction_id=None,
            request_id=self.request_id,
            created_at=at,
            updated_at=at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectReturn(AuditedCommand):
    """An admin has one booked that waits, now that the wallet can follow; else it is refused and goes on waiting."""

    return_id: str
    wallet_id: str
    entry_id: str

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), wallets=(self.wallet_id,), records=(self.return_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        returned, wallet = state.record(self.return_id, Return), state.wallet(self.wallet_id)
        if returned is None or wallet is None:
            raise NotFound(f"There is no return {self.return_id}")
        if returned.status is not ReturnStatus.REQUIRES_REVIEW:
            raise IllegalTransition(
                f"{returned.id} is {returned.status}, and nothing is left to book", status_now=returned.status
            )
        require_anothers(self.user_id, returned.user_id)
        trouble = _trouble_of(returned, wallet)
        if trouble is not None:
            raise trouble
        at = time_of(self.now, wallet)
        booked, movement = _booked(returned, wallet, self, self.entry_id, at)
        decided = booked._replace(trouble=None, decided_by=self.user_id, decided_at=at)
        event = self.event(
            AuditAction.RETURN_COLLECTED,
            returned.id,
            at,
            operation_id=returned.operation_id,
            amount=returned.amount,
            currency=returned.currency,
        )
        return Changes(
            decided,
            (movement,),
            wallets=(with_one_fewer_open(wallet, at),),
            also=(event,),
            answer=lambda _: return_view(decided),
            status_code=_OK,
        )


def _trouble_of(returned: Return, wallet: Wallet) -> WalletServiceError | None:
    """Why the wallet cannot follow the bank. That it is frozen is no reason: the money has moved already."""
    if wallet.status is WalletStatus.CLOSED:
        return WalletClosed(wallet_id=wallet.id)
    match returned.type:
        case OperationType.WITHDRAWAL:
            return None if fits(wallet, returned.amount) else BalanceOverflow()
        case OperationType.DEPOSIT:
            try:
                require_funds(wallet, returned.amount)
            except InsufficientFunds as refusal:
                return refusal
            return None
        case _:
            assert_never(returned.type)


def _booked(returned: Return, wallet: Wallet, command: Command, entry_id: str, at: datetime) -> tuple[Return, Movement]:
    """The return once it has moved the wallet, and the movement."""
    booked = returned._replace(status=ReturnStatus.SUCCESS, transaction_id=command.transaction_id, updated_at=at)
    is_withdrawal = returned.type is OperationType.WITHDRAWAL
    kind = EntryType.WITHDRAWAL_RETURN if is_withdrawal else EntryType.DEPOSIT_RETURN
    movement = movement_of(kind, wallet, returned.amount, booked, counterparty=BANK, command=command, entry_id=entry_id)
    return booked, movement
