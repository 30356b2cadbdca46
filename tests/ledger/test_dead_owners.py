"""What a dead process has locked: others end its transaction, and nobody loses money by being taken for dead."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from bson.int64 import Int64
from pymongo.errors import OperationFailure

from service.database import Databases, abort_transaction, start_transaction
from service.domain.clock import utc_now
from service.domain.policy import Policy
from service.domain.wallets import Wallet
from service.ledger.committer import Ledger
from service.ledger.dead_owners import LedgerSession
from service.ledger.transaction import prepare
from service.repositories import ledger_processes as process_repository
from service.settings import Settings
from service.transaction_lifetime import TRANSACTION_LIFETIME_S, LifetimeWatch
from tests.factories import current, make_funded_wallet, withdrawal_of
from tests.logs import own_logs
from tests.servers import Admin, fail_point

_NO_SUCH_TRANSACTION = 251


@pytest.fixture
async def ledgers(databases: Databases) -> AsyncIterator[Callable[[], Ledger]]:
    opened: list[Ledger] = []

    def open_ledger() -> Ledger:
        ledger = Ledger(
            databases.client,
            policy=Policy(),
            batch_limit=32,
            queue_limit=100,
            patience_s=30.0,
            on_committed=lambda _: None,
        )
        ledger.start()
        opened.append(ledger)
        return ledger

    yield open_ledger
    for ledger in opened:
        await ledger.close()


class Owner:
    """A process that has begun a transaction on the wallet, and told of its session."""

    def __init__(self, databases: Databases, wallet: Wallet) -> None:
        self.databases, self.wallet = databases, wallet
        self.own = LedgerSession(databases.client)

    async def lock(self, pid: int, *, pid_space: str | None = None) -> None:
        session = self.own.open()
        await start_transaction(session)
        await self.databases.wallet["wallets"].update_one(
            {"_id": self.wallet.id}, {"$inc": {"turns": Int64(1)}}, session=session
        )
        known = [bytes(session.session_id["id"])]
        await process_repository.beat(self.own.id, "host", pid, pid_space or self.own._pid_space, known)

    async def fall_silent(self, for_s: float) -> None:
        collection = self.databases.wallet["ledger_processes"]
        silent_ms = int(for_s * 1000)
        await collection.update_one({"_id": self.own.id}, [{"$set": {"seen_at": {"$subtract": ["$$NOW", silent_ms]}}}])

    async def commit_code(self) -> int | None:
        try:
            await self.own.open().commit_transaction()
        except OperationFailure as error:
            return error.code
        return None


def dead_pid() -> int:
    """Of a process that there was a moment ago."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def stopped_pid() -> Iterator[int]:
    """Of a process that lives and does nothing, as after SIGSTOP."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    yield process.pid
    process.kill()
    process.wait()


def hidden_pid(patch: pytest.MonkeyPatch) -> int:
    """Of a process that lives, and of which /proc tells other users nothing (mounted with `hidepid=2`)."""
    read_text = Path.read_text
    pid = os.getppid()

    def hiding(path: Path, *args: Any, **named: Any) -> str:
        if path == Path(f"/proc/{pid}/stat"):
            raise FileNotFoundError(path)
        return read_text(path, *args, **named)

    patch.setattr(Path, "read_text", hiding)
    return pid


class TestAnOwnerThatLives:
    @pytest.fixture
    async def owner(self, databases: Databases) -> AsyncIterator[Owner]:
        """Its heartbeat goes on."""
        owner = Owner(databases, await make_funded_wallet(databases, 1_000))
        owner.own.start()
        yield owner
        await owner.own.close()

    async def lose_contact(self, owner: Owner, admin: Admin) -> None:
        """In the middle of a transaction: the server does not hear of its end."""
        await owner.lock(pid=os.getpid())
        session = owner.own.open()
        with fail_point(admin, 1_000, failCommands=["abortTransaction"], closeConnection=True):
            await abort_transaction(session)
        owner.own.drop()

    async def test_ends_by_itself_what_an_outage_has_left_open(
        self, ledgers: Callable[[], Ledger], admin: Admin, owner: Owner
    ) -> None:
        await self.lose_contact(owner, admin)
        began = monotonic()
        await ledgers().execute(withdrawal_of(owner.wallet, 100))
        assert monotonic() - began < TRANSACTION_LIFETIME_S - 3
        assert (await current(owner.wallet)).held == 100

    async def test_tells_of_a_dropped_session_until_that_is_ended(
        self, databases: Databases, admin: Admin, owner: Owner
    ) -> None:
        async def is_told_of() -> bool:
            row = await databases.wallet["ledger_processes"].find_one({"_id": owner.own.id})
            return row is not None and session_id in row["session_ids"]

        with fail_point(admin, 1_000, failCommands=["killSessions"], closeConnection=True):
            await owner.lock(pid=os.getpid())
            session_id = bytes(owner.own.open().session_id["id"])
            owner.own.drop()
            await asyncio.sleep(1.2)
            assert await is_told_of()
        await asyncio.sleep(1.2)
        assert not await is_told_of()


class TestAHeartbeat:
    """It goes on whatever else its process waits for: a silent process on another machine is taken for dead."""

    @pytest.fixture
    async def own(self, databases: Databases) -> AsyncIterator[LedgerSession]:
        own = LedgerSession(databases.client)
        yield own
        await own.close()

    async def count_beats(self, databases: Databases, own: LedgerSession, wanted: int, within_s: float) -> int:
        """Counts the heartbeats that are seen until there are `wanted`."""
        seen: set[Any] = set()
        until_s = monotonic() + within_s
        while len(seen) < wanted and monotonic() < until_s:
            row = await databases.wallet["ledger_processes"].find_one({"_id": own.id})
            if row is not None:
                seen.add(row["seen_at"])
            await asyncio.sleep(0.02)
        return len(seen)

    async def test_does_not_wait_for_the_lifetime_of_transactions(
        self, databases: Databases, own: LedgerSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_looking = asyncio.Event()

        async def never_answered(_: LifetimeWatch) -> None:
            is_looking.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(LifetimeWatch, "look", never_answered)
        own.start()
        await is_looking.wait()
        assert await self.count_beats(databases, own, wanted=4, within_s=10) == 4

    async def test_does_not_wait_for_the_end_of_dropped_sessions(
        self, databases: Databases, own: LedgerSession, admin: Admin
    ) -> None:
        own.start()
        own.open()
        with fail_point(admin, 1_000, failCommands=["killSessions"], blockConnection=True, blockTimeMS=4_000):
            own.drop()
            assert await self.count_beats(databases, own, wanted=6, within_s=9) == 6

    async def test_goes_on_after_an_error_that_nobody_expects_and_that_is_logged_once(
        self, databases: Databases, own: LedgerSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as a server that answers without the parameter that was asked for."""
        looks = 0

        async def find_nothing(_: Any) -> int:
            nonlocal looks
            looks += 1
            raise KeyError("transactionLifetimeLimitSeconds")

        monkeypatch.setattr("service.transaction_lifetime.find_lifetime_s", find_nothing)
        monkeypatch.setattr("service.ledger.dead_owners._LIFETIME_EVERY_S", 0.05)
        with own_logs() as lines:
            own.start()
            assert await self.count_beats(databases, own, wanted=4, within_s=10) == 4
        assert looks > 1
        (warning,) = [line for line in lines if line["event"] == "ledger.upkeep_failed"]
        assert (warning["log_level"], warning["step"]) == ("warning", "watch the lifetime of transactions")


