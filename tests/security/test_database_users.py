"""Each user of MongoDB does what it is for: the service's neither reads nor writes the bank's journal."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo.errors import OperationFailure

from scripts.check_ledger import check_ledger
from seed.deposits import StartingBalance, deposit_once
from service.database import Databases, connect
from service.settings import Settings
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.factories import make_user, make_wallet
from tests.servers import Servers

_NOT_AUTHORIZED = 13
_NO_STREAM = "&serverMonitoringMode=poll"


@pytest.fixture
async def books(servers: Servers, resources: Resources) -> AsyncIterator[OwnBooks]:
    def url_of(name: str) -> SecretStr:
        return SecretStr(servers.mongo.url_for(name, "a-password-of-this-test") + _NO_STREAM)

    own = {"bank_mongo_url": url_of("bank_of_this_test"), "audit_mongo_url": url_of("auditor_of_this_test")}
    async with own_books(servers, resources, mongo_url=url_of("service_of_this_test"), **own) as opened:
        yield opened


async def as_user(url: SecretStr | None, settings: Settings) -> Databases:
    """One client for both databases, whoever it is."""
    assert url is not None
    return connect(url.get_secret_value(), settings.model_copy(update={"bank_mongo_url": None}))


async def refusals(databases: Databases) -> set[tuple[str, str]]:
    """What this user may not do with an account's order at the bank, a wallet and an entry."""
    refused: set[tuple[str, str]] = set()
    for database, name in ((databases.bank, "orders"), (databases.wallet, "wallets"), (databases.wallet, "users")):
        deeds: dict[str, Any] = {
            "find": lambda rows: rows.find_one({}),
            "insert": lambda rows: rows.insert_one({"_id": "x"}),
            "update": lambda rows: rows.update_one({"_id": "nobody"}, {"$set": {"amount": 1}}),
            "remove": lambda rows: rows.delete_one({"_id": "nobody"}),
        }
        for deed, do in deeds.items():
            try:
                await do(database[name])
            except OperationFailure as error:
                # What a validator refuses was let through.
                refused |= {(name, deed)} if error.code == _NOT_AUTHORIZED else set()
    return refused


_ALL = {"find", "insert", "update", "remove"}


class TestUsersOfTheDatabase:
    async def test_do_what_they_are_for_and_nothing_else(self, books: OwnBooks) -> None:
        settings = books.resources.settings
        expected = {
            "mongo_url": {("orders", deed) for deed in _ALL} | {("wallets", "remove"), ("users", "remove")},
            "bank_mongo_url": {(name, deed) for name in ("wallets", "users") for deed in _ALL} | {("orders", "remove")},
            "audit_mongo_url": {(name, deed) for name in ("orders", "wallets", "users") for deed in _ALL - {"find"}},
        }
        for name, wanted in expected.items():
            databases = await as_user(getattr(settings, name), settings)
            try:
                assert await refusals(databases) == wanted, name
            finally:
                await databases.close()

    async def test_together_run_the_bank_and_check_the_books(self, books: OwnBooks) -> None:
        settings = books.resources.settings
        user = await make_user(books.databases)
        await make_wallet(books.databases, user)
        # With an order at the bank.
        await deposit_once([StartingBalance(user.id, 10_000, "INR")], books.resources.ledger, settings)
        assert await books.admin.bank["orders"].count_documents({}) == 1
        auditor = await as_user(settings.audit_mongo_url, settings)
        try:
            assert await check_ledger(auditor) == []
        finally:
            await auditor.close()
