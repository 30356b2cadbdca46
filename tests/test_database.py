"""The set-up: repeatable, complete, and the service's own user may do little."""

from typing import Any

import pytest
from bson.int64 import Int64
from bson.json_util import dumps
from pymongo.errors import OperationFailure, WriteError

from service.database import TRANSACTION_LIFETIME_S, Databases, OldData, set_up
from service.documents import BANK_DOCUMENTS, WALLET_DOCUMENTS
from service.domain.clock import utc_now
from service.settings import Settings
from tests.servers import Admin, Servers, make_settings


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
