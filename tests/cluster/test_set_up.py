"""What a set-up has to say to each member by itself, against three of them."""

from pathlib import Path
from typing import Any

import pymongo
from pymongo import AsyncMongoClient, WriteConcern

from service.transaction_lifetime import LIFETIME_PARAMETER, TRANSACTION_LIFETIME_S, limit_transactions
from tests.cluster.replica_set import MEMBERS, Member, ReplicaSet

_MONGODBS_OWN_S = 60


def _lifetime_s(member: Member) -> int:
    with member.client() as client:
        return int(client.admin.command({"getParameter": 1, LIFETIME_PARAMETER: 1})[LIFETIME_PARAMETER])


def _wait_until_copied(replica_set: ReplicaSet) -> None:
    """Until each member has all that was written: the user of the set-up too."""
    replica_set.wait_until_whole()
    with pymongo.MongoClient[dict[str, Any]](replica_set.admin_url) as client:
        client["copied"].get_collection("copied", write_concern=WriteConcern(MEMBERS)).insert_one({})


async def test_every_member_ends_transactions_early_and_one_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with ReplicaSet(tmp_path) as replica_set:
        _wait_until_copied(replica_set)
        for member in replica_set.members:
            with member.client() as client:
                client.admin.command({"setParameter": 1, LIFETIME_PARAMETER: _MONGODBS_OWN_S})
        admin: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(replica_set.admin_url)
        async with admin:
            told = await limit_transactions(admin, replica_set.admin_url)
            assert told == f"transactions: ended by each of 3 servers after {TRANSACTION_LIFETIME_S} s"
            assert [_lifetime_s(member) for member in replica_set.members] == [TRANSACTION_LIFETIME_S] * 3
            away = replica_set.secondaries()[0]
            away.freeze()
            told = await limit_transactions(admin, replica_set.admin_url)
        assert "WARNING" in told
        assert [str(member.port) in told for member in replica_set.members] == [
            member is away for member in replica_set.members
        ]
