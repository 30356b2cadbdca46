"""check-ledger on points and vouchers: sound ones pass, and each kind of damage is found and named."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
from bson.int64 import Int64

from scripts.check_ledger import check_ledger
from service.database import Databases
from service.domain.vouchers import Redemption
from service.settings import Settings
from service.startup import Resources
from tests.books_of_their_own import OwnBooks, own_books
from tests.factories import make_saver, make_voucher, redemption_of, run
from tests.servers import Admin, Servers

Row = dict[str, Any]
_COLLECTIONS = ("rewards", "redemptions", "vouchers", "voucher_uses", "transaction_logs", "wallets")


class Books(NamedTuple):
    """A reward and a redemption, and the administrator, who can do what the service cannot."""

    databases: Databases
    admin: Admin
    settings: Settings
    ids: dict[str, str]

    def put(self, name: str, row_id: str, fields: Row) -> None:
        """Past the validator."""
        collection = self.admin[self.settings.database][name]
        row = collection.find_one({"_id": row_id})
        assert row is not None
        collection.replace_one({"_id": row_id}, {**row, **fields}, bypass_document_validation=True)

    def remove(self, name: str, row_id: str) -> None:
        assert self.admin[self.settings.database][name].delete_one({"_id": row_id}).deleted_count == 1

    async def breaches(self) -> set[tuple[str, str]]:
        """Of what is in these books: what tests before have left beside them is no matter."""
        names = {subject: name for name, subject in self.ids.items()}
        found = await check_ledger(self.databases)
        return {(breach.rule, names[breach.subject]) for breach in found if breach.subject in names}


@pytest.fixture(scope="module")
async def own(servers: Servers, resources: Resources) -> AsyncIterator[OwnBooks]:
    """Few documents: what looks at all of them is asked once for each kind of damage."""
    async with own_books(servers, resources) as own:
        yield own


@pytest.fixture
async def books(own: OwnBooks, admin: Admin) -> AsyncIterator[Books]:
    """Whatever a test breaks is taken away afterwards."""
    databases, settings = own.databases, own.resources.settings
    saver, voucher = await make_saver(databases, 250), await make_voucher(databases)
    (decided,) = await run(databases, redemption_of(saver, voucher))
    assert isinstance(decided.record, Redemption)
    reward = await databases.wallet["rewards"].find_one({"user_id": saver.user.id})
    use = await databases.wallet["voucher_uses"].find_one({"voucher_id": voucher.id})
    earned = await databases.wallet["transaction_logs"].find_one({"wallet_id": saver.wallet.id, "seq": 1})
    spent = await databases.wallet["transaction_logs"].find_one({"wallet_id": saver.wallet.id, "seq": 2})
    assert reward is not None
    assert use is not None
    assert earned is not None
    assert spent is not None
    ids = {
        "reward": reward["_id"],
        "redemption": decided.record.id,
        "voucher": voucher.id,
        "person": f"{voucher.id}:{saver.user.id}",
        "use": use["_id"],
        "earned": earned["_id"],
        "spent": spent["_id"],
        "wallet": saver.wallet.id,
    }
    yield Books(databases, admin, settings, ids)
    for name in _COLLECTIONS:
        admin[settings.database][name].delete_many({"_id": {"$in": list(ids.values())}})
    admin[settings.database]["events"].delete_many({"subject_id": {"$in": list(ids.values())}})


Damage = Callable[[Books], None]


def change(name: str, which: str, **fields: Any) -> Damage:
    return lambda books: books.put(name, books.ids[which], fields)


def remove(name: str, which: str) -> Damage:
    return lambda books: books.remove(name, books.ids[which])


class TestPoints:
    async def test_that_are_sound_pass(self, books: Books) -> None:
        assert await books.breaches() == set()

    @pytest.mark.parametrize(
        ("damage", "expected"),
        [
            (change("vouchers", "voucher", stock=Int64(10)), {("voucher_stock", "voucher")}),
            (change("vouchers", "voucher", stocked_total=Int64(9)), {("voucher_stock", "voucher")}),
            (change("vouchers", "voucher", stock="9"), {("malformed_document", "voucher")}),
            (remove("vouchers", "voucher"), {("operation_unknown", "voucher")}),
            (change("voucher_uses", "use", redeemed=Int64(2)), {("voucher_use", "person")}),
            (remove("voucher_uses", "use"), {("voucher_use", "person")}),
            (
                remove("redemptions", "redemption"),
                {
                    ("operation_unknown", "redemption"),
                    ("event_state", "redemption"),
                    ("voucher_stock", "voucher"),
                    ("voucher_use", "person"),
                },
            ),
            (change("redemptions", "redemption", cost=Int64(99)), {("entry_mismatch", "redemption")}),
            (change("redemptions", "redemption", wallet_id="wal_x"), {("entry_mismatch", "redemption")}),
            (change("redemptions", "redemption", cost=1.5), {("malformed_document", "redemption")}),
            (remove("rewards", "reward"), {("operation_unknown", "reward"), ("event_state", "reward")}),
            (change("rewards", "reward", status="lapsed"), {("entry_surplus", "reward"), ("event_state", "reward")}),
            (
                change("rewards", "reward", status="perhaps"),
                {("operation_state", "reward"), ("entry_surplus", "reward"), ("event_state", "reward")},
            ),
            (
                change("rewards", "reward", points=Int64(251)),
                {("operation_state", "reward"), ("entry_mismatch", "reward")},
            ),
            (change("rewards", "reward", rules={"tests": 1}), {("operation_state", "reward")}),
            (change("rewards", "reward", operation_id="dep_other"), {("operation_state", "reward")}),
        ],
    )
    async def test_that_were_tampered_with_are_found(
        self, books: Books, damage: Damage, expected: set[tuple[str, str]]
    ) -> None:
        damage(books)
        assert await books.breaches() == expected

    async def test_whose_entry_is_gone_are_found(self, books: Books) -> None:
        books.remove("transaction_logs", books.ids["spent"])
        assert ("entry_missing", "redemption") in await books.breaches()

    async def test_that_were_credited_twice_are_found(self, books: Books) -> None:
        books.put("transaction_logs", books.ids["spent"], {"type": "POINTS_EARNED", "reference": books.ids["reward"]})
        found = await books.breaches()
        assert {("entry_surplus", "reward"), ("entry_missing", "redemption")} <= found
