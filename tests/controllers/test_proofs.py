"""Proofs over HTTP, judged by the verifier, which shares nothing with the service."""

from typing import Any

import httpx
import pytest

from scripts.verify_proof import Keys, NotProvenError, Since, check_entry, check_missing, check_wallet
from service.controllers.proofs import AbsenceProofView, EntryProofView, WalletProofView
from service.database import Databases
from service.domain.checkpoints import Checkpoint, checkpoint_view, key_id_of
from service.domain.wallets import Wallet
from service.services.checkpoints import signing_key, take_checkpoint
from service.settings import Settings
from tests.factories import Account, bearer, change, current, fund_wallet, make_account, withdrawal_of

WALLETS = "/api/v1/wallets"


class Client:
    """The API with somebody's token."""

    def __init__(self, api: httpx.AsyncClient, account: Account, databases: Databases, settings: Settings) -> None:
        self.api, self.databases, self.settings = api, databases, settings
        self.wallet = account.wallet
        self.headers = bearer(account.user, settings)
        key = signing_key(settings).public_key()
        self.keys: Keys = {key_id_of(key): key}

    async def get(self, path: str = "/proof", wallet: Wallet | None = None, **query: Any) -> httpx.Response:
        return await self.api.get(f"{WALLETS}/{(wallet or self.wallet).id}{path}", params=query, headers=self.headers)

    async def proof(self, path: str = "/proof", **query: Any) -> dict[str, Any]:
        answer = await self.get(path, **query)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def entry_path(self, seq: int) -> str:
        entry = await self.databases.wallet["transaction_logs"].find_one({"wallet_id": self.wallet.id, "seq": seq})
        assert entry is not None
        return f"/transactions/{entry['_id']}/proof"

    async def take_checkpoint(self) -> Checkpoint:
        checkpoint = await take_checkpoint(self.databases.client, self.settings)
        assert checkpoint is not None
        return checkpoint

    async def fund(self, times: int = 1) -> None:
        for _ in range(times):
            await fund_wallet(self.databases, self.wallet, 100)


@pytest.fixture
async def client(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Client:
    """With one entry."""
    return Client(api, await make_account(databases, balance=1_000), databases, settings)


class TestAWalletsProof:
    async def test_holds_and_leads_to_the_head(self, client: Client) -> None:
        checkpoint = await client.take_checkpoint()
        await client.fund()
        await change(client.databases, withdrawal_of(client.wallet, 30, category="rent"))
        proof = await client.proof()
        head = await current(client.wallet)
        assert proof["head"] == {"seq": 3, "head_hash": head.head_hash}
        assert proof["checkpoint"]["number"] == checkpoint.number
        assert proof["leaf"] == {"wallet_id": head.id, "seq": 1, "head_hash": client.wallet.head_hash}
        assert [entry["seq"] for entry in proof["entries"]] == [2, 3]
        assert "stood at entry 1" in check_wallet([proof], client.keys).line
        assert WalletProofView(**proof).model_dump(mode="json") == proof

    async def test_is_of_the_latest_checkpoint_unless_another_is_named(self, client: Client) -> None:
        first = await client.take_checkpoint()
        await client.fund()
        second = await client.take_checkpoint()
        named = await client.proof(checkpoint=first.number)
        for proof, checkpoint, seq in ((await client.proof(), second, 2), (named, first, 1)):
            assert (proof["checkpoint"]["number"], proof["leaf"]["seq"]) == (checkpoint.number, seq)
            assert check_wallet([proof], client.keys)

    async def test_of_a_wallet_without_entries_holds(self, client: Client, databases: Databases) -> None:
        empty = Client(client.api, await make_account(databases), databases, client.settings)
        await client.take_checkpoint()
        proof = await empty.proof()
        assert (proof["head"]["seq"], proof["entries"]) == (0, [])
        assert check_wallet([proof], client.keys)

    async def test_comes_in_pages_though_the_wallet_moves_on(self, client: Client) -> None:
        checkpoint = await client.take_checkpoint()
        await client.fund(4)
        pages: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 2, "checkpoint": checkpoint.number}
        for _ in range(5):
            pages.append(await client.proof(**query))
            if not pages[-1]["has_more"]:
                break
            query["after_seq"] = pages[-1]["entries"][-1]["seq"]
            if len(pages) == 1:
                await client.fund()
                await client.take_checkpoint()
        assert [[entry["seq"] for entry in page["entries"]] for page in pages] == [[2, 3], [4, 5], [6]]
        assert check_wallet(pages, client.keys)
        with pytest.raises(NotProvenError, match="goes on"):
            check_wallet(pages[:2], client.keys)

    async def test_has_to_wait_for_the_first_checkpoint(self, client: Client, databases: Databases) -> None:
        checkpoint = await client.take_checkpoint()
        new = Client(client.api, await make_account(databases), databases, client.settings)
        for answer in (await new.get(), await new.get(checkpoint=checkpoint.number)):
            assert (answer.status_code, answer.json()["error"]) == (409, "not_checkpointed")
            assert answer.headers["retry-after"] == str(client.settings.checkpoint_interval_s)
        await client.take_checkpoint()
        assert (await new.get()).status_code == 200

    async def test_under_a_checkpoint_that_is_not_there_is_not_found(self, client: Client) -> None:
        checkpoint = await client.take_checkpoint()
        answer = await client.get(checkpoint=checkpoint.number + 1)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")

    async def test_begins_where_the_wallet_stood_before(self, client: Client) -> None:
        first = await client.take_checkpoint()
        kept = await client.proof()
        await client.fund(3)
        second = await client.take_checkpoint()
        await client.fund()
        series = [checkpoint_view(one) for one in (first, second)]
        proof = await client.proof(since=first.number)
        assert [entry["seq"] for entry in proof["entries"]] == [2, 3, 4, 5]
        since = Since.of(kept, client.keys)
        assert "which you had" in check_wallet([proof], client.keys, series, since).line
        with pytest.raises(NotProvenError, match="since="):
            check_wallet([await client.proof()], client.keys, series, since)
        pages = [await client.proof(since=first.number, limit=2)]
        pages.append(await client.proof(since=first.number, after_seq=3))
        assert [[entry["seq"] for entry in page["entries"]] for page in pages] == [[2, 3], [4, 5]]
        assert check_wallet(pages, client.keys, series, since)
        later = await client.proof(checkpoint=first.number, since=second.number)
        assert [entry["seq"] for entry in later["entries"]] == [2, 3, 4, 5]


