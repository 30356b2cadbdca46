"""The set-up: repeatable, complete, and the service's own user may do little. And servers that fall silent."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pymongo
import pytest
from bson.int64 import Int64
from bson.json_util import dumps
from pydantic import SecretStr
from pymongo.errors import OperationFailure, WriteError

from service.database import OUTAGES, Databases, OldData, connect, set_up
from service.documents import BANK_DOCUMENTS, WALLET_DOCUMENTS
from service.domain.clock import utc_now
from service.services.account_sums import SUMMING_LIMIT_S
from service.settings import Settings
from service.transaction_lifetime import TRANSACTION_LIFETIME_S, LifetimeWatch, limit_transactions
from tests.logs import own_logs
from tests.servers import Admin, Servers, fail_point, make_settings


class TestSetUp:
    async def test_can_be_repeated_and_then_changes_nothing(self, settings: Settings, admin: Admin) -> None:
        def shape() -> str:
            database = admin[settings.database]
            collections = {
                name: (database[name].options(), database[name].index_information())
                for name in database.list_collection_names()
            }
            return dumps(collections, sort_keys=True)

        before = shape()
        lines = await set_up(settings)
        assert shape() == before
        assert any("up to date" in line for line in lines)

    async def test_refuses_data_that_it_cannot_go_on_with_and_leaves_them_alone(
        self, servers: Servers, admin: Admin
    ) -> None:
        settings = make_settings(servers)
        admin[settings.database]["wallets"].insert_one({"_id": "wal_of_version_0_1", "available": Int64(5)})
        with pytest.raises(OldData, match=r"version 0\.1"):
            await set_up(settings)
        assert admin[settings.database].list_collection_names() == ["wallets"]

    async def test_refuses_accounts_in_clear(self, servers: Servers, admin: Admin) -> None:
        settings = make_settings(servers)
        admin[settings.database]["withdrawals"].insert_one(
            {"_id": "wdr_of_version_0_2", "account": "bank-account-0001"}
        )
        with pytest.raises(OldData, match=r"version 0\.2"):
            await set_up(settings)
        assert admin[settings.database].list_collection_names() == ["withdrawals"]

    def test_makes_every_collection_with_its_indexes(self, settings: Settings, admin: Admin) -> None:
        for database, documents in ((settings.database, WALLET_DOCUMENTS), (settings.bank_database, BANK_DOCUMENTS)):
            for document in documents:
                declared: Any = document.Settings
                found = set(admin[database][declared.name].index_information())
                assert found == {"_id_", *(index.document["name"] for index in declared.indexes)}

    def test_bounds_what_a_killed_process_may_lock(self, settings: Settings, admin: Admin) -> None:
        assert settings.database
        answer = admin.admin.command({"getParameter": 1, "transactionLifetimeLimitSeconds": 1})
        assert answer["transactionLifetimeLimitSeconds"] == TRANSACTION_LIFETIME_S

    async def test_warns_where_a_killed_process_would_keep_others_waiting_and_it_may_not_change_that(
        self, servers: Servers, admin: Admin
    ) -> None:
        """As on somebody's own cluster, whose parameters are its provider's."""
        roles = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "userAdminAnyDatabase", "clusterMonitor"]
        admin.admin.command("createUser", "guest", pwd="guest", roles=roles)
        url = re.sub(r"//[^@]*@", "//guest:guest@", servers.mongo.admin_url)
        settings = make_settings(servers).model_copy(update={"mongo_admin_url": SecretStr(url)})
        admin.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)
        try:
            with own_logs() as lines:
                told = [line for line in await set_up(settings) if line.startswith("transactions:")]
        finally:
            admin.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=TRANSACTION_LIFETIME_S)
            admin.admin.command("dropUser", "guest")
        assert "WARNING: transactionLifetimeLimitSeconds is 60 s" in told[0]
        (warning,) = [line for line in lines if line["event"] == "database.transactions_live_long"]
        assert (warning["log_level"], warning["found_s"], warning["wanted_s"]) == ("warning", 60, 5)

    async def test_logs_in_at_each_member_by_the_database_that_the_url_names(
        self, servers: Servers, settings: Settings, admin: Admin
    ) -> None:
        """Where no authSource is named, that database is where the user is."""
        users = admin["users_of_somebody"]
        users.command("createUser", "guest", pwd="guest", roles=[{"role": "root", "db": "admin"}])
        url = re.sub(r"//[^@]*@", "//guest:guest@", servers.mongo.admin_url)
        url = url.replace("/?authSource=admin&", f"/{users.name}?")
        admin.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)
        try:
            told = await set_up(settings.model_copy(update={"mongo_admin_url": SecretStr(url)}))
        finally:
            admin.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=TRANSACTION_LIFETIME_S)
            users.command("dropUser", "guest")
        assert f"transactions: ended by the server after {TRANSACTION_LIFETIME_S} s" in told

    async def test_says_so_where_a_member_refuses_the_login(self, databases: Databases, servers: Servers) -> None:
        url = re.sub(r"//[^@]*@", "//guest:wrong@", servers.mongo.admin_url)
        with own_logs() as lines:
            told = await limit_transactions(databases.client, url)
        assert re.search(r"is not known on [\w.:]+, which refuses the login, and was not set there", told)
        (warning,) = [line for line in lines if line["event"] == "database.transactions_live_long"]
        assert warning["error"] == "refuses the login"

    async def test_says_so_where_a_member_answers_with_another_error(
        self, databases: Databases, servers: Servers, admin: Admin
    ) -> None:
        with fail_point(admin, 10, failCommands=["setParameter"], errorCode=8, appName="wallet-service"):
            told = await limit_transactions(databases.client, servers.mongo.admin_url)
        assert ", which answers with error 8, and" in told

    async def test_a_process_warns_at_its_start_of_a_server_that_nobody_has_set_up(
        self, databases: Databases, admin: Admin
    ) -> None:
        """As its own user, which may do little."""
        admin.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)
        watch = LifetimeWatch(databases.client)
        try:
            with own_logs() as lines:
                await watch.look()
                await watch.look()
        finally:
            admin.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=TRANSACTION_LIFETIME_S)
        (warning,) = [line for line in lines if line["event"] == "database.transactions_live_long"]
        assert (warning["log_level"], warning["found_s"]) == ("warning", 60)
        with own_logs() as lines:
            await watch.look()
        assert lines == []

    async def test_says_where_a_dead_primary_would_cost_more_time_than_it_has_to(
        self, settings: Settings, admin: Admin
    ) -> None:
        async def said() -> str:
            (line,) = [line for line in await set_up(settings) if line.startswith("elections:")]
            return line

        assert await said() == "elections: after 2 s without a primary"
        config = admin.admin.command("replSetGetConfig")["config"]
        mongodbs_own = config["settings"] | {"electionTimeoutMillis": 10_000, "catchUpTimeoutMillis": -1}
        admin.admin.command("replSetReconfig", config | {"settings": mongodbs_own, "version": config["version"] + 1})
        try:
            line = await said()
        finally:
            admin.admin.command("replSetReconfig", config | {"version": config["version"] + 2})
        assert "electionTimeoutMillis is 10000, catchUpTimeoutMillis is -1" in line
        assert "Failover" in line


class TestTheServicesUser:
    async def test_may_neither_create_nor_delete_nor_look_around(self, databases: Databases) -> None:
        for attempt in (
            databases.wallet.create_collection("another", check_exists=False),
            databases.wallet["wallets"].create_index("status"),
            databases.wallet["wallets"].drop(),
            databases.wallet["lazily_created"].insert_one({}),
            databases.client["admin"]["system.users"].find_one(),
            databases.client["another"]["x"].insert_one({}),
            databases.wallet["wallets"].delete_one({"_id": "wal_x"}),
            databases.wallet["users"].delete_one({"_id": "usr_x"}),
            databases.wallet["idempotency_keys"].delete_one({"_id": "x"}),
            databases.wallet["account_sums"].delete_one({"_id": utc_now()}),
            databases.wallet["account_sums"].update_one({"_id": utc_now()}, {"$set": {"sums": []}}),
            databases.wallet["account_corrections"].delete_one({"_id": 1}),
            databases.wallet["account_corrections"].update_one({"_id": 1}, {"$set": {"sums": []}}),
            databases.wallet["checkpoints"].update_one({"_id": 1}, {"$set": {"root": "0" * 64}}),
            databases.wallet["checkpoints"].delete_one({"_id": 1}),
            databases.wallet["checkpoint_tiles"].update_one({"_id": "x"}, {"$set": {"seqs": []}}),
            databases.wallet["checkpoint_tiles"].delete_one({"_id": "x"}),
            databases.bank["orders"].delete_one({"_id": "x"}),
        ):
            with pytest.raises(OperationFailure) as refused:
                await attempt
            assert refused.value.code == 13


class TestValidators:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"available": Int64(-1)},
            {"held": Int64(-1)},
            {"available": 1.5},
            {"available": 5},  # an int32 would wrap
            {"status": "generous"},
            {"head_hash": "short"},
        ],
        ids=str,
    )
    async def test_a_wallet_that_cannot_be_is_refused_by_the_database_itself(
        self, databases: Databases, wrong: dict[str, Any]
    ) -> None:
        now = utc_now()
        wallet = {
            "_id": f"wal_{wrong}",
            "user_id": f"usr_{wrong}",
            "currency": "INR",
            "available": Int64(0),
            "held": Int64(0),
            "status": "active",
            "seq": Int64(0),
            "head_hash": "0" * 64,
            "created_at": now,
            "updated_at": now,
        }
        with pytest.raises(WriteError) as refused:
            await databases.wallet["wallets"].insert_one(wallet | wrong)
        assert refused.value.code == 121


# What a connection carries that from then on nobody hears of again.
_LAST_WORDS = "last-words"
_SILENCE_S = 0.2
_SOON_S = 20.0
_ALL = 1000


@asynccontextmanager
async def _losing_connections(url: str) -> AsyncIterator[str]:
    """MongoDB behind something that forgets some connections and tells neither side; its URL."""
    server = pymongo.uri_parser.parse_uri(url)["nodelist"][0]
    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while (data := await reader.read(65_536)) and _LAST_WORDS.encode() not in data:
                writer.write(data)
            if not data:
                writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*server)
        writers.extend((writer, to_server))
        await asyncio.gather(forward(reader, to_server), forward(from_server, writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    try:
        yield url.replace(f":{server[1]}/", f":{port}/") + "&directConnection=true"
    finally:
        proxy.close()
        for writer in writers:
            writer.close()


@asynccontextmanager
async def _impatient(url: str, settings: Settings) -> AsyncIterator[Databases]:
    databases = connect(url, settings, silence_s=_SILENCE_S)
    try:
        yield databases
    finally:
        await databases.client.close()


@pytest.mark.usefixtures("databases")
class TestSilence:
    async def test_ends_a_plain_read_with_an_outage(self, settings: Settings) -> None:
        async with (
            _losing_connections(settings.mongo_url.get_secret_value()) as url,
            _impatient(url, settings) as databases,
        ):
            wallets = databases.wallet["wallets"]
            assert await wallets.find_one({"_id": "first words"}) is None
            with pytest.raises(OUTAGES):
                await asyncio.wait_for(wallets.find_one({"_id": _LAST_WORDS}), _SOON_S)
            # On another connection.
            assert await wallets.find_one({"_id": "first words again"}) is None

    async def test_that_is_work_is_waited_for_by_whoever_says_so(self, settings: Settings, admin: Admin) -> None:
        slow = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": int(4 * _SILENCE_S * 1000)}
        async with _impatient(settings.mongo_url.get_secret_value(), settings) as databases:
            find_one = databases.wallet["wallets"].find_one
            # The driver tries a read twice, and others of that name may read meanwhile.
            with fail_point(admin, _ALL, **slow, appName="wallet-service"), pytest.raises(OUTAGES):
                await find_one({"_id": "slow"})
            with fail_point(admin, _ALL, **slow, appName="wallet-service"), pymongo.timeout(_SOON_S):
                assert await find_one({"_id": "slow"}) is None

    def test_is_borne_longer_than_anything_of_the_services_takes(self, databases: Databases) -> None:
        bound_s = databases.client.options.pool_options.socket_timeout
        assert bound_s is not None
        assert bound_s > SUMMING_LIMIT_S
