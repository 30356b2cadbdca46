"""Holds: money set aside for somebody, which one capture takes, or which comes back.

Whatever ends a hold ends it once. From `expires_at` on it is over, whether or not a worker has come to say so: who asks
for something then gets the refusal, and the payer their money.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from service.domain.accounts import SystemAccount
from service.domain.audit_events import AuditAction, AuditEvent
from service.domain.entries import EntryType
from service.domain.holds import Hold, HoldStatus, Taking, hold_receipt_view
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_id, outbox_row
from service.domain.records import Record
from service.domain.wallets import Freeze, Movement, Wallet, WalletStatus
from service.errors import (
    CaptureExceedsHold,
    CurrencyMismatch,
    Forbidden,
    HoldAboveStepUp,
    HoldExpired,
    HoldGuaranteed,
    IllegalTransition,
    NotFound,
    PayerCannotPay,
    RecipientAlreadyNamed,
    SameWallet,
    WalletClosed,
    WalletFrozen,
    WalletServiceError,
)
from service.ledger.audit_events import AuditedCommand
from service.ledger.commands import Changes, Command, Needs, PersonalCommand, State
from service.ledger.payments import require_recipient
from service.ledger.reservations import HOLD, Step, capture, release, release_part, reserve
from service.ledger.rules import (
    movement_of,
    passes_step_up_sum,
    require_nothing_owed,
    require_open,
    require_own_wallet,
    require_payable,
    require_requester,
    time_of,
    time_of_both,
)
from service.ledger.user_counts import charge_for_user

_CREATED = 201
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHold(PersonalCommand):
    """For a wallet or, where none is named, for the house. It lasts from when it is made, not from when it was sent."""

    hold_id: str
    wallet_id: str
    to_wallet_id: str | None
    amount: int
    currency: str
    lifetime: timedelta
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    entry_id: str

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), wallets=_named(self.wallet_id, self.to_wallet_id))

    @property
    def made_id(self) -> str:
        return self.hold_id

    def answer_made(self, made: Sequence[Record], state: State) -> tuple[int, Mapping[str, Any]]:
        (hold,) = made
        assert isinstance(hold, Hold), "the same request makes the same kind of record"
        return _CREATED, hold_receipt_view(hold, self.user_id, state.wallet(hold.wallet_id), None)

    def decide(self, state: State) -> Changes:
        """Everything about the payer first, as for transfers: who cannot pay does not learn who is there to be paid."""
        require_requester(self, state)
        payer = require_own_wallet(self.wallet_id, self.user_id, state)
        # Nothing is counted later than the hold is made, so that its share of the limits is found again.
        at = time_of(self.now, payer)
        if payer.currency != self.currency:
            raise CurrencyMismatch(wallet_id=payer.id, currency=payer.currency)
        if self.to_wallet_id == payer.id:
            raise SameWallet
        if state.policy.needs_step_up(self.amount, self.currency):
            raise HoldAboveStepUp(ceiling=state.policy.step_up_above[self.currency])
        if passes_step_up_sum(payer, self.amount, at, state):
            raise HoldAboveStepUp(ceiling=state.policy.step_up_day_above[self.currency])
        require_payable(payer, self.amount, at, state)
        counted = charge_for_user(payer, self.amount, at, state)
        recipient = None
        if self.to_wallet_id is not None:
            recipient = require_recipient(state.wallet(self.to_wallet_id), self.amount, self.currency)
        hold = self._new_hold(payer, recipient, at)._replace(counted=counted)
        step = reserve(HOLD, payer, hold, counterparty=_other_side(hold), command=self, entry_id=self.entry_id)
        return Changes(
            hold,
            (step.movement,),
            wallets=(step.wallet,),
            outbox_rows=(outbox_row(OutboxTopic.EXPIRY, hold.id, hold.request_id, at, hold.expires_at),),
            answer=lambda after: hold_receipt_view(hold, self.user_id, after.wallet(payer.id), None),
            status_code=_CREATED,
        )

    def _new_hold(self, payer: Wallet, recipient: Wallet | None, at: datetime) -> Hold:
        return Hold(
            id=self.hold_id,
            user_id=payer.user_id,
            wallet_id=payer.id,
            to_user_id=None if recipient is None else recipient.user_id,
            to_wallet_id=None if recipient is None else recipient.id,
            amount=self.amount,
            captured_amount=0,
            currency=self.currency,
            status=HoldStatus.HELD,
            category=self.category,
            description=self.description,
            metadata=self.metadata,
            transaction_id=None,
            request_id=self.request_id,
            expires_at=at + self.lifetime,
            created_at=at,
            updated_at=at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHold(AuditedCommand):
    """The payer, the payee or the house says something about a hold. Its id and the payer's wallet never change.

    Where anybody but the payer acts, an audit event records it.

    `acts_for_house`: the token has a role that may speak of anybody's hold.
    """

    hold_id: str
    wallet_id: str
    acts_for_house: bool
    release_entry_id: str

    @property
    def needs(self) -> Needs:
        return Needs(users=(self.user_id,), wallets=(self.wallet_id,), records=(self.hold_id,))

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        hold, wallet = _find_hold(self, state)
        if not self.acts_for_house and self.user_id not in (hold.user_id, hold.to_user_id):
            raise _no_hold(self.hold_id)
        if hold.status is HoldStatus.EXPIRED:
            raise HoldExpired
        if hold.status is not HoldStatus.HELD:
            raise IllegalTransition(f"{hold.id} is {hold.status}, which is final", status_now=hold.status)
        if self.now >= hold.expires_at:
            return _give_back(hold, wallet, self, HoldStatus.EXPIRED, HoldExpired())
        return self.decide_on(hold, wallet, state)

    def decide_on(self, hold: Hold, wallet: Wallet, state: State) -> Changes:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureHold(OnHold):
    """Takes all of it, or `amount` of it and gives the rest back; once only.

    `to_wallet_id` is the recipient that the capture itself names, `named_wallet_id` that of the hold. Who does not pay
    names one of `capture_to`, or nobody: then it goes to the house.
    """

    named_wallet_id: str | None
    to_wallet_id: str | None
    capture_to: frozenset[str] = frozenset()
    amount: int | None
    out_entry_id: str
    in_entry_id: str

    @property
    def needs(self) -> Needs:
        return Needs(
            users=(self.user_id,),
            wallets=_named(self.wallet_id, self.named_wallet_id, self.to_wallet_id),
            records=(self.hold_id,),
        )

    def decide_on(self, hold: Hold, wallet: Wallet, state: State) -> Changes:
        amount = hold.left if self.amount is None else self.amount
        if amount > hold.left:
            raise CaptureExceedsHold(
                f"{amount} was asked for and {hold.left} is held", held=hold.left, requested=amount
            )
        # Of a hold that names nobody, only its payer and the house have got this far.
        if self.to_wallet_id is not None and hold.to_wallet_id is not None:
            raise RecipientAlreadyNamed(to_wallet_id=hold.to_wallet_id)
        if self.to_wallet_id == wallet.id:
            raise SameWallet
        self._require_listed(wallet)
        if wallet.owed and self.user_id != wallet.user_id and wallet.status is not WalletStatus.CLOSED:
            raise PayerCannotPay
        _require_capturable(wallet, is_promised=self.to_wallet_id is None)
        recipient_id = hold.to_wallet_id or self.to_wallet_id
        recipient = None
        if recipient_id is not None:
            recipient = require_recipient(state.wallet(recipient_id), amount, hold.currency)
        captured = hold._replace(
            status=HoldStatus.CAPTURED,
            captured_amount=amount,
            to_user_id=None if recipient is None else recipient.user_id,
            to_wallet_id=recipient_id,
            transaction_id=self.transaction_id,
            ended_by=self.user_id,
            updated_at=time_of_both(self.now, wallet, recipient, state),
        )
        after_payer, movements = self._move(captured, wallet, recipient)
        return Changes(
            captured,
            movements,
            wallets=(after_payer,),
            also=_audit_events(self, captured, AuditAction.HOLD_CAPTURED),
            done_outbox_ids=(expiry_id(hold),),
            answer=lambda after: hold_receipt_view(
                captured,
                self.user_id,
                after.wallet(wallet.id),
                None if recipient is None else after.wallet(recipient.id),
            ),
            status_code=_OK,
        )

    def _require_listed(self, payer: Wallet) -> None:
        is_named = self.to_wallet_id is not None and self.user_id != payer.user_id
        if is_named and self.to_wallet_id not in self.capture_to:
            raise Forbidden("Others' holds are captured for the house, or to a wallet that the API key lists")

    def _move(self, captured: Hold, wallet: Wallet, recipient: Wallet | None) -> tuple[Wallet, tuple[Movement, ...]]:
        """Returns the payer's wallet with its counters, and what moves: out, in at the recipient, back what is left."""
        other_side = _other_side(captured)
        step = capture(
            HOLD,
            wallet,
            captured,
            captured.captured_amount,
            counterparty=other_side,
            command=self,
            entry_id=self.out_entry_id,
        )
        movements = [step.movement]
        if recipient is not None:
            movements.append(
                movement_of(
                    EntryType.TRANSFER_IN,
                    recipient,
                    captured.captured_amount,
                    captured,
                    counterparty=wallet.id,
                    command=self,
                    entry_id=self.in_entry_id,
                )
            )
        if captured.captured_amount < captured.left:
            step = release_part(
                HOLD,
                step.wallet,
                captured,
                captured.left - captured.captured_amount,
                counterparty=other_side,
                command=self,
                entry_id=self.release_entry_id,
            )
            movements.append(step.movement)
        return step.wallet, tuple(movements)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHold(OnHold):
    """All of it comes back. The payer of a hold with a recipient may not: it would be no guarantee."""

    def decide_on(self, hold: Hold, wallet: Wallet, state: State) -> Changes:  # noqa: ARG002 as its neighbour
        is_only_payer = not self.acts_for_house and self.user_id != hold.to_user_id
        if is_only_payer and hold.to_wallet_id is not None:
            raise HoldGuaranteed
        return _give_back(hold, wallet, self, HoldStatus.RELEASED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireHold(Command):
    """Nobody captured it in time. What has ended meanwhile only loses its reminder."""

    hold_id: str
    wallet_id: str
    release_entry_id: str

    @property
    def needs(self) -> Needs:
        return Needs(wallets=(self.wallet_id,), records=(self.hold_id,))

    def decide(self, state: State) -> Changes:
        hold, wallet = _find_hold(self, state)
        if hold.status is not HoldStatus.HELD:
            return Changes(hold, done_outbox_ids=(expiry_id(hold),))
        if self.now < hold.expires_at:
            raise IllegalTransition(f"{hold.id} has not expired yet", status_now=hold.status)
        return _give_back(hold, wallet, self, HoldStatus.EXPIRED)


def take_from_hold(
    hold: Hold, wallet: Wallet, most: int, return_id: str, command: Command, entry_id: str
) -> tuple[Hold, Step]:
    """Releases up to `most` of the hold, so that the ledger can pay a return with it.

    A hold of which nothing is left ends as `taken`. Otherwise the rest stays promised to the recipient.
    """
    amount = min(most, hold.left)
    is_whole = amount == hold.left
    at = time_of(command.now, wallet)
    taken = hold._replace(takings=(*hold.takings, Taking(return_id, amount)), updated_at=at)
    if not is_whole:
        step = release_part(
            HOLD, wallet, taken, amount, counterparty=_other_side(hold), command=command, entry_id=entry_id
        )
        return taken, step
    ended = taken._replace(status=HoldStatus.TAKEN, transaction_id=command.transaction_id)
    step = release(
        HOLD, wallet, ended, counterparty=_other_side(hold), command=command, entry_id=entry_id, amount=amount
    )
    return ended, step


def taking_notice(hold: Hold, command: Command) -> tuple[OutboxRow, ...]:
    """A mail to the recipient about the last taking. Several returns may take from one hold, and each has its mail."""
    if hold.to_wallet_id is None:
        return ()
    row = outbox_row(OutboxTopic.HOLD_NOTICE, hold.id, command.request_id, hold.updated_at)
    return (row._replace(id=f"{row.id}:{hold.takings[-1].return_id}"),)


def expiry_id(hold: Hold) -> str:
    return outbox_id(OutboxTopic.EXPIRY, hold.id)


def _audit_events(command: OnHold, ended: Hold, action: AuditAction) -> tuple[AuditEvent, ...]:
    """One event, unless the payer acted. Its `status` says whether the hold was released, or had expired before."""
    if command.user_id == ended.user_id:
        return ()
    event = command.event(
        action,
        ended.id,
        ended.updated_at,
        status=ended.status,
        wallet_id=ended.wallet_id,
        to_wallet_id=ended.to_wallet_id,
        amount=ended.amount,
        captured_amount=ended.captured_amount,
        currency=ended.currency,
    )
    return (event,)


def _named(*wallet_ids: str | None) -> tuple[str, ...]:
    return tuple(wallet_id for wallet_id in wallet_ids if wallet_id is not None)


def _other_side(hold: Hold) -> str:
    return hold.to_wallet_id or SystemAccount.REVENUE


def _find_hold(command: OnHold | ExpireHold, state: State) -> tuple[Hold, Wallet]:
    hold, wallet = state.record(command.hold_id, Hold), state.wallet(command.wallet_id)
    if hold is None or wallet is None:
        raise _no_hold(command.hold_id)
    return hold, wallet


def _no_hold(hold_id: str) -> NotFound:
    return NotFound(f"There is no hold {hold_id}")


def _require_capturable(wallet: Wallet, *, is_promised: bool) -> None:
    """What was promised before its payer's wallet was shut for payments is still paid: a guarantee that a freeze could
    take back would be none. Not so from a wallet that is shut both ways, and not to somebody who is named only now.
    """
    if wallet.status is WalletStatus.CLOSED:
        raise WalletClosed(wallet_id=wallet.id)
    # The bank has taken this money back, so the payer cannot give it to the recipient.
    require_nothing_owed(wallet)
    if not is_promised:
        require_open(wallet, Freeze.OUT)
    if not wallet.lets(Freeze.OUT) and not wallet.lets(Freeze.IN):
        raise WalletFrozen(wallet_id=wallet.id, frozen=wallet.freeze)


def _give_back(
    hold: Hold,
    wallet: Wallet,
    command: OnHold | ExpireHold,
    status: HoldStatus,
    error: WalletServiceError | None = None,
) -> Changes:
    """The end without a capture, whatever state the wallet is in: the money was never out of it."""
    asked_by = command.user_id if isinstance(command, OnHold) and status is HoldStatus.RELEASED else None
    ended = hold._replace(
        status=status,
        transaction_id=command.transaction_id,
        ended_by=asked_by,
        updated_at=time_of(command.now, wallet),
    )
    step = release(
        HOLD,
        wallet,
        ended,
        counterparty=_other_side(ended),
        command=command,
        entry_id=command.release_entry_id,
        amount=ended.left,
    )
    viewer_id = command.user_id if isinstance(command, PersonalCommand) else ""
    return Changes(
        ended,
        (step.movement,),
        wallets=(step.wallet,),
        also=_audit_events(command, ended, AuditAction.HOLD_RELEASED) if isinstance(command, OnHold) else (),
        done_outbox_ids=(expiry_id(hold),),
        answer=lambda after: hold_receipt_view(ended, viewer_id, after.wallet(wallet.id), None),
        status_code=_OK,
        error=error,
    )
