"""Checkpoints on a real database: the series, the tiles, a wallet's place; several at once."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from scripts.verify_proof import check_absence, check_sealed, check_series, head_hash, leaf_of, root_from, wallet_hash
from service.database import Databases, connect, session_in_transaction
from service.domain.checkpoints import (
    AUDITED,
    NO_CHECKPOINT_HASH,
    TILE_LEAVES,
    Checkpoint,
    absence_view,
    checkpoint_hash,
    checkpoint_view,
    inclusion_view,
    key_id_of,
)
from service.domain.clock import utc_now
from service.domain.entries import GENESIS_HASH
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import Wallet, new_wallet
from service.errors import NotFound
from service.repositories import checkpoints as checkpoint_repository
from service.repositories import wallets as wallet_repository
from service.services.checkpoints import (
    Sealed,
    find_missing,
    find_sealed,
    get_checkpoint,
    list_checkpoints,
    signing_key,
    take_checkpoint,
    take_checkpoint_if_due,
)
from service.settings import Settings
from service.startup import Resources
from tests.books_of_their_own import own_books
from tests.factories import current, fund_wallet, make_funded_wallet, take_list_checkpoint
from tests.servers import Servers


async def take(databases: Databases, settings: Settings) -> Checkpoint:
    checkpoint = await take_checkpoint(databases.client, settings)
    assert checkpoint is not None
    return checkpoint


async def make_wallets(databases: Databases, ids: Sequence[str]) -> None:
    """Empty ones, each of a user of its own."""
    wallets = [new_wallet(wallet_id, new_id(Prefix.USER), "INR", utc_now()) for wallet_id in ids]
    async with session_in_transaction(databases.client) as session:
        await wallet_repository.insert_many(wallets, session=session)


async def sealed_in(wallet: Wallet, checkpoint: Checkpoint) -> Sealed:
    sealed = await find_sealed(wallet.id, checkpoint.number)
    assert sealed is not None
    return sealed


async def tile_ids(checkpoint: Checkpoint) -> list[str]:
    found = await checkpoint_repository.find_with_tiles(checkpoint.number)
    assert found is not None
    return [tile.id for tile in found[1]]


def is_in_the_tree(sealed: Sealed) -> bool:
    leaf = sealed.leaf._asdict()
    hashed = leaf_of(wallet_hash(sealed.leaf.wallet_id), head_hash(leaf))
    return root_from(hashed, sealed.inclusion._asdict(), sealed.leaf.wallet_id).hex() == sealed.checkpoint.root


async def the_whole_series(settings: Settings) -> list[dict[str, Any]]:
    key = signing_key(settings).public_key()
    series = await list_checkpoints(before_number=None, limit=10_000)
    return check_series([checkpoint_view(checkpoint) for checkpoint in series], {key_id_of(key): key})


class TestTaking:
    async def test_seals_the_head_of_every_wallet(self, databases: Databases, settings: Settings) -> None:
        wallet = await make_funded_wallet(databases)
        checkpoint = await take(databases, settings)
        assert checkpoint.wallets == await databases.wallet["wallets"].count_documents({})
        sealed = await sealed_in(wallet, checkpoint)
        assert sealed.leaf == (wallet.id, wallet.seq, wallet.head_hash)
        assert is_in_the_tree(sealed)

    async def test_seals_a_wallet_without_entries_too(self, databases: Databases, settings: Settings) -> None:
        wallet = await make_funded_wallet(databases, balance=0)
        sealed = await sealed_in(wallet, await take(databases, settings))
        assert sealed.leaf == (wallet.id, 0, GENESIS_HASH)

    async def test_links_each_to_the_one_before(self, databases: Databases, settings: Settings) -> None:
        await make_funded_wallet(databases)
        first = await take(databases, settings)
        second = await take(databases, settings)
        assert (second.number, second.prev_hash) == (first.number + 1, checkpoint_hash(first))
        series = await the_whole_series(settings)
        assert series[0]["prev_hash"] == NO_CHECKPOINT_HASH
        assert [one["number"] for one in series] == list(range(1, second.number + 1))

    async def test_keeps_what_a_wallet_was_though_it_moves_on(self, databases: Databases, settings: Settings) -> None:
        wallet = await make_funded_wallet(databases)
        checkpoint = await take(databases, settings)
        await fund_wallet(databases, wallet)
        later = await take(databases, settings)
        assert (await sealed_in(wallet, checkpoint)).leaf.head_hash == wallet.head_hash
        assert (await sealed_in(wallet, later)).leaf.head_hash == (await current(wallet)).head_hash
        assert is_in_the_tree(await sealed_in(wallet, checkpoint))

    async def test_writes_only_the_tiles_that_changed(self, databases: Databases, settings: Settings) -> None:
        wallet = await make_funded_wallet(databases)
        await make_wallets(databases, [new_id(Prefix.WALLET) for _ in range(TILE_LEAVES)])
        first = await take(databases, settings)
        tiles = databases.wallet["checkpoint_tiles"]
        count = await tiles.count_documents({})
        assert await tile_ids(await take(databases, settings)) == await tile_ids(first)
        assert await tiles.count_documents({}) == count
        await fund_wallet(databases, wallet)
        moved = await tile_ids(await take(databases, settings))
        assert len(set(moved) - set(await tile_ids(first))) == 1
        assert await tiles.count_documents({}) == count + 1

    async def test_is_of_one_moment_while_wallets_move(self, databases: Databases, settings: Settings) -> None:
        wallets = [await make_funded_wallet(databases) for _ in range(4)]
        is_moving = True

        async def move(wallet: Wallet) -> None:
            while is_moving:
                await fund_wallet(databases, wallet, 1)

        moving = [asyncio.create_task(move(wallet)) for wallet in wallets]
        checkpoints = [await take(databases, settings) for _ in range(5)]
        is_moving = False
        await asyncio.gather(*moving)
        for wallet in wallets:
            leaves = [(await sealed_in(wallet, checkpoint)).leaf for checkpoint in checkpoints]
            assert [leaf.seq for leaf in leaves] == sorted(leaf.seq for leaf in leaves)
            for leaf in leaves:
                entry = await databases.wallet["transaction_logs"].find_one({"wallet_id": wallet.id, "seq": leaf.seq})
                assert entry is not None
                assert entry["hash"] == leaf.head_hash

    async def test_of_many_at_once_each_number_is_made_once(self, databases: Databases, settings: Settings) -> None:
        before = await take(databases, settings)
        # So that all of them have the same tile to write.
        await make_funded_wallet(databases)
        taken = await asyncio.gather(*(take_checkpoint(databases.client, settings) for _ in range(8)))
        numbers = sorted(checkpoint.number for checkpoint in taken if checkpoint is not None)
        assert numbers == list(range(before.number + 1, before.number + 1 + len(numbers)))
        assert 1 <= len(numbers) <= 8
        assert (await the_whole_series(settings))[-1]["number"] == numbers[-1]

    async def test_of_those_who_saw_the_same_one_before_one_makes_the_next(
        self, databases: Databases, settings: Settings
    ) -> None:
        await make_funded_wallet(databases)
        latest = await take(databases, settings)
        following = latest._replace(number=latest.number + 1, prev_hash=checkpoint_hash(latest))
        rivals = [following._replace(root=f"{number:064x}") for number in range(8)]
        try:
            won = await asyncio.gather(*(checkpoint_repository.insert(rival, []) for rival in rivals))
            assert sorted(won) == [False] * 7 + [True]
            assert await get_checkpoint(following.number) == rivals[won.index(True)]
        finally:
            await _forget(following.number, settings)

    async def test_waits_until_it_is_time(self, databases: Databases, settings: Settings) -> None:
        await make_funded_wallet(databases)
        latest = await take(databases, settings)
        due_at = latest.created_at + timedelta(seconds=settings.checkpoint_interval_s)
        early = await take_checkpoint_if_due(databases.client, settings, due_at - timedelta(milliseconds=1))
        assert early is None
        due = await take_checkpoint_if_due(databases.client, settings, due_at)
        assert due is not None
        assert due.number == latest.number + 1


async def _forget(number: int, settings: Settings) -> None:
    """What the service's own user cannot do."""
    assert settings.mongo_admin_url is not None
    admin = connect(settings.mongo_admin_url.get_secret_value(), settings)
    await admin.wallet["checkpoints"].delete_one({"_id": number})
    await admin.client.close()


