"""The seed: repeat-safe, with balances that are real deposits, and quick enough for a load test."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64
from passlib.hash import argon2  # type: ignore[import-untyped]  # libpass ships no types

from scripts.check_ledger import check_ledger
from seed.demo_users import DEMO_USERS
from seed.demo_vouchers import DEMO_VOUCHERS
from seed.load_users import PASSWORD
from service.database import Databases, connect, set_up
from service.domain.sealed import Sealed, SealedField
from service.services.passwords import refuse_weak_password
from service.services.sealing import open_sealed
from service.settings import Settings
from tests.commands import Ended, run_module
from tests.servers import Servers, make_settings
from tests.test_settings import PRODUCTION, STAND_INS

ROOT = Path(__file__).resolve().parents[2]
_COLLECTIONS = ("users", "wallets", "deposits", "transaction_logs", "idempotency_keys", "outbox", "vouchers")


@pytest.fixture
async def own(servers: Servers) -> AsyncIterator[tuple[Settings, Databases]]:
    """A database of its own for each test, as the service's own user sees it."""
    settings = make_settings(servers)
    await set_up(settings)
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    yield settings, databases
    await databases.client.close()


@pytest.fixture(scope="module")
async def seeded(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Settings, Databases]]:
    """A database with the demo users, for tests that leave it as it was."""
    settings = make_settings(servers)
    await set_up(settings)
    databases = connect(settings.mongo_url.get_secret_value(), settings)
    ended = await seed(settings, tmp_path_factory.mktemp("seeded"))
    assert ended.status == 0, ended.err
    yield settings, databases
    await databases.client.close()


async def seed(settings: Settings, folder: Path, *arguments: str, **environment: str) -> Ended:
    return await run_module(settings, folder, "seed", *arguments, **environment)


async def everything(databases: Databases) -> dict[str, list[dict[str, Any]]]:
    found = {name: await databases.wallet[name].find(sort=[("_id", 1)]).to_list() for name in _COLLECTIONS}
    found["orders"] = await databases.bank["orders"].find(sort=[("_id", 1)]).to_list()
    return found


async def balances(databases: Databases) -> dict[tuple[str, str], int]:
    emails = {user["_id"]: user["email"] for user in await databases.wallet["users"].find().to_list()}
    wallets = await databases.wallet["wallets"].find().to_list()
    assert all(wallet["held"] == 0 for wallet in wallets)
    return {(emails[wallet["user_id"]], wallet["currency"]): wallet["available"] for wallet in wallets}


