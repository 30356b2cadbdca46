"""The ledger's queue is nobody's weapon: who fills their share of it waits, and a stranger's payment goes by."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from time import perf_counter

import pytest

from service.database import Databases
from service.domain.policy import Policy
from service.domain.wallets import Wallet
from service.errors import LedgerBusy, TooManyPending
from service.ledger.commands import Command
from service.ledger.committer import Committed, Ledger
from service.ledger.fair_queue import FairQueue, Pending
from tests.factories import batch_of, make_funded_wallet, transfer_of, withdrawal_of

_SHARE = 20
_QUEUE = 40


class Line:
    """A ledger that is not started until all who come have come, and the order in which it answered them."""

    def __init__(self, databases: Databases) -> None:
        self.committed: list[Committed] = []
        self.answered: list[str] = []
        self.ledger = Ledger(
            databases.client,
            policy=Policy(),
            batch_limit=10,
            queue_limit=_QUEUE,
            user_share=_SHARE,
            patience_s=30.0,
            on_committed=self.committed.append,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, name: str, command: Command) -> None:
        """Hands a command in; returns once it waits."""
        self._tasks.append(asyncio.create_task(self._ask(name, command)))
        await asyncio.sleep(0)

    async def _ask(self, name: str, command: Command) -> None:
        decided = await self.ledger.execute(command)
        assert decided.error is None
        self.answered.append(name)

    async def serve(self) -> list[str]:
        self.ledger.start()
        await asyncio.gather(*self._tasks)
        return self.answered


@pytest.fixture
async def line(databases: Databases) -> AsyncIterator[Line]:
    line = Line(databases)
    yield line
    await line.ledger.close()


def _payment(wallet: Wallet) -> Command:
    return withdrawal_of(wallet, 1, token_version=0)


class TestWhoFillsTheirShare:
    async def test_is_told_to_wait_while_a_strangers_payment_goes_through(
        self, line: Line, databases: Databases
    ) -> None:
        greedy, stranger = await make_funded_wallet(databases), await make_funded_wallet(databases)
        for _ in range(_SHARE):
            await line.join("greedy", _payment(greedy))
        with pytest.raises(TooManyPending) as refused:
            await asyncio.wait_for(line.ledger.execute(_payment(greedy)), 2)
        assert (refused.value.http_status, refused.value.retry_after_s) == (429, 1)
        await line.join("stranger", _payment(stranger))
        answered = await line.serve()
        # In the first of three batches of ten: whoever has much waiting has it behind themselves.
        assert answered.index("stranger") < 10
        # What was refused was not done, and may be sent again.
        await line.ledger.execute(_payment(greedy))

    async def test_with_batches_of_transfers_is_counted_by_their_size(self, line: Line, databases: Databases) -> None:
        greedy, stranger = await make_funded_wallet(databases), await make_funded_wallet(databases)
        parts = [transfer_of(greedy, stranger, 1, token_version=0) for _ in range(_SHARE)]
        await line.join("greedy", batch_of(parts, is_all_or_nothing=True))
        with pytest.raises(TooManyPending):
            await asyncio.wait_for(line.ledger.execute(_payment(greedy)), 2)
        await line.join("stranger", _payment(stranger))
        assert await line.serve() == ["stranger", "greedy"]

    async def test_adds_no_batch_beyond_it_but_one_command_of_any_size(self, line: Line, databases: Databases) -> None:
        greedy, other = await make_funded_wallet(databases), await make_funded_wallet(databases)
        pair = batch_of([transfer_of(greedy, other, 1, token_version=0) for _ in range(2)], is_all_or_nothing=True)
        for _ in range(_SHARE - 1):
            await line.join("greedy", _payment(greedy))
        with pytest.raises(TooManyPending):
            await asyncio.wait_for(line.ledger.execute(pair), 2)
        # What still fits is taken.
        await line.join("greedy", _payment(greedy))
        parts = [transfer_of(other, greedy, 1, token_version=0) for _ in range(_SHARE + 5)]
        load = _Load(0, _SHARE)
        load.queue.add(_pending(batch_of(parts, is_all_or_nothing=True)))
        assert len(load.queue) == 1
        await line.serve()

    async def test_together_with_others_leaves_room_for_one_payment_of_a_stranger(
        self, line: Line, databases: Databases
    ) -> None:
        for _ in range(_QUEUE // _SHARE):
            greedy = await make_funded_wallet(databases)
            for _ in range(_SHARE):
                await line.join("greedy", _payment(greedy))
        stranger = await make_funded_wallet(databases)
        await line.join("stranger", _payment(stranger))
        with pytest.raises(LedgerBusy):
            await asyncio.wait_for(line.ledger.execute(_payment(stranger)), 2)
        assert (await line.serve()).index("stranger") < 20


def _pending(command: Command) -> Pending:
    return Pending(command, perf_counter(), asyncio.get_running_loop().create_future())


class _Load:
    """Users who send at random, and a queue that keeps what it was given."""

    def __init__(self, seed: int, user_share: int | None = None) -> None:
        self.random = Random(seed)  # noqa: S311 cases, not secrets
        self.queue = FairQueue(10_000, user_share)
        self.given: dict[str, list[Command]] = {}
        self.taken: dict[str, list[Command]] = {}

    def add(self, wallet: Wallet, size: int) -> None:
        parts = [transfer_of(wallet, None, 1, to_wallet_id="wal_0", token_version=0) for _ in range(size)]
        command = parts[0] if size == 1 else batch_of(parts, is_all_or_nothing=True)
        self.queue.add(_pending(command))
        self.given.setdefault(wallet.user_id, []).append(command)

    def take_batch(self, limit: int) -> int:
        weight = 0
        while (pending := self.queue.take(limit - weight if weight else None)) is not None:
            command = pending.command
            assert command.sharer_id is not None
            self.taken.setdefault(command.sharer_id, []).append(command)
            weight += command.weight
        return weight


class TestTheOrder:
    async def test_loses_nothing_and_keeps_that_of_each_user(self, databases: Databases) -> None:
        wallets = [await make_funded_wallet(databases, 1) for _ in range(6)]
        for seed in range(5):
            load = _Load(seed)
            for _ in range(30):
                for _ in range(load.random.randrange(6)):
                    load.add(load.random.choice(wallets), load.random.choice((1, 1, 1, 3, 15)))
                load.take_batch(12)
            while len(load.queue):
                assert load.take_batch(12)
            assert load.taken == load.given
            assert load.take_batch(12) == 0

    async def test_gives_users_who_send_much_the_same(self, databases: Databases) -> None:
        wallets = [await make_funded_wallet(databases, 1) for _ in range(3)]
        load = _Load(0)
        for wallet, size in zip(wallets, (1, 5, 50), strict=True):
            for _ in range(500 // size):
                load.add(wallet, size)
        for _ in range(30):
            load.take_batch(20)
        weights = [sum(one.weight for one in load.taken[wallet.user_id]) for wallet in wallets]
        # The largest command is how far one can be ahead.
        assert max(weights) - min(weights) <= 60

    async def test_keeps_nobody_out_who_waits_while_strangers_come_all_the_time(self, databases: Databases) -> None:
        many = [await make_funded_wallet(databases, 1) for _ in range(12)]
        load = _Load(0)
        load.add(many[0], 15)
        for _ in range(20):
            for wallet in many[1:]:
                load.add(wallet, 1)
            load.take_batch(6)
        assert load.taken[many[0].user_id]

    async def test_serves_one_who_waits_while_new_users_come_faster_than_they_are_served(
        self, databases: Databases
    ) -> None:
        wallet = await make_funded_wallet(databases, 1)
        load = _Load(0)
        load.add(wallet, 15)
        load.add(wallet, 15)
        for number in range(60):
            for turn in range(3):
                load.add(wallet._replace(user_id=f"usr_{number}_{turn}"), 1)
            load.take_batch(2)
        # A heavy command costs its user turns: strangers keep most of what was taken.
        assert len(load.taken[wallet.user_id]) == 2
        assert len(load.taken) > 60