class TestPlaces:
    @pytest.fixture
    async def ids(self, databases: Databases) -> list[str]:
        """Of wallets enough for three tiles at least."""
        ids = [new_id(Prefix.WALLET) for _ in range(2 * TILE_LEAVES + 10)]
        await make_wallets(databases, ids)
        return ids

    async def test_are_found_in_every_tile(self, databases: Databases, settings: Settings, ids: list[str]) -> None:
        checkpoint = await take(databases, settings)
        places = []
        for wallet_id in ids[::25]:
            sealed = await find_sealed(wallet_id, checkpoint.number)
            assert sealed is not None
            assert sealed.leaf.wallet_id == wallet_id
            assert is_in_the_tree(sealed)
            assert sealed.inclusion.tree_size == checkpoint.wallets
            places.append(sealed.inclusion.leaf_index)
        first = await databases.wallet["wallets"].count_documents({"_id": {"$lt": ids[0]}})
        assert places == [first + at for at in range(0, len(ids), 25)]

    async def test_move_for_a_wallet_that_came_late_under_an_earlier_id(
        self, databases: Databases, settings: Settings, ids: list[str]
    ) -> None:
        """Its id was made before another's, and committed after it: the places behind it are one further on."""
        before = await take(databases, settings)
        late = f"{ids[3]}-late"
        await make_wallets(databases, [late])
        after = await take(databases, settings)
        assert await find_sealed(late, before.number) is None
        for wallet_id, step in ((ids[3], 0), (ids[4], 1), (ids[-1], 1)):
            old, new = [await find_sealed(wallet_id, number) for number in (before.number, after.number)]
            assert old is not None
            assert new is not None
            assert new.inclusion.leaf_index == old.inclusion.leaf_index + step
            assert is_in_the_tree(old)
            assert is_in_the_tree(new)
        sealed = await find_sealed(late, after.number)
        assert sealed is not None
        assert is_in_the_tree(sealed)

    @pytest.mark.parametrize("wallet_id", ["", "wal_", "wal_0", "wal_zzz", "x"])
    async def test_of_no_wallet_there_is_none(
        self, databases: Databases, settings: Settings, ids: list[str], wallet_id: str
    ) -> None:
        checkpoint = await take(databases, settings)
        assert await find_sealed(wallet_id, checkpoint.number) is None
        for nobody in (wallet_id, f"{ids[3]}0", f"{ids[TILE_LEAVES]}0", f"{ids[-1]}0"):
            missing = await find_missing(nobody, checkpoint.number)
            assert missing is not None
            key = signing_key(settings).public_key()
            proof = {"wallet_id": nobody, "checkpoint": checkpoint_view(checkpoint), **absence_view(missing.absence)}
            assert check_absence(proof, {key_id_of(key): key}).wallet_id == nobody
        assert await find_missing(ids[3], checkpoint.number) is None

    async def test_in_no_checkpoint_are_not_found(self, databases: Databases, settings: Settings) -> None:
        wallet = await make_funded_wallet(databases)
        latest = await take(databases, settings)
        with pytest.raises(NotFound):
            await find_sealed(wallet.id, latest.number + 1)
        with pytest.raises(NotFound):
            await find_missing(wallet.id, latest.number + 1)
        with pytest.raises(NotFound):
            await get_checkpoint(latest.number + 1)