class TestDemoUsers:
    async def test_they_have_their_balances_and_roles_and_the_ledger_is_sound(
        self, seeded: tuple[Settings, Databases]
    ) -> None:
        _settings, databases = seeded
        assert await balances(databases) == {
            ("asha@example.com", "INR"): 10_000_000,
            ("asha@example.com", "USD"): 250_000,
            ("bo@example.com", "INR"): 2_500_000,
            ("chen@example.com", "INR"): 30_000,
            ("dina@example.com", "INR"): 0,
            ("ines@example.com", "INR"): 0,
            ("jonas@example.com", "INR"): 0,
            ("relay@example.com", "INR"): 0,
            ("vera@example.com", "INR"): 0,
        }
        users = await databases.wallet["users"].find({"roles": {"$ne": ["user"]}}, sort=[("email", 1)]).to_list()
        assert [(user["email"], user["roles"]) for user in users] == [
            ("ines@example.com", ["user", "admin"]),
            ("jonas@example.com", ["user", "admin"]),
            ("relay@example.com", ["user", "service"]),
        ]
        payments = [order["payments"] async for order in databases.bank["orders"].find()]
        assert [len(payment) for payment in payments] == [1, 1, 1, 1]
        assert await check_ledger(databases) == []

    async def test_a_second_run_changes_nothing_at_all(
        self, seeded: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = seeded
        first = await everything(databases)
        ended = await seed(settings, tmp_path)
        assert ended.status == 0, ended.err
        assert await everything(databases) == first

    async def test_the_passwords_in_credentials_md_are_theirs_and_would_be_accepted_from_anyone(
        self, seeded: tuple[Settings, Databases]
    ) -> None:
        settings, databases = seeded
        page = (ROOT / "CREDENTIALS.md").read_text()
        for registration, *_, totp_secret in DEMO_USERS:
            assert f"| {registration.email} | `{registration.password}` |" in page
            refuse_weak_password(registration.password, registration.email, registration[:2])
            user = await databases.wallet["users"].find_one({"email": registration.email})
            assert user is not None
            assert argon2.verify(registration.password, user["password_hash"])
            enrolment = await databases.wallet["totp_enrolments"].find_one({"_id": user["_id"]})
            assert (enrolment is not None) is (totp_secret is not None)
            if enrolment is not None:
                assert f"`{totp_secret}`" in page
                sealed = Sealed(**enrolment["sealed_secret"])
                assert open_sealed(settings, sealed, SealedField.TOTP_SECRET, user["_id"]) == totp_secret

    async def test_the_vouchers_of_credentials_md_are_in_the_catalogue(
        self, seeded: tuple[Settings, Databases]
    ) -> None:
        _settings, databases = seeded
        page = (ROOT / "CREDENTIALS.md").read_text()
        found = await databases.wallet["vouchers"].find(sort=[("_id", 1)]).to_list()
        assert [(row["title"], row["cost"], row["stock"]) for row in found] == [
            (order.title, order.cost, order.stock) for order in DEMO_VOUCHERS
        ]
        for order in DEMO_VOUCHERS:
            assert f"| {order.title} | {order.cost} | {order.stock} |" in page

    async def test_two_seeds_at_once_leave_what_one_would(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        both = await asyncio.gather(seed(settings, tmp_path), seed(settings, tmp_path))
        assert [ended.status for ended in both] == [0, 0], both
        assert await databases.wallet["users"].count_documents({}) == len(DEMO_USERS)
        assert await databases.wallet["deposits"].count_documents({"status": "success"}) == 4
        assert await databases.wallet["vouchers"].count_documents({}) == len(DEMO_VOUCHERS)
        assert await check_ledger(databases) == []

    @pytest.mark.parametrize("bank_state", ["success", "accepted"])
    async def test_a_deposit_that_an_earlier_seed_or_a_worker_left_open_is_brought_to_its_end(
        self, seeded: tuple[Settings, Databases], tmp_path: Path, bank_state: str
    ) -> None:
        settings, databases = seeded
        done = await balances(databases)
        await _forget_settlements(settings, bank_state)
        assert await databases.wallet["deposits"].count_documents({"status": "pending"}) == 4
        ended = await seed(settings, tmp_path)
        assert ended.status == 0, ended.err
        assert await balances(databases) == done
        assert await check_ledger(databases) == []

    async def test_it_refuses_to_run_in_production_unless_told_twice(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        secrets = {f"WALLET_{name.upper()}": secret.get_secret_value() for name, secret in PRODUCTION.items()}
        wanted = {f"WALLET_{name.upper()}": "true" for name in STAND_INS}
        production = {"WALLET_ENV": "production", **secrets, **wanted}
        refused = await seed(settings, tmp_path, **production)
        assert refused.status == 2
        assert "--yes-production" in refused.err
        assert await databases.wallet["users"].count_documents({}) == 0
        told_twice = await seed(settings, tmp_path, "--yes-production", **production)
        assert told_twice.status == 0, told_twice.err
        for warning in ("bank.is_simulated", "mailbox.is_a_file"):
            assert warning in told_twice.out
        assert await databases.wallet["users"].count_documents({}) == len(DEMO_USERS)


async def _forget_settlements(settings: Settings, bank_state: str) -> None:
    """As if the seed had been killed after the bank has taken or executed the orders: only an administrator can."""
    assert settings.mongo_admin_url is not None
    admin = connect(settings.mongo_admin_url.get_secret_value(), settings)
    try:
        await admin.wallet["outbox"].delete_many({"topic": "reward"})
        # The next start tells from the books what the accounts of the house can give.
        await admin.wallet["house_positions"].delete_many({})
        for deposit in await admin.wallet["deposits"].find().to_list():
            await admin.wallet["outbox"].insert_one(
                {
                    "_id": f"bank_order:{deposit['_id']}",
                    "topic": "bank_order",
                    "subject_id": deposit["_id"],
                    "attempts": 0,
                    "request_id": None,
                    "due_at": deposit["created_at"],
                    "created_at": deposit["created_at"],
                }
            )
        await admin.wallet["deposits"].update_many({}, {"$set": {"status": "pending", "bank_reference": None}})
        if bank_state == "accepted":
            await admin.bank["orders"].update_many({}, {"$set": {"state": bank_state, "payments": []}})
        await admin.wallet["transaction_logs"].delete_many({})
        empty = {
            "$bit": {"available": {"and": 0}, "seq": {"and": 0}},
            "$set": {"head_hash": "0" * 64, "open_operations": Int64(1)},
        }
        funded = await admin.wallet["deposits"].distinct("wallet_id")
        await admin.wallet["wallets"].update_many({"_id": {"$in": funded}}, empty)
    finally:
        await admin.client.close()


class TestLoadUsers:
    async def test_each_has_a_wallet_and_the_balance_and_all_share_one_hash(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        ended = await seed(settings, tmp_path, "--users", "300", "--balance", "12345")
        assert ended.status == 0, ended.err
        found = await balances(databases)
        assert found == {(f"load-{number:06}@example.com", "INR"): 12_345 for number in range(1, 301)}
        hashes = await databases.wallet["users"].distinct("password_hash")
        assert len(hashes) == 1
        assert argon2.verify(PASSWORD, hashes[0])
        assert PASSWORD in (ROOT / "CREDENTIALS.md").read_text()
        assert await check_ledger(databases) == []

    async def test_a_larger_run_adds_the_missing_ones_and_leaves_the_others_as_they_are(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        await seed(settings, tmp_path, "--users", "20", "--balance", "500")
        first = await everything(databases)
        ended = await seed(settings, tmp_path, "--users", "30", "--balance", "500")
        assert ended.status == 0, ended.err
        assert len(await balances(databases)) == 30
        second = await everything(databases)
        for name, rows in first.items():
            assert [row for row in second[name] if row["_id"] in {row["_id"] for row in rows}] == rows
        assert await check_ledger(databases) == []

    async def test_a_run_with_another_balance_says_who_keeps_theirs(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        await seed(settings, tmp_path, "--users", "3", "--balance", "500")
        ended = await seed(settings, tmp_path, "--users", "4", "--balance", "700")
        assert ended.status == 0, ended.err
        assert "3 of them keep another balance" in ended.out
        assert sorted((await balances(databases)).values()) == [500, 500, 500, 700]

    async def test_another_currency_is_a_further_wallet_of_the_same_users(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        await seed(settings, tmp_path, "--users", "2", "--balance", "500")
        await seed(settings, tmp_path, "--users", "2", "--balance", "900", "--currency", "USD")
        assert await databases.wallet["users"].count_documents({}) == 2
        assert (await balances(databases))["load-000002@example.com", "USD"] == 900

    async def test_the_ledger_is_sound_at_every_moment_of_a_run(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        running = asyncio.create_task(seed(settings, tmp_path, "--users", "600", "--balance", "500"))
        looks = 0
        while not running.done():
            assert await check_ledger(databases) == []
            looks += 1
        assert (await running).status == 0
        assert looks > 3
        records = await databases.wallet["idempotency_keys"].find().to_list()
        assert len({json.loads(record["body"])["id"] for record in records}) == 600

    async def test_what_is_no_currency_or_no_amount_is_refused_before_anything_happens(
        self, own: tuple[Settings, Databases], tmp_path: Path
    ) -> None:
        settings, databases = own
        wrong = await asyncio.gather(
            seed(settings, tmp_path, "--users", "2", "--currency", "QQQ"),
            seed(settings, tmp_path, "--users", "2", "--balance", "0"),
            seed(settings, tmp_path, "--users", "1000000"),
        )
        assert [ended.status for ended in wrong] == [2, 2, 2]
        assert await databases.wallet["users"].count_documents({}) == 0