class TestADeadOwner:
    @pytest.mark.parametrize("how", ["its number is gone", "it is silent elsewhere", "it is stopped", "long silent"])
    async def test_keeps_nobody_waiting_until_mongodb_ends_its_transaction(
        self, databases: Databases, ledgers: Callable[[], Ledger], stopped_pid: int, how: str
    ) -> None:
        owner = Owner(databases, await make_funded_wallet(databases, 1_000))
        match how:
            case "its number is gone":
                await owner.lock(pid=dead_pid())
            case "it is silent elsewhere":
                await owner.lock(pid=1, pid_space="another machine")
                await owner.fall_silent(for_s=3)
            case "it is stopped":
                await owner.lock(pid=stopped_pid)
                await owner.fall_silent(for_s=3)
            case _:
                # Its number belongs to another program by now.
                await owner.lock(pid=1)
                await owner.fall_silent(for_s=60)
        began = monotonic()
        await ledgers().execute(withdrawal_of(owner.wallet, 100))
        assert monotonic() - began < TRANSACTION_LIFETIME_S - 1
        assert (await current(owner.wallet)).held == 100
        assert await owner.commit_code() == _NO_SUCH_TRANSACTION
        assert await databases.wallet["ledger_processes"].find_one({"_id": owner.own.id}) is None

    @pytest.mark.parametrize("how", ["it beats", "/proc hides it", "it is too busy to beat", "stopped just now"])
    async def test_is_left_to_mongodb_while_it_may_be_alive(
        self,
        databases: Databases,
        ledgers: Callable[[], Ledger],
        monkeypatch: pytest.MonkeyPatch,
        stopped_pid: int,
        how: str,
    ) -> None:
        owner = Owner(databases, await make_funded_wallet(databases, 1_000))
        match how:
            case "/proc hides it":
                await owner.lock(pid=hidden_pid(monkeypatch))
            case "it is too busy to beat":
                await owner.lock(pid=os.getpid())
                await owner.fall_silent(for_s=3)
            case "stopped just now":
                await owner.lock(pid=stopped_pid)
            case _:
                await owner.lock(pid=1)
        waiting = asyncio.create_task(ledgers().execute(withdrawal_of(owner.wallet, 100)))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert await owner.commit_code() is None
        await waiting
        await owner.own.close()

    async def test_is_ended_beside_a_row_that_cannot_be_read(
        self, databases: Databases, ledgers: Callable[[], Ledger], admin: Admin, settings: Settings
    ) -> None:
        """As a release after this one may write it."""
        processes = admin[settings.database]["ledger_processes"]
        strange: dict[str, Any] = {"host": "host", "pid": Int64(1), "pid_space": None, "seen_at": None}
        rows = [
            {"_id": "0" * 32},
            {"_id": "1" * 32, **strange, "session_ids": []},
            {"_id": "2" * 32, **strange, "session_ids": [b"short"], "seen_at": utc_now()},
        ]
        admin[settings.database].command("collMod", "ledger_processes", validationLevel="off")
        processes.insert_many(rows)
        try:
            owner = Owner(databases, await make_funded_wallet(databases, 1_000))
            await owner.lock(pid=dead_pid())
            began = monotonic()
            with own_logs() as lines:
                await ledgers().execute(withdrawal_of(owner.wallet, 100))
            assert monotonic() - began < TRANSACTION_LIFETIME_S - 1
        finally:
            processes.delete_many({"_id": {"$in": [row["_id"] for row in rows]}})
            admin[settings.database].command("collMod", "ledger_processes", validationLevel="strict")
        # Once each, however often it was looked.
        unreadable = [line["process_id"] for line in lines if line["event"] == "ledger.process_unreadable"]
        assert sorted(unreadable) == [row["_id"] for row in rows]

    async def test_that_lives_loses_no_money_when_it_is_taken_for_dead(
        self, databases: Databases, ledgers: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its transaction is ended between its writes and its commit; it begins anew, and both are paid once."""
        wallet = await current(await make_funded_wallet(databases, 1_000))
        slow, quick = ledgers(), ledgers()
        written, go_on = asyncio.Event(), asyncio.Event()

        async def stopping(session: Any, commands: Any, *more: Any) -> Any:
            prepared = await prepare(session, commands, *more)
            if commands[0].request_id == "slow" and not written.is_set():
                written.set()
                await go_on.wait()
            return prepared

        monkeypatch.setattr("service.ledger.committer.prepare", stopping)
        first = asyncio.create_task(slow.execute(withdrawal_of(wallet, 100, request_id="slow")))
        await written.wait()
        session_id = bytes(slow._session.open().session_id["id"])
        await process_repository.end_transactions(databases.client, [session_id])
        await quick.execute(withdrawal_of(wallet, 30))
        go_on.set()
        await first
        after = await current(wallet)
        assert (after.available, after.held, after.seq) == (870, 130, wallet.seq + 2)

    async def test_leaves_nothing_behind_where_it_ends_by_itself(
        self, databases: Databases, ledgers: Callable[[], Ledger]
    ) -> None:
        ledger = ledgers()
        await ledger.execute(withdrawal_of(await make_funded_wallet(databases, 1_000), 100))
        await ledger.close()
        assert await databases.wallet["ledger_processes"].find_one({"_id": ledger._session.id}) is None
