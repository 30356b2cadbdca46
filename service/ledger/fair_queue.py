"""Commands that wait for a transaction, with a share for each user: who sends many waits behind themselves.

The order is that of flow queueing (RFC 8290, section 4.2) without its dropping of packets. Users are served in turn, a
few commands each. A user who had nothing waiting comes before those who had. Commands of one user keep their order.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from service.errors import LedgerBusy, TooManyPending
from service.ledger.batch import Decided
from service.ledger.commands import Command

# So much weight a user has in one turn. A heavier command makes its user pass as many turns as it is heavier.
_TURN_WEIGHT = 8
# The queue takes a quarter more, but only from users who have nothing waiting and send something small.
_RESERVE = 4
_RETRY_AFTER_S = 1


class Pending(NamedTuple):
    command: Command
    arrived_s: float
    future: asyncio.Future[Decided]


class _Share:
    """What one user has waiting. `credit` is the weight that they may still have taken in this turn."""

    __slots__ = ("credit", "user_id", "waiting", "weight")

    def __init__(self, user_id: str | None) -> None:
        self.user_id = user_id
        self.waiting: deque[Pending] = deque()
        self.weight = 0
        self.credit = _TURN_WEIGHT


class FairQueue:
    """Adding and taking cost the same however many wait. Sizes are weights of commands."""

    def __init__(self, limit: int, user_share: int | None) -> None:
        """`user_share` is how much of the queue one user may fill; None for all of it."""
        self._limit = limit
        self._user_share = limit if user_share is None else user_share
        self._weight = 0
        self._count = 0
        self._shares: dict[str, _Share] = {}
        # Each share is in one of the two. Who had nothing waiting is a newcomer for one turn.
        self._newcomers: deque[_Share] = deque()
        self._others: deque[_Share] = deque()

    def __len__(self) -> int:
        return self._count

    def add(self, pending: Pending) -> None:
        """Raises TooManyPending where the user's share is full, LedgerBusy where the queue is."""
        user_id, weight = pending.command.sharer_id, pending.command.weight
        share = None if user_id is None else self._shares.get(user_id)
        own = 0 if share is None else share.weight
        if own >= self._user_share and user_id is not None:
            raise TooManyPending(retry_after_s=_RETRY_AFTER_S)
        # What the service does of its own accord takes its turn as one more user would.
        is_newcomer = not own and user_id is not None and weight <= _TURN_WEIGHT
        if self._weight >= self._limit + (self._limit // _RESERVE if is_newcomer else 0):
            raise LedgerBusy(retry_after_s=_RETRY_AFTER_S)
        if share is None:
            share = _Share(user_id)
            if user_id is not None:
                self._shares[user_id] = share
            (self._newcomers if is_newcomer else self._others).append(share)
        share.waiting.append(pending)
        share.weight += weight
        self._weight += weight
        self._count += 1

    def take(self, room: int | None) -> Pending | None:
        """Takes the next command. None where nothing waits, or the next one weighs more than `room`."""
        while shares := self._newcomers or self._others:
            share = shares[0]
            if share.credit <= 0:
                share.credit += _TURN_WEIGHT
                self._others.append(shares.popleft())
            elif not share.waiting:
                self._end_turn_of_nothing(shares)
            else:
                weight = share.waiting[0].command.weight
                if room is not None and weight > room:
                    return None
                share.credit -= weight
                share.weight -= weight
                self._weight -= weight
                self._count -= 1
                return share.waiting.popleft()
        return None

    def _end_turn_of_nothing(self, shares: deque[_Share]) -> None:
        """A newcomer stays, behind all others, or many of them would take every turn by coming again."""
        share = shares.popleft()
        if shares is self._newcomers:
            self._others.append(share)
        elif share.user_id is not None:
            del self._shares[share.user_id]

    def take_all(self) -> list[Pending]:
        """Empties the queue."""
        found = [pending for shares in (self._newcomers, self._others) for share in shares for pending in share.waiting]
        self._newcomers.clear()
        self._others.clear()
        self._shares.clear()
        self._weight = self._count = 0
        return found
