"""The committer against a real replica set: sharing, losing races, outages, and what a client is told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import pytest
from pymongo import monitoring
from pymongo.errors import OperationFailure

from service.database import Client, Databases, bind_documents, connect
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.policy import Policy
from service.errors import IdempotencyKeyInFlight, InternalError, LedgerBusy, Unavailable
from service.ledger.commands import Command
from service.ledger.committer import Committed, Ledger
from service.ledger.transaction import Attempt, prepare
from service.settings import Settings
from tests.factories import asking_of, batch_of, change, current, make_funded_wallet, transfer_of, withdrawal_of
from tests.servers import Admin, Servers, fail_point

_LIMITS: dict[str, Any] = {"policy": Policy(), "batch_limit": 256, "queue_limit": 1000, "patience_s": 5.0}


class Committer:
    """A ledger and what it reported."""

    def __init__(self, client: Client, **limits: Any) -> None:
        self.committed: list[Committed] = []
        self.ledger = Ledger(client, **{**_LIMITS, **limits}, on_committed=self.committed.append)


@pytest.fixture
async def committer(databases: Databases) -> AsyncIterator[Committer]:
    committer = Committer(databases.client)
    committer.ledger.start()
    yield committer
    await committer.ledger.close()


async def _wallet(databases: Databases, wallet_id: str) -> dict[str, Any]:
    wallet = await databases.wallet["wallets"].find_one({"_id": wallet_id})
    assert wallet is not None
    return wallet


class TestSharing:
    async def test_what_arrives_while_a_batch_commits_shares_the_next_one(
        self, committer: Committer, databases: Databases
    ) -> None:
        wallet = await make_funded_wallet(databases, 100)
        decided = await asyncio.gather(*(committer.ledger.execute(withdrawal_of(wallet, 1)) for _ in range(100)))
        assert all(one.answer is not None and one.answer.status_code == 202 for one in decided)
        assert len(committer.committed) <= 3
        row = await _wallet(databases, wallet.id)
        assert (row["available"], row["held"], row["seq"]) == (0, 100, 101)

    async def test_who_is_let_in_between_two_batches_shares_the_next_one(self, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 100)
        late: list[asyncio.Task[Any]] = []

        async def let_in() -> None:
            if not late:
                late.append(asyncio.create_task(patient.ledger.execute(withdrawal_of(wallet, 3))))
                await asyncio.sleep(0.01)

        patient = Committer(databases.client, let_in=let_in)
        patient.ledger.start()
        first = asyncio.create_task(patient.ledger.execute(withdrawal_of(wallet, 1)))
        for _ in range(3):
            await asyncio.sleep(0)
        second = asyncio.create_task(patient.ledger.execute(withdrawal_of(wallet, 2)))
        await asyncio.gather(first, second)
        await asyncio.gather(*late)
        await patient.ledger.close()
        assert [one.commands for one in patient.committed] == [1, 2]
        assert (await _wallet(databases, wallet.id))["available"] == 94

    async def test_a_batch_is_never_larger_than_its_limit(self, databases: Databases) -> None:
        committer = Committer(databases.client, batch_limit=10)
        wallet = await make_funded_wallet(databases, 100)
        committer.ledger.start()
        await asyncio.gather(*(committer.ledger.execute(withdrawal_of(wallet, 1)) for _ in range(35)))
        await committer.ledger.close()
        assert max(one.commands for one in committer.committed) == 10

    async def test_two_ledgers_on_one_wallet_take_exactly_what_is_there(self, databases: Databases) -> None:
        first, second = Committer(databases.client), Committer(databases.client)
        wallet = await make_funded_wallet(databases, 150)
        for committer in (first, second):
            committer.ledger.start()
        decided = await asyncio.gather(
            *(ledger.execute(withdrawal_of(wallet, 1)) for _ in range(100) for ledger in (first.ledger, second.ledger))
        )
        for committer in (first, second):
            await committer.ledger.close()
        statuses = [one.answer.status_code for one in decided if one.answer is not None]
        assert (statuses.count(202), statuses.count(422)) == (150, 50)
        row = await _wallet(databases, wallet.id)
        assert (row["available"], row["held"], row["seq"]) == (0, 150, 151)


class TestNeighbours:
    async def test_a_command_that_the_database_refuses_falls_alone(
        self, committer: Committer, databases: Databases
    ) -> None:
        wallet = await make_funded_wallet(databases, 100)
        # The collection's validator wants an account; HTTP would never let this through.
        poisoned = withdrawal_of(wallet, 1, account_masked="")
        commands = [withdrawal_of(wallet, 1) for _ in range(9)]
        commands.insert(4, poisoned)
        outcomes = await asyncio.gather(
            *(committer.ledger.execute(command) for command in commands), return_exceptions=True
        )
        assert isinstance(outcomes.pop(4), InternalError)
        assert not [one for one in outcomes if isinstance(one, BaseException)]
        row = await _wallet(databases, wallet.id)
        assert (row["available"], row["held"]) == (91, 9)

    async def test_a_rule_that_breaks_falls_alone_and_changes_nothing(
        self, committer: Committer, databases: Databases
    ) -> None:
        wallet = await make_funded_wallet(databases, 100)
        broken = withdrawal_of(wallet, 1, metadata={"half": "\ud800"})
        outcomes = await asyncio.gather(
            committer.ledger.execute(broken),
            committer.ledger.execute(withdrawal_of(wallet, 1)),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], InternalError)
        assert not isinstance(outcomes[1], BaseException)
        assert (await _wallet(databases, wallet.id))["held"] == 1

    async def test_a_record_of_another_release_is_the_trouble_of_who_names_it(
        self, committer: Committer, databases: Databases, admin: Admin, settings: Settings
    ) -> None:
        wallet, another = await make_funded_wallet(databases, 100), await make_funded_wallet(databases, 100)
        operation = await change(databases, withdrawal_of(another, 1))
        row = await databases.wallet["withdrawals"].find_one({"_id": operation.id})
        assert row is not None
        theirs = operation._replace(id=new_id(Prefix.WITHDRAWAL))
        withdrawals = admin[settings.database]["withdrawals"]
        withdrawals.insert_one({**row, "_id": theirs.id, "status": "of the next one"}, bypass_document_validation=True)
        commands: list[Command] = [withdrawal_of(wallet, 1) for _ in range(9)]
        commands.insert(4, asking_of(theirs))
        outcomes = await asyncio.gather(
            *(committer.ledger.execute(command) for command in commands), return_exceptions=True
        )
        withdrawals.delete_one({"_id": theirs.id})
        assert isinstance(outcomes.pop(4), InternalError)
        assert not [one for one in outcomes if isinstance(one, BaseException)]
        assert (await _wallet(databases, wallet.id))["held"] == 9


class TestABatchOfTransfers:
    async def test_weighs_as_much_as_its_parts_and_takes_no_neighbour_with_it(
        self, committer: Committer, databases: Databases
    ) -> None:
        payer, recipient = await make_funded_wallet(databases, 1_000), await make_funded_wallet(databases, 1)
        large = batch_of([transfer_of(payer, recipient, 1) for _ in range(500)], is_all_or_nothing=True)
        singles = [transfer_of(payer, recipient, 1) for _ in range(100)]
        commands = [*singles[:50], large, *singles[50:]]
        decided = await asyncio.gather(*(committer.ledger.execute(command) for command in commands))
        assert {one.answer.status_code for one in decided if one.answer is not None} == {201}
        assert ((await current(payer)).available, (await current(recipient)).available) == (400, 601)
        # It has a transaction for itself: with 500 it is beyond the limit of a shared one.
        assert 1 in [one.commands for one in committer.committed]

    async def test_one_small_enough_shares_its_transaction(self, committer: Committer, databases: Databases) -> None:
        payer, recipient = await make_funded_wallet(databases, 1_000), await make_funded_wallet(databases, 1)
        small = [
            batch_of([transfer_of(payer, recipient, 1) for _ in range(50)], is_all_or_nothing=True) for _ in range(2)
        ]
        await asyncio.gather(*(committer.ledger.execute(command) for command in small))
        assert [one.commands for one in committer.committed] == [2]

    async def test_that_the_database_refuses_falls_alone_and_whole(
        self, committer: Committer, databases: Databases
    ) -> None:
        payer, recipient = await make_funded_wallet(databases, 1_000), await make_funded_wallet(databases, 1)
        parts = [transfer_of(payer, recipient, 1) for _ in range(9)]
        # No record lives under such an id; the service never makes one.
        parts.insert(5, transfer_of(payer, recipient, 1, transfer_id="nowhere_1"))
        poisoned = batch_of(parts, is_all_or_nothing=False)
        commands = [*(transfer_of(payer, recipient, 1) for _ in range(20)), poisoned]
        commands += [transfer_of(payer, recipient, 1) for _ in range(20)]
        outcomes = await asyncio.gather(
            *(committer.ledger.execute(command) for command in commands), return_exceptions=True
        )
        assert isinstance(outcomes.pop(20), InternalError)
        assert not [one for one in outcomes if isinstance(one, BaseException)]
        assert ((await current(payer)).available, (await current(recipient)).available) == (960, 41)

    async def test_one_whose_wallet_is_lost_to_another_process_is_decided_again_whole(
        self, committer: Committer, databases: Databases, admin: Admin
    ) -> None:
        payer, recipient = await make_funded_wallet(databases, 15), await make_funded_wallet(databases, 1)
        large = batch_of([transfer_of(payer, recipient, 1) for _ in range(10)], is_all_or_nothing=False)
        with fail_point(admin, 2, failCommands=["update"], errorCode=112, errorLabels=["TransientTransactionError"]):
            decided = await asyncio.gather(
                committer.ledger.execute(large), committer.ledger.execute(transfer_of(payer, recipient, 5))
            )
        assert {one.answer.status_code for one in decided if one.answer is not None} == {201}
        assert ((await current(payer)).available, (await current(recipient)).available) == (0, 16)
        assert await databases.wallet["transfers"].count_documents({"user_id": payer.user_id}) == 11


class TestClients:
    async def test_one_that_goes_away_takes_nothing_back(self, committer: Committer, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 100)
        waiting = asyncio.create_task(committer.ledger.execute(withdrawal_of(wallet, 1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await committer.ledger.execute(withdrawal_of(wallet, 1))
        assert (await _wallet(databases, wallet.id))["held"] == 2

    async def test_a_full_queue_sends_them_away_with_a_time_to_come_back(self, databases: Databases) -> None:
        committer = Committer(databases.client, queue_limit=2)
        wallet = await make_funded_wallet(databases, 100)
        waiting = [asyncio.create_task(committer.ledger.execute(withdrawal_of(wallet, 1))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LedgerBusy) as refused:
            await committer.ledger.execute(withdrawal_of(wallet, 1))
        assert refused.value.retry_after_s == 1
        committer.ledger.start()
        await asyncio.gather(*waiting)
        await committer.ledger.close()

    async def test_a_large_batch_of_transfers_fills_the_queue_by_its_size(self, databases: Databases) -> None:
        committer = Committer(databases.client, queue_limit=50)
        sender, recipient = await make_funded_wallet(databases, 100), await make_funded_wallet(databases, 1)
        batch = batch_of([transfer_of(sender, recipient, 1) for _ in range(50)], is_all_or_nothing=True)
        waiting = asyncio.create_task(committer.ledger.execute(batch))
        await asyncio.sleep(0)
        with pytest.raises(LedgerBusy):
            await asyncio.wait_for(committer.ledger.execute(withdrawal_of(sender, 1)), 1)
        committer.ledger.start()
        await waiting
        await committer.ledger.execute(withdrawal_of(sender, 1))
        await committer.ledger.close()

    async def test_a_key_whose_first_request_is_being_committed_is_in_flight(
        self, committer: Committer, databases: Databases, admin: Admin
    ) -> None:
        wallet = await make_funded_wallet(databases, 100)
        command = withdrawal_of(wallet, 1)
        with fail_point(admin, 1, failCommands=["commitTransaction"], blockConnection=True, blockTimeMS=300):
            first = asyncio.create_task(committer.ledger.execute(command))
            await asyncio.sleep(0.15)
            with pytest.raises(IdempotencyKeyInFlight):
                await committer.ledger.execute(command)
            decided = await first
        again = await committer.ledger.execute(command)
        assert again.answer is not None
        assert decided.answer is not None
        assert again.answer == decided.answer._replace(replayed=True)

    async def test_who_has_waited_out_their_patience_is_sent_away_before_the_next_batch(
        self, databases: Databases
    ) -> None:
        committer = Committer(databases.client, patience_s=0.05)
        wallet = await make_funded_wallet(databases, 100)
        waiting = asyncio.create_task(committer.ledger.execute(withdrawal_of(wallet, 1)))
        await asyncio.sleep(0.1)
        committer.ledger.start()
        with pytest.raises(Unavailable):
            await waiting
        await committer.ledger.close()
        assert (await _wallet(databases, wallet.id))["held"] == 0

    async def test_who_has_waited_out_their_patience_takes_no_younger_one_along(
        self, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Users take turns, so that one batch has old and young ones. The old one wants a wallet that is locked."""
        patience_s = 60.0
        committer = Committer(databases.client, patience_s=patience_s)
        locked, free = await make_funded_wallet(databases, 100), await make_funded_wallet(databases, 100)
        monkeypatch.setattr("service.ledger.committer.perf_counter", lambda: perf_counter() - patience_s + 0.05)
        old = asyncio.create_task(committer.ledger.execute(withdrawal_of(locked, 1)))
        await asyncio.sleep(0)
        monkeypatch.undo()
        young = asyncio.create_task(committer.ledger.execute(withdrawal_of(free, 1)))
        await asyncio.sleep(0)
        async with databases.client.start_session() as session, await session.start_transaction():
            touched = {"$set": {"updated_at": utc_now()}}
            await databases.wallet["wallets"].update_one({"_id": locked.id}, touched, session=session)
            committer.ledger.start()
            with pytest.raises(Unavailable):
                await old
            assert (await young).error is None
            await session.abort_transaction()
        await committer.ledger.close()


