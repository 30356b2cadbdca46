"""Takes back the points of an operation whose money has come back: the bank returned it, or an admin reversed it."""

from dataclasses import replace

from service.domain.money import POINTS
from service.domain.outbox import OutboxTopic, outbox_id
from service.domain.returns import Return, ReturnStatus, ReturnType, points_return_id_of
from service.domain.rewards import Reward, RewardStatus, reward_id
from service.errors import InsufficientFunds
from service.ledger.commands import Changes, Command, Needs, State
from service.ledger.debts import owe, trouble_of
from service.ledger.rules import time_of, with_one_more_open


def needs_of_points(operation_id: str, user_id: str) -> Needs:
    return Needs(owned_wallets=((user_id, POINTS),), records=(reward_id(operation_id),))


def with_points_back(
    changes: Changes, operation_id: str, user_id: str, command: Command, state: State, returned: Return | None = None
) -> Changes:
    """Adds that the user gives back the points of the operation; what was spent of them is owed in points.

    `returned` is the bank's return of the operation, None for a reversal. Points that are not credited yet never will
    be: their outbox row is deleted. A command that credits them at the same moment deletes the same row, so one of the
    two conflicts and is decided once more.
    """
    changes = replace(changes, done_outbox_ids=(*changes.done_outbox_ids, outbox_id(OutboxTopic.REWARD, operation_id)))
    reward = state.record(reward_id(operation_id), Reward)
    known = state.wallet_in(user_id, POINTS)
    if reward is None or reward.status is not RewardStatus.SUCCESS or known is None:
        return changes
    # A reversal may move points themselves.
    wallet = next((one for one in changes.wallets if one.id == known.id), known)
    at = time_of(command.now, wallet)
    points = Return(
        id=points_return_id_of(operation_id),
        type=ReturnType.POINTS,
        operation_id=reward.id,
        user_id=user_id,
        wallet_id=wallet.id,
        amount=reward.points,
        currency=POINTS,
        status=ReturnStatus.SUCCESS,
        bank_reference=None,
        return_code=None if returned is None else returned.return_code,
        return_message=None if returned is None else returned.return_message,
        trouble=None,
        category=None,
        decided_by=None,
        decided_at=None,
        transaction_id=None,
        request_id=command.request_id,
        created_at=at,
        updated_at=at,
    )
    owing, trouble = with_one_more_open(wallet, at), trouble_of(points, wallet)
    if trouble is not None:
        taken = points._replace(status=ReturnStatus.REQUIRES_REVIEW, trouble=trouble)
    else:
        owing, taken = owe(owing, points)
        if owing.owed > owing.available:
            taken = taken._replace(trouble=InsufficientFunds.code)
    others = tuple(one for one in changes.wallets if one.id != wallet.id)
    return replace(changes, wallets=(*others, owing), also=(*changes.also, taken))