class TestTheFirstVersion:
    async def test_still_proves_what_it_sealed_and_is_followed_by_the_second(
        self, servers: Servers, resources: Resources
    ) -> None:
        """In a database of its own: no checkpoint of the first version comes after one of the second."""
        async with own_books(servers, resources) as books:
            databases, settings = books.resources.databases, books.resources.settings
            wallet = await make_funded_wallet(databases)
            first = await take_list_checkpoint(databases, settings)
            second = await take(databases, settings)
            series = await the_whole_series(settings)
            assert [(one["number"], one.get("version")) for one in series] == [(1, None), (2, AUDITED)]
            assert second.prev_hash == checkpoint_hash(first)
            key = signing_key(settings).public_key()
            sealed = [await sealed_in(wallet, checkpoint) for checkpoint in (first, second)]
            assert [one.inclusion.separators is None for one in sealed] == [True, False]
            for one in sealed:
                inclusion = inclusion_view(one.inclusion)
                proof = {
                    "checkpoint": checkpoint_view(one.checkpoint),
                    "leaf": one.leaf._asdict(),
                    "inclusion": inclusion,
                }
                assert check_sealed(proof, {key_id_of(key): key}, ())
            # That somebody is not in it, it cannot show.
            assert await find_missing("wal_nobody", first.number) is None
            assert await find_missing("wal_nobody", second.number) is not None