class TestTroubleOfItsOwn:
    async def test_what_cannot_be_told_about_a_commit_changes_nothing_about_it(
        self, databases: Databases, caplog: pytest.LogCaptureFixture
    ) -> None:
        def tell(_committed: Committed) -> None:
            raise OSError("no space left on device")

        ledger = Ledger(databases.client, **_LIMITS, on_committed=tell)
        ledger.start()
        wallet = await make_funded_wallet(databases, 100)
        for _ in range(3):
            decided = await ledger.execute(withdrawal_of(wallet, 1))
            assert decided.answer is not None
            assert decided.answer.status_code == 202
        assert ledger.is_running()
        await ledger.close()
        assert (await _wallet(databases, wallet.id))["held"] == 3
        assert "no space left on device" in caplog.text

    @pytest.mark.parametrize("after_s", [0, 0.15], ids=["before its batch", "in the middle of its commit"])
    async def test_when_its_loop_ends_nobody_is_left_waiting(
        self, databases: Databases, admin: Admin, after_s: float
    ) -> None:
        ledger = Committer(databases.client).ledger
        ledger.start()
        wallet = await make_funded_wallet(databases, 100)
        with fail_point(admin, 1, failCommands=["commitTransaction"], blockConnection=True, blockTimeMS=500):
            waiting = asyncio.create_task(ledger.execute(withdrawal_of(wallet, 1)))
            await asyncio.sleep(after_s)
            assert ledger._runner is not None
            ledger._runner.cancel()
            with pytest.raises(Unavailable):
                await asyncio.wait_for(waiting, 5)
        assert not ledger.is_running()
        with pytest.raises(Unavailable):
            await ledger.execute(withdrawal_of(wallet, 1))


