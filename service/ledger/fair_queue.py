"""Queues the commands that wait for a transaction, by user: a user who sends many waits behind their own commands.

The order is that of flow queueing (RFC 8290, section 4.2) without its dropping of packets. The ledger serves users in
turn, a few commands each. A user who had nothing waiting comes before the others, but not always: after a few of them
one of the others has a turn. Commands of one user keep their order.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from service.errors import LedgerBusy, TooManyPending
from service.ledger.batch import Decided
from service.ledger.commands import Command

# The weight that a user may have taken in one turn. A heavier command makes its user pass as many turns as it is
# heavier.
_TURN_WEIGHT = 8
# The queue takes a quarter more, but only from users who have nothing waiting and send something small.
_RESERVE_DIVISOR = 4
# A fifth of the turns stays with the old queues, among them what the service settles, while new users keep coming.
_NEW_COMMANDS_IN_A_ROW = 4
_RETRY_AFTER_S = 1


class Pending(NamedTuple):
    command: Command
    arrived_s: float
    future: asyncio.Future[Decided]


class _UserQueue:
    """Keeps what one user has waiting. `credit` is the weight that the ledger may still take in this turn."""

    __slots__ = ("credit", "user_id", "waiting", "weight")

    def __init__(self, user_id: str | None) -> None:
        self.user_id = user_id
        self.waiting: deque[Pending] = deque()
        self.weight = 0
        self.credit = _TURN_WEIGHT


class FairQueue:
    """Adds and takes at the same cost however many wait. Sizes are weights of commands."""

    def __init__(self, limit: int, user_share: int | None) -> None:
        """`user_share` is how much of the queue one user may fill; None for all of it."""
        self._limit = limit
        self._user_share = limit if user_share is None else user_share
        self._weight = 0
        self._count = 0
        self._users: dict[str, _UserQueue] = {}
        # Each queue is in one of the two. A user who had nothing waiting has a new queue, for one turn.
        self._new_queues: deque[_UserQueue] = deque()
        self._old_queues: deque[_UserQueue] = deque()
        self._new_in_a_row = 0

    def __len__(self) -> int:
        return self._count

    def add(self, pending: Pending) -> None:
        """Raises TooManyPending where the command exceeds its user's share, LedgerBusy where the queue is full.

        One command always fits into an empty share, however heavy it is.
        """
        user_id, weight = pending.command.sharer_id, pending.command.weight
        queue = None if user_id is None else self._users.get(user_id)
        own = 0 if queue is None else queue.weight
        if own and own + weight > self._user_share:
            raise TooManyPending(retry_after_s=_RETRY_AFTER_S)
        # A command of the service itself takes its turn as one more user's would.
        is_new = not own and user_id is not None and weight <= _TURN_WEIGHT
        # Leaves the weight out: a queue that is nearly full would refuse heavy commands for ever, and light ones never.
        if self._weight >= self._limit + (self._limit // _RESERVE_DIVISOR if is_new else 0):
            raise LedgerBusy(retry_after_s=_RETRY_AFTER_S)
        if queue is None:
            queue = _UserQueue(user_id)
            if user_id is not None:
                self._users[user_id] = queue
            (self._new_queues if is_new else self._old_queues).append(queue)
        queue.waiting.append(pending)
        queue.weight += weight
        self._weight += weight
        self._count += 1

    def take(self, room: int | None) -> Pending | None:
        """Takes the next command. None where nothing waits, or the next one weighs more than `room`."""
        while queues := self._next_queues():
            queue = queues[0]
            if queue.credit <= 0:
                queue.credit += _TURN_WEIGHT
                self._old_queues.append(queues.popleft())
                if queues is self._old_queues:
                    # A user who is still paying for a heavy command has had this turn.
                    self._new_in_a_row = 0
            elif not queue.waiting:
                self._retire_empty(queues)
            else:
                weight = queue.waiting[0].command.weight
                if room is not None and weight > room:
                    return None
                self._new_in_a_row = self._new_in_a_row + 1 if queues is self._new_queues else 0
                queue.credit -= weight
                queue.weight -= weight
                self._weight -= weight
                self._count -= 1
                return queue.waiting.popleft()
        return None

    def _next_queues(self) -> deque[_UserQueue]:
        is_turn_of_old = self._old_queues and self._new_in_a_row >= _NEW_COMMANDS_IN_A_ROW
        return self._old_queues if is_turn_of_old or not self._new_queues else self._new_queues

    def _retire_empty(self, queues: deque[_UserQueue]) -> None:
        """Ends an old queue. Moves a new one behind the old ones, or its user would come first again at once."""
        queue = queues.popleft()
        if queues is self._new_queues:
            self._old_queues.append(queue)
        elif queue.user_id is not None:
            del self._users[queue.user_id]

    def take_all(self) -> list[Pending]:
        """Empties the queue."""
        queues = (*self._new_queues, *self._old_queues)
        found = [pending for queue in queues for pending in queue.waiting]
        self._new_queues.clear()
        self._old_queues.clear()
        self._users.clear()
        self._weight = self._count = self._new_in_a_row = 0
        return found
