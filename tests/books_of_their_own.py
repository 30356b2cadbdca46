"""A database of its own for tests that do damage, with the administrator's way in.

Beanie, of which a process has one, goes back to the other tests' database afterwards.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from bson.int64 import Int64

from scripts.ledger_rules import recomputed_hash
from service.database import Databases, bind_documents, connect, set_up
from service.domain.breaks import Break
from service.domain.wallets import Wallet
from service.repositories import breaks as break_repository
from service.repositories.breaks import BreakFilter
from service.services.replay import Slice, replay_slice
from service.startup import Resources, open_resources
from tests.factories import current
from tests.servers import Servers, make_settings

Row = dict[str, Any]


class OwnBooks(NamedTuple):
    resources: Resources
    admin: Databases

    @property
    def databases(self) -> Databases:
        return self.resources.databases

    async def replay(self, position: str = "", *, is_whole: bool = False) -> list[Slice]:
        """All wallets behind that one, once."""
        slices: list[Slice] = []
        while True:
            one = await replay_slice(
                self.databases.client, self.resources.ledger, self.resources.settings, position, is_whole=is_whole
            )
            slices.append(one)
            if one.position is None:
                return slices
            position = one.position

    async def breaks_of(self, wallet: Wallet) -> list[Break]:
        """Oldest first."""
        return (await break_repository.find_newest(BreakFilter(wallet_id=wallet.id), before_id=None, limit=100))[::-1]

    async def set(self, name: str, row_id: str, **changes: Any) -> None:
        """Past the validator."""
        values = {field: Int64(value) if type(value) is int else value for field, value in changes.items()}
        done = await self.admin.wallet[name].update_one(
            {"_id": row_id}, {"$set": values}, bypass_document_validation=True
        )
        assert done.matched_count == 1

    async def entry(self, wallet: Wallet, seq: int) -> Row:
        found = await self.admin.wallet["transaction_logs"].find_one({"wallet_id": wallet.id, "seq": seq})
        assert found is not None
        return found

    async def forge(self, wallet: Wallet, seq: int, **changes: Any) -> Row:
        """Changes an entry and seals it anew."""
        entry = await self.entry(wallet, seq) | changes
        entry["hash"] = recomputed_hash(entry)
        await self.set("transaction_logs", entry["_id"], **changes, hash=entry["hash"])
        return entry

    async def remove_entry(self, wallet: Wallet, seq: int) -> Row:
        entry = await self.entry(wallet, seq)
        await self.admin.wallet["transaction_logs"].delete_one({"_id": entry["_id"]})
        return entry

    async def state_of(self, wallet: Wallet) -> tuple[str, str | None]:
        now = await current(wallet)
        return now.status, now.freeze


@asynccontextmanager
async def own_books(servers: Servers, others: Resources, **overrides: Any) -> AsyncIterator[OwnBooks]:
    settings = make_settings(servers, **overrides)
    assert settings.mongo_admin_url is not None
    await set_up(settings)
    admin = connect(settings.mongo_admin_url.get_secret_value(), settings)
    try:
        async with open_resources(settings) as own:
            yield OwnBooks(own, admin)
    finally:
        await bind_documents(others.databases)
        await admin.client.close()