class TestTroubleWithTheServer:
    @pytest.mark.parametrize(
        "trouble",
        [
            {"failCommands": ["insert"], "errorCode": 112, "errorLabels": ["TransientTransactionError"]},
            {"failCommands": ["find"], "closeConnection": True},
            {"failCommands": ["commitTransaction"], "closeConnection": True},
            {
                "failCommands": ["commitTransaction"],
                "writeConcernError": {"code": 64, "errmsg": "the outcome is not known"},
                "errorLabels": ["UnknownTransactionCommitResult"],
            },
            {"failCommands": ["commitTransaction"], "errorCode": 251, "errorLabels": ["TransientTransactionError"]},
        ],
        ids=["write conflict", "lost connection", "lost at commit", "commit unknown", "no such transaction"],
    )
    async def test_it_passes_and_every_command_has_run_once(
        self,
        committer: Committer,
        databases: Databases,
        admin: Admin,
        trouble: dict[str, Any],
    ) -> None:
        wallet = await make_funded_wallet(databases, 100)
        with fail_point(admin, 3, **trouble):
            decided = await asyncio.gather(*(committer.ledger.execute(withdrawal_of(wallet, 1)) for _ in range(10)))
        assert all(one.answer is not None and one.answer.status_code == 202 for one in decided)
        row = await _wallet(databases, wallet.id)
        assert (row["available"], row["held"], row["seq"]) == (90, 10, 11)
        if "UnknownTransactionCommitResult" in trouble.get("errorLabels", ()):
            # The commit alone is repeated; running the batch again would be safe, but slower.
            assert sum(one.conflicts for one in committer.committed) == 0

    @pytest.mark.parametrize(
        "trouble",
        [
            {"failCommands": ["update"], "errorCode": 11601},
            {
                "failCommands": ["commitTransaction"],
                "writeConcernError": {"code": 11601, "errmsg": "operation was interrupted"},
            },
        ],
        ids=["while it wrote", "while it committed"],
    )
    async def test_one_that_was_interrupted_runs_once(
        self, committer: Committer, databases: Databases, admin: Admin, trouble: dict[str, Any]
    ) -> None:
        """As killSessions does it to a process that was taken for dead. Neither server nor driver labels that."""
        wallet = await make_funded_wallet(databases, 100)
        with fail_point(admin, 2, errorLabels=[], **trouble):
            decided = await committer.ledger.execute(withdrawal_of(wallet, 1))
        assert decided.given.status_code == 202
        assert ((await current(wallet)).available, (await current(wallet)).seq) == (99, 2)

    @pytest.mark.parametrize(
        ("trouble", "locks_first", "longest_pause_s"),
        [
            ({"closeConnection": True}, [False] * 5, 0.25),
            ({"errorCode": 112, "errorLabels": ["TransientTransactionError"]}, [False, False, True, True, True], 0.03),
        ],
        ids=["outages", "lost races"],
    )
    async def test_only_lost_races_make_it_lock_first_and_come_back_soon(
        self,
        committer: Committer,
        databases: Databases,
        admin: Admin,
        monkeypatch: pytest.MonkeyPatch,
        trouble: dict[str, Any],
        locks_first: list[bool],
        longest_pause_s: float,
    ) -> None:
        attempts: list[bool] = []
        limits_s: list[float] = []

        async def watched(session: Any, commands: Any, policy: Policy, own: Any, attempt: Attempt) -> Any:
            attempts.append(attempt.locks_first)
            return await prepare(session, commands, policy, own, attempt)

        def pause(_tries: int, max_s: float) -> float:
            limits_s.append(max_s)
            return 0.0

        wallet = await make_funded_wallet(databases, 100)
        monkeypatch.setattr("service.ledger.committer.prepare", watched)
        monkeypatch.setattr("service.ledger.committer._backoff_s", pause)
        with fail_point(admin, 4, failCommands=["insert"], **trouble):
            await committer.ledger.execute(withdrawal_of(wallet, 1))
        assert attempts == locks_first
        assert limits_s[-1] == longest_pause_s

    async def test_when_it_lasts_clients_are_told_and_the_same_key_still_runs_once(
        self, databases: Databases, admin: Admin
    ) -> None:
        committer = Committer(databases.client, patience_s=0.3)
        committer.ledger.start()
        wallet = await make_funded_wallet(databases, 100)
        command = withdrawal_of(wallet, 1)
        with (
            fail_point(
                admin,
                1000,
                failCommands=["commitTransaction"],
                writeConcernError={"code": 64, "errmsg": "the outcome is not known"},
                errorLabels=["UnknownTransactionCommitResult"],
            ),
            pytest.raises(Unavailable) as refused,
        ):
            await committer.ledger.execute(command)
        assert refused.value.retry_after_s == 1
        again = await committer.ledger.execute(command)
        await committer.ledger.close()
        assert again.answer is not None
        assert again.answer.status_code == 202
        assert (await _wallet(databases, wallet.id))["held"] == 1