class TestAbsence:
    async def test_is_proven_of_a_wallet_that_was_opened_since(self, client: Client, databases: Databases) -> None:
        checkpoint = await client.take_checkpoint()
        new = Client(client.api, await make_account(databases), databases, client.settings)
        proof = await new.proof("/absence-proof")
        assert proof["checkpoint"]["number"] == checkpoint.number
        assert f"wallet {new.wallet.id} is not under" in check_missing([proof], client.keys).line
        assert AbsenceProofView(**proof).model_dump(mode="json") == proof
        await client.take_checkpoint()
        assert check_missing([await new.proof("/absence-proof", checkpoint=checkpoint.number)], client.keys)

    async def test_of_a_wallet_that_is_there_is_refused(self, client: Client) -> None:
        checkpoint = await client.take_checkpoint()
        answer = await client.get("/absence-proof")
        assert (answer.status_code, answer.json()["error"]) == (409, "wallet_checkpointed")
        answer = await client.get("/absence-proof", checkpoint=checkpoint.number + 1)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")

    async def test_of_somebody_elses_wallet_is_not_found(self, client: Client, databases: Databases) -> None:
        await client.take_checkpoint()
        other = (await make_account(databases)).wallet
        assert (await client.get("/absence-proof", wallet=other)).status_code == 404


class TestAnEntrysProof:
    async def test_holds_under_the_first_checkpoint_after_it(self, client: Client) -> None:
        await client.fund()
        first = await client.take_checkpoint()
        await client.fund(2)
        second = await client.take_checkpoint()
        await client.fund()
        for seq, checkpoint, following in ((1, first, [2]), (2, first, []), (3, second, [4]), (4, second, [])):
            proof = await client.proof(await client.entry_path(seq))
            assert proof["entry"]["seq"] == seq
            assert proof["checkpoint"]["number"] == checkpoint.number
            assert [entry["seq"] for entry in proof["following"]] == following
            assert f"entry {seq} of wallet" in check_entry([proof], client.keys).line
            assert EntryProofView(**proof).model_dump(mode="json") == proof

    async def test_leads_to_the_head_where_no_checkpoint_seals_it_yet(self, client: Client) -> None:
        await client.take_checkpoint()
        await client.fund(2)
        proof = await client.proof(await client.entry_path(2))
        head = await current(client.wallet)
        assert proof["head"] == {"seq": 3, "head_hash": head.head_hash}
        assert (proof["checkpoint"], proof["leaf"], proof["inclusion"]) == (None, None, None)
        assert [entry["seq"] for entry in proof["following"]] == [3]
        assert EntryProofView(**proof).model_dump(mode="json") == proof
        with pytest.raises(NotProvenError, match="under no checkpoint yet"):
            check_entry([proof], client.keys)

    async def test_comes_in_pages(self, client: Client) -> None:
        await client.fund(4)
        await client.take_checkpoint()
        path = await client.entry_path(1)
        first = await client.proof(path, limit=3)
        last = await client.proof(path, limit=3, after_seq=first["following"][-1]["seq"])
        assert [len(page["following"]) for page in (first, last)] == [3, 1]
        assert (first["has_more"], last["has_more"]) == (True, False)
        assert check_entry([first, last], client.keys)

    async def test_of_one_that_is_in_another_wallet_is_not_found(self, client: Client, databases: Databases) -> None:
        other = Client(client.api, await make_account(databases, balance=5), databases, client.settings)
        for path in (await other.entry_path(1), "/transactions/ent_none/proof"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


class TestBoth:
    async def test_are_for_the_owner_only(self, client: Client, databases: Databases) -> None:
        await client.take_checkpoint()
        stranger = Client(client.api, await make_account(databases), databases, client.settings)
        for path in ("/proof", await client.entry_path(1)):
            assert (await client.get(path)).status_code == 200
            answer = await stranger.get(path, client.wallet)
            assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
            nobody = await client.api.get(f"{WALLETS}/{client.wallet.id}{path}")
            assert (nobody.status_code, nobody.json()["error"]) == (401, "unauthenticated")

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=1001", "after_seq=-1", f"after_seq={2**63}", "checkpoint=0", "x=1", "limit[$gt]=1"]
    )
    async def test_refuse_what_they_do_not_know(self, client: Client, query: str) -> None:
        for path in ("/proof", await client.entry_path(1)):
            answer = await client.api.get(f"{WALLETS}/{client.wallet.id}{path}?{query}", headers=client.headers)
            assert (answer.status_code, answer.json()["error"]) == (422, "invalid_fields")
