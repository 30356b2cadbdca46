"""Returns: the bank sends back, or takes back, the money of an operation that has succeeded; once for each.

The operation stays a success and names its return. A deposit's takes what the wallet has; what is missing is owed, and
whatever comes in pays it first (debts.py). Where a wallet cannot follow at all, the return waits for a person, and
nothing has moved: no balance becomes negative, and no money is lost sight of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from service.domain.accounts import SystemAccount
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.entries import EntryType
from service.domain.holds import Hold, HoldStatus
from service.domain.identifiers import Prefix
from service.domain.incidents import Incident, IncidentKind, Said
from service.domain.money import POINTS
from service.domain.operations import Operation, OperationStatus, OperationType
from service.domain.outbox import OutboxTopic, outbox_row
from service.domain.returns import (
    Return,
    ReturnStatus,
    ReturnType,
    return_id_of,
    return_view,
)
from service.domain.rewards import reward_id
from service.domain.wallets import Freeze, Movement, Wallet, WalletStatus
from service.errors import (
    BalanceOverflow,
    IllegalTransition,
    InsufficientFunds,
    NotFound,
    WalletClosed,
    WalletOwes,
    WalletServiceError,
)
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Command, Needs, State
from service.ledger.debts import owe, trouble_of
from service.ledger.holds import expiry_id, take_from_hold, taking_notice
from service.ledger.incidents import new_incident, opened_event
from service.ledger.orders import OnOperation, illegal, may_mean_the_same
from service.ledger.points_returns import with_points_back
from service.ledger.rules import (
    BANK,
    movement_of,
    require_anothers,
    require_requester,
    time_of,
    uncharged,
    with_one_fewer_open,
    with_one_more_open,
)

_OK = 200
# Of an id: the prefix, and the 12 digits of its time.
_ID_TIME_LENGTH = len(f"{Prefix.AUDIT_EVENT}_") + 12


class NamedHold(NamedTuple):
    """A hold that was open when it was looked up, and the id of the entry for what is taken of it.

    The owner of `to_wallet_id` is told of it, as the hold's recipient. None where the hold is for the house.
    """

    id: str
    entry_id: str
    to_wallet_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeReturn(OnOperation):
    """Raises IllegalTransition for what contradicts how the operation stands; the same said again changes nothing.

    `holds` are the wallet's open ones, in the order in which a deposit's return takes from them. One that has ended
    meanwhile is passed over. Money in a hold that was made after the look-up is owed: until that is paid nobody can
    capture the hold, and its release pays.
    """

    user_id: str
    said: Said
    entry_id: str
    incident_id: str
    incident_event_id: str
    freeze_event_id: str
    holds: tuple[NamedHold, ...] = ()

    @property
    def needs(self) -> Needs:
        named = (self.operation_id, return_id_of(self.operation_id), self.incident_id, reward_id(self.operation_id))
        return Needs(
            wallets=(self.wallet_id, *_recipients(self.holds)),
            owners_of=(self.wallet_id,),
            owned_wallets=((self.user_id, POINTS),),
            # What was paid in may have been converted: a return that is not covered freezes them all.
            all_wallets_of=(self.user_id,),
            records=(*named, *(hold.id for hold in self.holds)),
        )

    @property
    def weight(self) -> int:
        return 1 + len(self.holds) + len(_recipients(self.holds))

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
        trouble = trouble_of(returned, wallet)
        if trouble is not None:
            changes = self._waiting(returned._replace(trouble=trouble), original, after, state)
        elif operation.type is OperationType.DEPOSIT:
            changes = self._taken_back(returned, original, after, state)
        else:
            booked, movement = _booked(returned, after, self, self.entry_id, at)
            changes = Changes(booked, (movement,), wallets=(after,), also=(original,))
        return with_points_back(changes, operation.id, self.user_id, self, state, returned)

    def _waiting(self, returned: Return, operation: Operation, wallet: Wallet, state: State) -> Changes:
        """Leaves the return to a person and moves nothing. A deposit's return also freezes the wallet until then."""
        waiting = returned._replace(status=ReturnStatus.REQUIRES_REVIEW)
        after = with_one_more_open(wallet, returned.created_at)
        wallets: tuple[Wallet, ...] = (after,)
        events: tuple[AuditEvent, ...] = ()
        if returned.type is ReturnType.DEPOSIT:
            wallets, events = self._frozen(after, waiting, state)
        return Changes(
            waiting, wallets=wallets, also=(operation, *events, *self._incident_of(waiting, operation, state))
        )

    def _taken_back(self, returned: Return, operation: Operation, wallet: Wallet, state: State) -> Changes:
        """Takes a deposit back; the wallet owes what it lacks.

        If it owes, the wallets of its owner are frozen and an incident is opened.
        """
        owed, changes = _book_deposit(
            returned, with_one_more_open(wallet, returned.created_at), self, self.holds, state
        )
        wallets, also = changes.wallets, (operation, *changes.also)
        if owed.trouble is not None:
            (owing,) = wallets
            wallets, events = self._frozen(owing, owed, state)
            also = (*also, *events, *self._incident_of(owed, operation, state))
        return replace(changes, wallets=wallets, also=also)

    def _incident_of(
        self, returned: Return, operation: Operation, state: State
    ) -> tuple[()] | tuple[Incident, AuditEvent]:
        """Nothing where it is open already."""
        if state.record(self.incident_id, Incident) is not None:
            return ()
        incident = new_incident(
            self.incident_id,
            IncidentKind.RETURN_NOT_BOOKED,
            operation.id,
            self.said,
            operation,
            self,
            returned.created_at,
        )
        return incident, opened_event(incident, self.incident_event_id)

    def _frozen(
        self, wallet: Wallet, returned: Return, state: State
    ) -> tuple[tuple[Wallet, ...], tuple[AuditEvent, ...]]:
        """Freezes *out* the wallet and all others of its owner, but for the one with points, which are no money.

        Freezes a frozen wallet once more, so that no forced release of the freeze before covers this one. Leaves the
        freezes of a lockdown alone: while it lasts nothing is released, and its lift has to know them again.
        """
        is_locked_down = state.lockdown(wallet.user_id) is not None
        others = _others_with_money(wallet, state)
        event_ids = (self.freeze_event_id, *(_event_id(self.freeze_event_id, one) for one in others))
        # The wallet of the return changes in any case, the others only where they are frozen here.
        wallets, events = [wallet], []
        for one, event_id in zip((wallet, *others), event_ids, strict=True):
            if one.status is WalletStatus.CLOSED or (is_locked_down and not one.lets(Freeze.OUT)):
                continue
            frozen, event = self._frozen_out(one, returned, event_id)
            wallets = [frozen, *wallets[1:]] if one is wallet else [*wallets, frozen]
            events.append(event)
        return tuple(wallets), tuple(events)

    def _frozen_out(self, wallet: Wallet, returned: Return, event_id: str) -> tuple[Wallet, AuditEvent]:
        freeze, at = Freeze.OUT if wallet.lets(Freeze.IN) else Freeze.BOTH, time_of(returned.created_at, wallet)
        event = AuditEvent(
            id=event_id,
            at=at,
            actor_id=SystemAccount.BANK,
            action=AuditAction.WALLET_FROZEN,
            subject_id=wallet.id,
            reason="A returned deposit is not covered",
            details={"direction": freeze, "was_status": wallet.status, "was_direction": wallet.freeze}
            | {"return_id": returned.id},
            request_id=self.request_id,
        )
        frozen = wallet._replace(status=WalletStatus.FROZEN, freeze=freeze, freeze_event_id=event.id, updated_at=at)
        return frozen, event

    def _new_return(self, operation: Operation, at: datetime) -> Return:
        return Return(
            id=return_id_of(operation.id),
            type=ReturnType(operation.type.value),
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
    """An admin books a return that waits. While the wallet still cannot follow, that is refused.

    A deposit's return takes what is available, and the rest is owed.
    """

    return_id: str
    wallet_id: str
    entry_id: str
    holds: tuple[NamedHold, ...] = ()

    @property
    def needs(self) -> Needs:
        named = (self.return_id, *(hold.id for hold in self.holds))
        return Needs(users=(self.user_id,), wallets=(self.wallet_id, *_recipients(self.holds)), records=named)

    @property
    def weight(self) -> int:
        return 1 + len(self.holds) + len(_recipients(self.holds))

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
        trouble = trouble_of(returned, wallet)
        if trouble is not None:
            raise _REFUSALS[trouble](wallet_id=wallet.id)
        at = time_of(self.now, wallet)
        decided = returned._replace(trouble=None, decided_by=self.user_id, decided_at=at, updated_at=at)
        event = self.event(
            AuditAction.RETURN_COLLECTED,
            returned.id,
            at,
            operation_id=returned.operation_id,
            amount=returned.amount,
            currency=returned.currency,
        )
        if returned.type is not ReturnType.WITHDRAWAL:
            _, changes = _book_deposit(decided, wallet, self, self.holds, state)
            return replace(changes, also=(event, *changes.also), answer=self._shown, status_code=_OK)
        booked, movement = _booked(decided, wallet, self, self.entry_id, at)
        after = with_one_fewer_open(wallet, at)
        return Changes(booked, (movement,), wallets=(after,), also=(event,), answer=self._shown, status_code=_OK)

    def _shown(self, after: State) -> dict[str, Any]:
        returned = after.record(self.return_id, Return)
        assert returned is not None, f"{self.return_id} has gone"
        return return_view(returned)


_REFUSALS: dict[str, type[WalletServiceError]] = {
    kind.code: kind for kind in (WalletClosed, BalanceOverflow, WalletOwes)
}


def _others_with_money(wallet: Wallet, state: State) -> list[Wallet]:
    """Returns its owner's other wallets, but for the one with points."""
    return [one for one in state.wallets_of(wallet.user_id) if one.id != wallet.id and one.currency != POINTS]


def _event_id(freeze_event_id: str, wallet: Wallet) -> str:
    """Derives the id of the event that freezes another wallet: how many there are is known in the transaction only.

    Its time is that of the id that the command brings.
    """
    digest = sha256(f"{freeze_event_id}:{wallet.id}".encode()).hexdigest()
    return f"{freeze_event_id[:_ID_TIME_LENGTH]}{digest[: len(freeze_event_id) - _ID_TIME_LENGTH]}"


def _recipients(holds: Sequence[NamedHold]) -> tuple[str, ...]:
    """Returns the wallets whose owners are told of what is taken."""
    return tuple({hold.to_wallet_id for hold in holds if hold.to_wallet_id is not None})


def _book_deposit(
    returned: Return, wallet: Wallet, command: Command, holds: Sequence[NamedHold], state: State
) -> tuple[Return, Changes]:
    """Owes the whole return, and releases from the holds what the wallet lacks. The ledger then collects it.

    The return has `trouble` where that is too little.
    """
    missing = wallet.owed + returned.amount - wallet.available
    owing, owed = owe(wallet, returned)
    movements: list[Movement] = []
    touched: list[Hold] = []
    for named in holds:
        hold = state.record(named.id, Hold)
        if missing <= 0:
            break
        if hold is None or hold.status is not HoldStatus.HELD or hold.wallet_id != wallet.id:
            continue
        taken, step = take_from_hold(hold, owing, missing, returned.id, command, named.entry_id)
        owing = step.wallet
        missing -= step.movement.amount
        movements.append(step.movement)
        touched.append(taken)
    rows = tuple(row for hold in touched for row in taking_notice(hold, command))
    if missing > 0:
        owed = owed._replace(trouble=InsufficientFunds.code)
        if owed.type is ReturnType.DEPOSIT:
            at = time_of(command.now, wallet)
            rows = (outbox_row(OutboxTopic.OWED_NOTICE, owed.id, command.request_id, at), *rows)
    return owed, Changes(
        owed,
        tuple(movements),
        wallets=(owing,),
        also=tuple(touched),
        outbox_rows=rows,
        done_outbox_ids=tuple(expiry_id(hold) for hold in touched if hold.status is not HoldStatus.HELD),
    )


def _booked(returned: Return, wallet: Wallet, command: Command, entry_id: str, at: datetime) -> tuple[Return, Movement]:
    """Returns a withdrawal's return once it has moved the wallet, and the movement."""
    booked = returned._replace(status=ReturnStatus.SUCCESS, transaction_id=command.transaction_id, updated_at=at)
    kind = EntryType.WITHDRAWAL_RETURN
    movement = movement_of(kind, wallet, returned.amount, booked, counterparty=BANK, command=command, entry_id=entry_id)
    return booked, movement