class ForgetfulRouter:
    """Forwards to a server; told to, it drops whatever those say that have logged in, and breaks nothing off.

    What only looks after the server's health goes through all the while, as when single connections are lost.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._logged_in: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()

    def forget(self) -> int:
        """How many connections that are there now lead nowhere from here on."""
        self._forgotten |= {writer for writer in self._logged_in if not writer.is_closing()}
        return len(self._forgotten)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, to_server]
        await asyncio.gather(self._forward(reader, to_server, to_server), self._forward(from_server, writer, to_server))

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: asyncio.StreamWriter
    ) -> None:
        try:
            while said := await reader.read(65_536):
                if b"saslStart" in said:
                    self._logged_in.add(connection)
                if connection not in self._forgotten:
                    writer.write(said)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class TestAConnectionThatLeadsNowhere:
    async def test_holds_the_ledger_up_no_longer_than_its_own_time(
        self, servers: Servers, settings: Settings, databases: Databases
    ) -> None:
        """Neither the attempt nor taking it back waits for an answer that never comes."""
        wallet = await make_funded_wallet(databases, 100)
        router = ForgetfulRouter(servers.mongo.port)
        async with await asyncio.start_server(router.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = settings.mongo_url.get_secret_value().replace(f":{servers.mongo.port}/", f":{port}/")
            routed = connect(f"{url}&directConnection=true", settings)
            await bind_documents(routed)
            committer = Committer(routed.client, patience_s=0.1)
            committer.ledger.start()
            try:
                await committer.ledger.execute(withdrawal_of(wallet, 1))
                await asyncio.gather(*(routed.wallet["wallets"].find_one() for _ in range(10)))
                # One for the attempt, one for taking it back.
                assert router.forget() >= 2
                with pytest.raises(Unavailable):
                    await asyncio.wait_for(committer.ledger.execute(withdrawal_of(wallet, 1)), 15)
            finally:
                router.close()
                await committer.ledger.close()
                await bind_documents(databases)
                await routed.client.close()
        assert (await _wallet(databases, wallet.id))["held"] == 1


class Writes(monitoring.CommandListener):
    """Notes every write that a client sends."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bool]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in ("insert", "update", "delete", "findAndModify", "bulkWrite"):
            in_transaction = event.command.get("autocommit") is False and "txnNumber" in event.command
            self.seen.append((event.command_name, event.command[event.command_name], in_transaction))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing to note."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing to note."""


