"""Whether anybody works: what workers tell of themselves, and how their queues stand."""

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

from service.domain.dead_letters import Queue
from service.domain.workers import ALIVE_S, Presence, QueueState, Worker
from service.repositories import dead_letters as letter_repository
from service.repositories import queues as queue_repository
from service.repositories import workers as worker_repository


class Backlog(NamedTuple):
    """What is to be done, and what was given up, by queue; of the outbox by topic as well."""

    queues: dict[Queue, QueueState]
    topics: dict[str, QueueState]
    dead_letters: dict[str, int]


async def beat(worker: Worker) -> None:
    await worker_repository.put(worker)


async def find_presence(now: datetime) -> Presence:
    """In one round trip while there is somebody."""
    span = timedelta(seconds=ALIVE_S)
    # Who was seen later than that died while the server's clock was ahead: who lives has told of itself since.
    alive = await worker_repository.find_seen_between(now - span, now + span)
    last = max((worker.seen_at for worker in alive), default=None) or await worker_repository.last_seen_at()
    age_s = None if last is None else max(0.0, (now - last).total_seconds())
    return Presence(len(alive), age_s, tuple(ms / 1000 for one in alive if (ms := one.clock_difference_ms) is not None))


async def look_at_queues(now: datetime) -> Backlog:
    others = [queue for queue in Queue if queue is not Queue.OUTBOX]
    topics, dead, states = await asyncio.gather(
        queue_repository.find_topics(now),
        letter_repository.count_dead(),
        asyncio.gather(*(queue_repository.find_state(queue, now) for queue in others)),
    )
    return Backlog({Queue.OUTBOX: _together(topics), **dict(zip(others, states, strict=True))}, topics, dead)


def _together(topics: dict[str, QueueState]) -> QueueState:
    oldest = [state.oldest_due_at for state in topics.values() if state.oldest_due_at is not None]
    rows, due = (sum(getattr(state, name) for state in topics.values()) for name in ("rows", "due"))
    return QueueState(rows, due, min(oldest, default=None))
