"""Points: what settles leaves word in the outbox where it earns some, and a worker has them credited, once."""

from dataclasses import dataclass

from service.domain.accounts import SystemAccount
from service.domain.entries import EntryType
from service.domain.money import POINTS
from service.domain.operations import Operation, OperationStatus
from service.domain.outbox import OutboxRow, OutboxTopic, outbox_id, outbox_row
from service.domain.rewards import (
    EarningEvent,
    EarningRoom,
    Reward,
    RewardStatus,
    Settled,
    earned_points,
    event_of,
    reward_id,
)
from service.domain.transfers import Transfer
from service.domain.wallets import Wallet, WalletStatus
from service.errors import NotFound, NoWalletInCurrency, WalletServiceError
from service.ledger.commands import Changes, Command, Needs, State
from service.ledger.rules import fits, movement_of, time_of


class RoomMoved(WalletServiceError):
    """The user's points have moved since the room was read: read it anew. Services do; no client sees it."""


def reward_rows(settled: Settled, state: State) -> tuple[OutboxRow, ...]:
    """For what has just succeeded; where it earns nothing there is no row, and so no work."""
    if not earned_points(state.policy.earning_rules, settled):
        return ()
    # A return before it is due deletes the row: then nothing was ever credited.
    due_at = settled.updated_at + state.policy.earning_bounds.pending
    return (outbox_row(OutboxTopic.REWARD, settled.id, settled.request_id, settled.updated_at, due_at),)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarnPoints(Command):
    """Credits what a settled operation has earned by the rules of this moment, and ends its row in the outbox.

    `room` is what the bounds leave, read before the transaction. Two rewards of a user at once could both count on it:
    the second finds that the wallet for points has moved on, and is refused with RoomMoved.
    """

    operation_id: str
    user_id: str
    entry_id: str
    room: EarningRoom | None = None

    @property
    def needs(self) -> Needs:
        return Needs(records=(self.operation_id, reward_id(self.operation_id)), owned_wallets=((self.user_id, POINTS),))

    def decide(self, state: State) -> Changes:
        """Raises NoWalletInCurrency where the wallet has to be opened first."""
        settled = state.record(self.operation_id, Operation) or state.record(self.operation_id, Transfer)
        if settled is None or settled.user_id != self.user_id:
            raise NotFound(f"There is no operation {self.operation_id}")
        done = (outbox_id(OutboxTopic.REWARD, settled.id),)
        known = state.record(reward_id(settled.id), Reward)
        if known is not None:
            return Changes(known, done_outbox_ids=done)
        rules = earned_points(state.policy.earning_rules, settled, self.room)
        if not rules or settled.status is not OperationStatus.SUCCESS or _has_come_back(settled):
            return Changes(settled, done_outbox_ids=done)
        wallet = state.wallet_in(self.user_id, POINTS)
        if wallet is None:
            raise NoWalletInCurrency(currency=POINTS)
        if self.room is not None and self.room.points_seq != wallet.seq:
            raise RoomMoved
        reward = self._new_reward(settled, rules, wallet)
        if reward.status is RewardStatus.LAPSED:
            return Changes(reward, done_outbox_ids=done)
        earned = movement_of(
            EntryType.POINTS_EARNED,
            wallet,
            reward.points,
            reward,
            counterparty=SystemAccount.REWARDS,
            command=self,
            entry_id=self.entry_id,
        )
        return Changes(reward, (earned,), done_outbox_ids=done)

    def _new_reward(self, settled: Settled, rules: dict[str, int], wallet: Wallet) -> Reward:
        """Points are due from what was done, so they also land on a frozen wallet, where they stay as frozen as the
        rest. A closed one stays closed, and they lapse.
        """
        points = sum(rules.values())
        can_take = wallet.status is not WalletStatus.CLOSED and fits(wallet, points)
        return Reward(
            id=reward_id(settled.id),
            user_id=self.user_id,
            wallet_id=wallet.id,
            operation_id=settled.id,
            points=points,
            rules=rules,
            status=RewardStatus.SUCCESS if can_take else RewardStatus.LAPSED,
            transaction_id=self.transaction_id,
            request_id=self.request_id,
            created_at=time_of(self.now, wallet),
            counted=_counted(settled, self.room),
            currency=settled.currency,
            settled_at=settled.updated_at,
        )


def _has_come_back(settled: Settled) -> bool:
    """Tells whether the bank has returned it, or an admin reversed it."""
    return (settled.reversal_id if isinstance(settled, Transfer) else settled.return_id) is not None


def _counted(settled: Settled, room: EarningRoom | None) -> int:
    """Returns how much of a deposit is no longer new money."""
    if event_of(settled) is not EarningEvent.DEPOSIT:
        return 0
    return settled.amount if room is None else min(settled.amount, room.amount)