class Commands(Writes):
    """Notes every collection that a client reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in ("find", "aggregate"):
            self.read.append(event.command[event.command_name])


class TestTheTransaction:
    async def test_every_write_of_the_ledger_is_inside_it(self, settings: Settings, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 100)
        listener = Writes()
        watched = connect(settings.mongo_url.get_secret_value(), settings, listeners=[listener])
        committer = Committer(watched.client)
        await bind_documents(watched)
        try:
            committer.ledger.start()
            await committer.ledger.execute(withdrawal_of(wallet, 1))
            await committer.ledger.close()
        finally:
            await bind_documents(databases)
            await watched.client.close()
        # The heartbeat is nobody's money.
        seen = [one for one in listener.seen if one[1] != "ledger_processes"]
        assert sorted({collection for _, collection, _ in seen}) == [
            "events",
            "house_positions",
            "idempotency_keys",
            "outbox",
            "transaction_logs",
            "wallets",
            "withdrawals",
        ]
        assert all(in_transaction for _, _, in_transaction in seen)


class TestTheLog:
    async def test_the_service_itself_can_neither_change_nor_delete_an_entry(self, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 100)
        entries = databases.wallet["transaction_logs"]
        for attempt in (
            entries.update_one({"wallet_id": wallet.id}, {"$set": {"amount": 1}}),
            entries.delete_one({"wallet_id": wallet.id}),
            entries.drop(),
            entries.find_one_and_replace({"wallet_id": wallet.id}, {"amount": 1}),
        ):
            with pytest.raises(OperationFailure, match="not authorized") as refused:
                await attempt
            assert refused.value.code == 13
        assert await entries.count_documents({"wallet_id": wallet.id}) == 1

    async def test_reads_nothing_for_tombstones_of_a_new_key(self, settings: Settings, databases: Databases) -> None:
        wallet = await make_funded_wallet(databases, 100)
        listener = Commands()
        watched = connect(settings.mongo_url.get_secret_value(), settings, listeners=[listener])
        committer = Committer(watched.client)
        await bind_documents(watched)
        try:
            committer.ledger.start()
            made = withdrawal_of(wallet, 1)
            claim = made.claim
            assert claim is not None
            await committer.ledger.execute(replace(made, claim=claim._replace(key_hashes=("a" * 32,))))
            await committer.ledger.close()
        finally:
            await bind_documents(databases)
            await watched.client.close()
        # The first of a process reads its portion of what the bank has. The API that all tests share looks each second
        # for sessions that were ended.
        assert sorted(set(listener.read) - {"ledger_processes", "house_positions", "sessions"}) == [
            "idempotency_keys",
            "users",
            "wallets",
        ]
