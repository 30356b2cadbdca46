"""Users for load tests: any number, made in bulk, each with a wallet and a settled deposit."""

import asyncio
from collections.abc import Callable
from typing import Final

from seed.deposits import StartingBalance, deposit_once
from service.services.users import ensure_users
from service.startup import Resources

PASSWORD: Final = "orbit-thistle-canyon-37"  # noqa: S105 documented in CREDENTIALS.md

# One transaction makes that many users, and the ledger's batches hold as many deposits.
_CHUNK: Final = 256
# While one chunk waits for the disk, the next one is prepared; more only wait for each other.
_CHUNKS_AT_ONCE: Final = 2


def load_email(number: int) -> str:
    return f"load-{number:06}@example.com"


async def seed_load_users(
    resources: Resources, count: int, amount: int, currency: str, on_progress: Callable[[int], object]
) -> int:
    """Users 1 to `count` with `amount` minor units each; those of earlier runs stay as they are.

    They share one hash of one password: argon2id is slow on purpose, 20 ms each, and a load test of money gains
    nothing from a thousand different ones. Returns how many keep another balance of an earlier run.
    """
    password_hash = await resources.passwords.hash(PASSWORD)
    turns = asyncio.Semaphore(_CHUNKS_AT_ONCE)

    async def seed_chunk(numbers: range) -> int:
        async with turns:
            names = {load_email(number): ("Load", f"User {number}") for number in numbers}
            user_ids = await ensure_users(resources.databases.client, names, password_hash, currency)
            balances = [StartingBalance(user_id, amount, currency) for user_id in user_ids]
            kept = await deposit_once(balances, resources.ledger, resources.settings)
        on_progress(len(numbers))
        return kept

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(seed_chunk(range(first, min(first + _CHUNK, count + 1))))
                for first in range(1, count + 1, _CHUNK)
            ]
    except ExceptionGroup as errors:
        # Whatever stopped one chunk, the other was stopped for it: one reason is enough to tell.
        raise errors.exceptions[0] from errors
    return sum(task.result() for task in tasks)
