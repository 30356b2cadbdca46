"""Transfers: two linked entries with one transaction id, all or nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.domain.operations import OperationStatus
from service.domain.records import Record
from service.domain.step_up import Challenge
from service.domain.transfers import Transfer, receipt_view
from service.domain.wallets import Wallet
from service.errors import (
    CurrencyMismatch,
    RefusedEarlier,
    SameWallet,
    TransferBatchRefused,
    WalletServiceError,
    problem_document,
)
from service.ledger.approvals import approval_rows, challenge_for
from service.ledger.commands import Changes, CompositeCommand, Needs, PersonalCommand, State
from service.ledger.payments import pay, require_recipient
from service.ledger.reservations import HOLD, reserve
from service.ledger.rewards import reward_rows
from service.ledger.rules import charged, require_own_wallet, require_payable, require_requester, time_of_both
from service.ledger.user_counts import charge_for_user

_CREATED = 201
_ACCEPTED = 202


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTransfer(PersonalCommand):
    """To a wallet, or to a person: `to_user_id`, which is None where nobody has that address."""

    transfer_id: str
    wallet_id: str
    to_wallet_id: str | None
    to_user_id: str | None
    amount: int
    currency: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    out_entry_id: str
    in_entry_id: str
    batch_id: str | None = None
    challenge: Challenge | None = None
    # As a withdrawal's.
    make_challenge: Callable[[], Challenge] | None = None

    @property
    def needs(self) -> Needs:
        recipient = () if self.to_wallet_id is None else (self.to_wallet_id,)
        person = () if self.to_user_id is None else ((self.to_user_id, self.currency),)
        return Needs(users=(self.user_id,), wallets=(self.wallet_id, *recipient), owned_wallets=person)

    @property
    def made_id(self) -> str:
        return self.transfer_id

    def answer_made(self, made: Sequence[Record], state: State) -> tuple[int, Mapping[str, Any]]:
        (transfer,) = made
        return _status_of(transfer), _receipt(transfer, state)

    def decide(self, state: State) -> Changes:
        """Everything about the sender first: who cannot pay does not learn who is there to be paid."""
        require_requester(self, state)
        sender = require_own_wallet(self.wallet_id, self.user_id, state)
        found = self._find_recipient(state)
        at = time_of_both(self.now, sender, found, state)
        if sender.currency != self.currency:
            raise CurrencyMismatch(wallet_id=sender.id, currency=sender.currency)
        if self.to_wallet_id == sender.id or self.to_user_id == sender.user_id:
            raise SameWallet
        require_payable(sender, self.amount, at, state)
        counted = charge_for_user(sender, self.amount, at, state)
        recipient = require_recipient(found, self.amount, self.currency)
        challenge = challenge_for(self, sender, at, state)
        transfer = self._new_transfer(sender, recipient, at, challenge)._replace(counted=counted)
        if challenge is not None:
            step = reserve(HOLD, sender, transfer, counterparty=recipient.id, command=self, entry_id=self.out_entry_id)
            return Changes(
                transfer,
                (step.movement,),
                wallets=(step.wallet,),
                outbox_rows=approval_rows(transfer, challenge),
                answer=lambda after: receipt_view(transfer, after.wallet(sender.id), after.wallet(recipient.id)),
                status_code=_ACCEPTED,
            )
        return Changes(
            transfer,
            pay(transfer, sender, recipient, self, self.out_entry_id, self.in_entry_id),
            wallets=(charged(sender, self.amount, at),),
            outbox_rows=reward_rows(transfer, state),
            answer=lambda after: receipt_view(transfer, after.wallet(sender.id), after.wallet(recipient.id)),
            status_code=_CREATED,
        )

    def _find_recipient(self, state: State) -> Wallet | None:
        if self.to_wallet_id is not None:
            return state.wallet(self.to_wallet_id)
        return None if self.to_user_id is None else state.wallet_in(self.to_user_id, self.currency)

    def _new_transfer(self, sender: Wallet, recipient: Wallet, at: datetime, challenge: Challenge | None) -> Transfer:
        return Transfer(
            id=self.transfer_id,
            user_id=sender.user_id,
            wallet_id=sender.id,
            to_user_id=recipient.user_id,
            to_wallet_id=recipient.id,
            amount=self.amount,
            currency=self.currency,
            status=OperationStatus.SUCCESS if challenge is None else OperationStatus.REQUIRES_APPROVAL,
            category=self.category,
            description=self.description,
            metadata=self.metadata,
            failure_code=None,
            failure_message=None,
            transaction_id=self.transaction_id,
            request_id=self.request_id,
            created_at=at,
            updated_at=at,
            batch_id=self.batch_id,
            challenge=challenge,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferBatch(CompositeCommand):
    """Many transfers under one key, in the order given."""

    batch_id: str

    def answer_made(self, made: Sequence[Record], state: State) -> tuple[int, Mapping[str, Any]]:
        """Of what was refused then, nothing is left but that it was not made."""
        transfers = [one for one in made if isinstance(one, Transfer)]
        receipts = {one.tombstone.position: _receipt(one, state) for one in transfers if one.tombstone is not None}
        outcomes = [receipts.get(position) or RefusedEarlier() for position in range(len(self.parts))]
        status_code, body = self.conclude(outcomes)
        return status_code, {**body, "id": transfers[0].batch_id}

    def refusal_of_whole(self, position: int, error: WalletServiceError) -> WalletServiceError:
        if not error.is_kept_under_key:
            return error
        return TransferBatchRefused(
            f"Transfer {position} was refused, so none was made: {error.message}", position=position, cause=error.code
        )

    def conclude(self, outcomes: Sequence[Mapping[str, Any] | WalletServiceError]) -> tuple[int, Mapping[str, Any]]:
        results: list[dict[str, Any]] = []
        for outcome in outcomes:
            if isinstance(outcome, WalletServiceError):
                results.append({"status": "refused", "error": problem_document(outcome, self.request_id)})
            else:
                results.append({"status": outcome["status"], "transfer": outcome})
        refused = sum(isinstance(outcome, WalletServiceError) for outcome in outcomes)
        body = {
            "id": self.batch_id,
            "mode": "all_or_nothing" if self.is_all_or_nothing else "best_effort",
            "accepted": len(outcomes) - refused,
            "refused": refused,
            "results": results,
        }
        return _CREATED, body


def _status_of(transfer: Record) -> int:
    """As it was accepted, or as it has become meanwhile."""
    assert isinstance(transfer, Transfer), "the same request makes the same kind of record"
    return _ACCEPTED if transfer.status is OperationStatus.REQUIRES_APPROVAL else _CREATED


def _receipt(transfer: Record, state: State) -> dict[str, Any]:
    assert isinstance(transfer, Transfer), "the same request makes the same kind of record"
    return receipt_view(transfer, state.wallet(transfer.wallet_id), state.wallet(transfer.to_wallet_id))
