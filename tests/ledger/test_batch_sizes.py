"""How large a transaction may become: commands weigh what they may write, and a batch that takes too long shrinks."""

import asyncio
import importlib
import pkgutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from typing import Any, get_origin

import pytest
from pymongo.asynchronous.client_session import AsyncClientSession

from service import ledger as ledger_package
from service.database import Databases
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.policy import Policy
from service.ledger.commands import Command, CompositeCommand
from service.ledger.committer import Committed, Ledger
from service.ledger.house_portions import PortionCache
from service.ledger.returns import CollectReturn, NamedHold, TakeReturn
from service.ledger.transaction import Attempt, Prepared, prepare
from tests.factories import current, make_funded_wallet, withdrawal_of
from tests.servers import Admin, fail_point

# Fields with many values that are only read: the command writes as much however many they are.
_READ_ONLY = {"currencies", "beside", "relatives", "related", "capture_to"}
# A few admins, who made one key: beside the adjustment a counter of each is written.
_FEW = {"makers"}
_MANY = (tuple, list, set, frozenset, Sequence)
_LIMIT = 32


def _all_commands() -> set[type[Command]]:
    for module in pkgutil.iter_modules(ledger_package.__path__):
        importlib.import_module(f"{ledger_package.__name__}.{module.name}")
    found: set[type[Command]] = set()
    unseen: list[type[Command]] = [Command]
    while unseen:
        # `slots=True` makes each class twice, and only the second is used.
        unseen = [one for parent in unseen for one in parent.__subclasses__() if one not in found]
        found.update(unseen)
    return {one for one in found if one.__module__.startswith(ledger_package.__name__)}


def _return_of(holds: int) -> TakeReturn:
    return TakeReturn(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        operation_id=new_id(Prefix.DEPOSIT),
        wallet_id=new_id(Prefix.WALLET),
        user_id=new_id(Prefix.USER),
        said=Said(SaidEvent.RETURNED, None, 1, "INR", "ret_test"),
        entry_id=new_id(Prefix.ENTRY),
        incident_id=new_id(Prefix.INCIDENT),
        incident_event_id=new_id(Prefix.AUDIT_EVENT),
        freeze_event_id=new_id(Prefix.AUDIT_EVENT),
        holds=tuple(NamedHold(new_id(Prefix.HOLD), new_id(Prefix.ENTRY)) for _ in range(holds)),
    )


class TestWeights:
    def test_a_return_weighs_the_holds_that_it_may_take_from(self) -> None:
        assert _return_of(0).weight == 1
        assert _return_of(100).weight == 101
        holds = [NamedHold(f"hld_{number}", f"ent_{number}", "wal_1" if number else None) for number in range(3)]
        assert replace(_return_of(0), holds=tuple(holds)).weight == 5

    def test_every_command_that_names_many_documents_weighs_more_for_it_or_only_reads_them(self) -> None:
        growing = {
            command
            for command in _all_commands()
            for field in fields(command)
            if get_origin(field.type) in _MANY and field.name not in _READ_ONLY | _FEW
        }
        assert {TakeReturn, CollectReturn, CompositeCommand} <= growing
        assert {one for one in growing if one.weight is Command.weight} == set()


class Slow:
    """A ledger for which every command in a batch is work of the same length."""

    def __init__(self, databases: Databases, each_ms: int) -> None:
        self._users, self._each_ms = databases.wallet["users"], each_ms
        self.sizes: list[int] = []

    async def prepare(
        self, session: AsyncClientSession, commands: Any, policy: Policy, own: PortionCache, attempt: Attempt
    ) -> Prepared:
        self.sizes.append(len(commands))
        prepared = await prepare(session, commands, policy, own, attempt)
        await asyncio.sleep(self._each_ms * len(commands) / 1000)
        # The driver and the server see that the attempt's time is over.
        await self._users.find_one(session=session)
        return prepared


def _ledger(databases: Databases, committed: list[Committed]) -> Ledger:
    return Ledger(
        databases.client,
        policy=Policy(),
        batch_limit=_LIMIT,
        queue_limit=1000,
        patience_s=30.0,
        on_committed=committed.append,
    )


class TestABatchThatTakesTooLong:
    @pytest.fixture(autouse=True)
    def short_attempts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.ledger.committer._ATTEMPT_S", 1.0)

    async def test_is_halved_until_it_fits_and_the_next_ones_begin_smaller(
        self, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow, committed = Slow(databases, each_ms=60), list[Committed]()
        monkeypatch.setattr("service.ledger.committer.prepare", slow.prepare)
        wallet = await make_funded_wallet(databases, 100)
        ledger = _ledger(databases, committed)
        ledger.start()
        try:
            await asyncio.gather(*(ledger.execute(withdrawal_of(wallet, 1)) for _ in range(2 * _LIMIT)))
        finally:
            await ledger.close()
        assert (await current(wallet)).held == 2 * _LIMIT
        # 32 take two seconds. Nothing that large is tried a second time, neither again nor by those who come next.
        assert slow.sizes.count(_LIMIT) == 1
        assert max(one.commands for one in committed) <= _LIMIT // 2

    async def test_has_more_room_again_when_batches_pass(self, databases: Databases) -> None:
        committed = list[Committed]()
        wallet = await make_funded_wallet(databases, 1_000)
        ledger = _ledger(databases, committed)
        ledger._weight_limit = 1
        ledger.start()
        try:
            await asyncio.gather(*(ledger.execute(withdrawal_of(wallet, 1)) for _ in range(20)))
        finally:
            await ledger.close()
        assert [one.commands for one in committed] == [1, 2, 3, 4, 5, 5]

    async def test_stays_whole_while_the_server_does_not_answer(
        self, databases: Databases, admin: Admin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wallet = await make_funded_wallet(databases, 100)
        sizes, committed = list[int](), list[Committed]()
        frozen: dict[str, Any] = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": 3_000}
        with ExitStack() as outage:
            outage.enter_context(fail_point(admin, 1_000, **frozen))

            async def back_for_the_second_attempt(session: Any, commands: Any, *more: Any) -> Prepared:
                # The second attempt has time to wait until the server is back.
                monkeypatch.setattr("service.ledger.committer._ATTEMPT_S", 60.0)
                if sizes:
                    # In an empty context: the attempt's time is not this call's.
                    await asyncio.get_running_loop().run_in_executor(None, outage.close)
                sizes.append(len(commands))
                return await prepare(session, commands, *more)

            monkeypatch.setattr("service.ledger.committer.prepare", back_for_the_second_attempt)
            ledger = _ledger(databases, committed)
            waiting = [asyncio.create_task(ledger.execute(withdrawal_of(wallet, 1))) for _ in range(10)]
            await asyncio.sleep(0)
            ledger.start()
            await asyncio.gather(*waiting)
        await ledger.close()
        assert set(sizes) == {10}
        assert [one.commands for one in committed] == [10]
        assert ledger._weight_limit == _LIMIT
