"""The offline verifier: what is sound is proven, and whatever is changed about it is refused.

The proofs are made here from the domain's own rules, without a database; that the API's are alike is tested where the
API is.
"""

import base64
import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts.verify_proof import main
from service.domain.checkpoints import (
    LISTS,
    MAPS,
    NOBODY,
    TILE_LEAVES,
    Checkpoint,
    Leaf,
    Sealing,
    Tile,
    TileName,
    absence_of,
    absence_view,
    checkpoint_view,
    inclusion_of,
    inclusion_view,
    key_id_of,
    key_view,
    leaf_hash_of,
    make_checkpoint,
    make_tile,
    name_tile,
    place_within,
    search_among,
    search_within,
    signed_bytes,
)
from service.domain.entries import GENESIS_HASH, Entry, EntryType, entry_hash, entry_view
from service.domain.merkle import audit_path, map_path, map_root, root_of
from service.domain.wallets import Movement, Wallet, apply_movement, new_wallet

Document = dict[str, Any]

_KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
_OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
_START = datetime(2026, 2, 1, tzinfo=UTC)
_WALLET = f"wal_{300:032x}"
_WALLETS = 600
_STEPS = (
    (EntryType.DEPOSIT, 1_000, "salary"), (EntryType.WITHDRAWAL, 300, None), (EntryType.WITHDRAWAL_REFUND, 300, None),
    (EntryType.TRANSFER_OUT, 50, "rent"), (EntryType.CREDIT, 7, "naïve\ttext"), (EntryType.HOLD, 20, None),
    (EntryType.HOLD_CAPTURE, 20, None),
)  # fmt: skip


def _with_balance(row: Document) -> Document:
    """As a statement shows the entry."""
    before, after = (row[f"available_{when}"] + row[f"held_{when}"] for when in ("before", "after"))
    return row | {"change": after - before, "balance": after}


class Ledger(NamedTuple):
    """One wallet's entries, and three checkpoints over it and 599 others: after its entries 2, 5 and 5."""

    wallet: Wallet
    entries: list[Entry]
    checkpoints: list[Checkpoint]
    trees: list[list[Tile]]

    @property
    def version(self) -> int:
        return self.checkpoints[0].version

    def names(self, number: int) -> list[TileName]:
        return _names(self.trees[number - 1], self.version)

    def absence_proof(self, wallet_id: str, number: int = 1) -> Document:
        return _absence(self.checkpoints[number - 1], self.trees[number - 1], wallet_id)

    def sealed(self, number: int) -> Document:
        checkpoint, tiles = self.checkpoints[number - 1], self.trees[number - 1]
        at = next(at for at, tile in enumerate(tiles) if place_within(tile, _WALLET) is not None)
        leaf_at = place_within(tiles[at], _WALLET)
        assert leaf_at is not None
        names = self.names(number)
        inclusion = inclusion_of(names, at, tiles[at], leaf_at, checkpoint.wallets, self.version)
        return {
            "checkpoint": checkpoint_view(checkpoint),
            "leaf": tiles[at].leaves[leaf_at]._asdict(),
            "inclusion": inclusion_view(inclusion),
        }

    def rows(self, first: int, last: int) -> list[Document]:
        return [entry_view(entry) for entry in self.entries[first - 1 : last]]

    def wallet_proof(self, number: int = 1) -> Document:
        sealed = self.sealed(number)
        return {
            "wallet_id": _WALLET,
            "head": {"seq": self.wallet.seq, "head_hash": self.wallet.head_hash},
            **sealed,
            "entries": self.rows(sealed["leaf"]["seq"] + 1, len(self.entries)),
            "has_more": False,
        }

    def entry_proof(self, seq: int = 3, number: int = 2) -> Document:
        sealed = self.sealed(number)
        (entry,) = self.rows(seq, seq)
        following = self.rows(seq + 1, sealed["leaf"]["seq"])
        return {"entry": entry, "following": following, "has_more": False, "head": None, **sealed}

    def statement(self, first: int = 2, last: int = 5) -> Document:
        def balance(seq: int) -> Document:
            available = self.entries[seq - 1].available_after if seq else 0
            held = self.entries[seq - 1].held_after if seq else 0
            return {"available": available, "held": held, "balance": available + held, "seq": seq}

        return {
            "wallet_id": _WALLET,
            "currency": "INR",
            "from": "2026-02-01T00:00:00.000Z",
            "to": "2026-03-01T00:00:00.000Z",
            "opening": balance(first - 1),
            "closing": balance(last),
            "rows": [_with_balance(row) for row in self.rows(first, last)],
            "generated_at": "2026-03-02T00:00:00.000Z",
        }

    def series(self) -> list[Document]:
        return [checkpoint_view(checkpoint) for checkpoint in self.checkpoints]


def _signed(checkpoint: Checkpoint) -> Document:
    """Whatever it says."""
    signature = base64.b64encode(_KEY.sign(signed_bytes(checkpoint))).decode()
    return checkpoint_view(checkpoint._replace(signature=signature))


def _absence(checkpoint: Checkpoint, tiles: list[Tile], wallet_id: str) -> Document:
    absence = NOBODY
    if tiles:
        names = _names(tiles)
        at = search_among(names, wallet_id)
        absence = absence_of(names, at, tiles[at], search_within(tiles[at], wallet_id), checkpoint.wallets)
    return {"wallet_id": wallet_id, "checkpoint": checkpoint_view(checkpoint), **absence_view(absence)}


def _resealed(entry: Entry, **changes: Any) -> Document:
    changed = entry._replace(**changes)
    return entry_view(changed._replace(hash=entry_hash(changed)))


def _names(tiles: list[Tile], version: int = MAPS) -> list[TileName]:
    if version == LISTS:
        return [TileName(tile.id, tile.leaves[0].wallet_id) for tile in tiles]
    return [name_tile(tile, tiles[at - 1] if at else None) for at, tile in enumerate(tiles)]


def _tree(head: Wallet, version: int) -> list[Tile]:
    leaves = [Leaf(f"wal_{number:032x}", 0, GENESIS_HASH) for number in range(_WALLETS)]
    leaves[300] = Leaf(_WALLET, head.seq, head.head_hash)
    return [make_tile(leaves[at : at + TILE_LEAVES], version) for at in range(0, _WALLETS, TILE_LEAVES)]


@pytest.fixture(scope="module", params=[MAPS, LISTS], ids=["maps", "lists"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Of either version: what was signed before the second one still has to hold."""
    return _ledger(request.param)


@pytest.fixture(scope="module")
def maps() -> Ledger:
    return _ledger(MAPS)


def _ledger(version: int) -> Ledger:
    wallet = new_wallet(_WALLET, "usr_1", "INR", _START)
    entries: list[Entry] = []
    heads = [wallet]
    for number, (kind, amount, category) in enumerate(_STEPS, 1):
        movement = Movement(
            wallet_id=_WALLET,
            type=kind,
            amount=amount,
            status="success",
            reference=f"op_{number}",
            transaction_id=f"txn_{number}",
            counterparty="bank",
            entry_id=f"ent_{number}",
            at=_START + timedelta(days=number),
            category=category,
        )
        wallet, entry = apply_movement(wallet, movement)
        entries.append(entry)
        heads.append(wallet)
    checkpoints: list[Checkpoint] = []
    trees = [_tree(heads[seq], version) for seq in (2, 5, 5)]
    for number, tiles in enumerate(trees, 1):
        before = checkpoints[-1] if checkpoints else None
        now = _START + timedelta(days=10 + number)
        checkpoints.append(make_checkpoint(before, _names(tiles, version), _WALLETS, now, _KEY, version))
    return Ledger(wallet, entries, checkpoints, trees)


class Verifier:
    """The command, with its files; its last words."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.said = ""
        self.key = self.write({"keys": [key_view(_KEY.public_key())]})

    def write(self, content: Any) -> str:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    def __call__(
        self, command: str, *contents: Any, key: str | None = None, kept: Any = None, since: Any = None
    ) -> int:
        arguments = [command, *map(self.write, contents), "--key", key or self.key]
        if kept is not None:
            arguments += ["--checkpoints", self.write(kept)]
        if since is not None:
            arguments += ["--since", self.write(since)]
        status = main(arguments)
        out, err = self.capsys.readouterr()
        self.said = out + err
        assert len(self.said.splitlines()) == 1, self.said
        assert self.said.startswith(("proven: ", "NOT PROVEN: ", "could not look: ")[status])
        return status


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verifier:
    return Verifier(tmp_path, capsys)


def _other(value: Any) -> Any:
    """Of the same type, and different by as little as can be."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case None:
            return "x"
        case _:
            return None


Path_ = tuple[str | int, ...]


def _paths(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """To everything within, members and elements, whole parts too."""
    if path:
        yield path
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from _paths(child, (*path, name))


def _changed(document: Any, path: Path_, change: Callable[[Any, Any], None]) -> Any:
    changed = copy.deepcopy(document)
    place = changed
    for name in path[:-1]:
        place = place[name]
    change(place, path[-1])
    return changed


def _flip(place: Any, name: Any) -> None:
    place[name] = _other(place[name])


def _remove(place: Any, name: Any) -> None:
    del place[name]


def _swap(place: Any, name: Any) -> None:
    if isinstance(place, list) and name + 1 < len(place):
        place[name], place[name + 1] = place[name + 1], place[name]
    else:
        place[name] = [place[name]]


def _repeat(place: Any, name: Any) -> None:
    if isinstance(place, list):
        place.insert(name, place[name])
    else:
        place[f"{name}_too"] = place[name]


CHANGES = {"changed": _flip, "removed": _remove, "swapped or wrapped": _swap, "repeated or added to": _repeat}


@pytest.mark.parametrize("how", CHANGES)
class TestWhateverIs:
    """Each place of a document in turn: one of these must not be proven."""

    def test_in_an_entrys_proof_is_refused(self, ledger: Ledger, verify: Verifier, how: str) -> None:
        self._refuses_each(verify, "entry", ledger.entry_proof(), how)

    def test_in_a_wallets_proof_is_refused(self, ledger: Ledger, verify: Verifier, how: str) -> None:
        self._refuses_each(verify, "wallet", ledger.wallet_proof(), how)

    def test_in_a_series_is_refused(self, ledger: Ledger, verify: Verifier, how: str) -> None:
        # The same checkpoints in another order, or one of them twice, are the same series; and without the first or the
        # last one it is a shorter one.
        skipped: dict[str, set[Path_]] = {
            "removed": {(0,), (2,)},
            "swapped or wrapped": {(0,), (1,)},
            "repeated or added to": {(0,), (1,), (2,)},
        }
        self._refuses_each(verify, "checkpoints", ledger.series(), how, skipped.get(how, set()))

    def test_in_a_statement_is_refused(self, ledger: Ledger, verify: Verifier, how: str) -> None:
        # Nothing seals the statement's own time, nor what it shows beside.
        skipped: set[Path_] = {("generated_at",), ("from",), ("to",)}
        if how == "repeated or added to":
            skipped |= {(name,) for name in ledger.statement()}
            skipped |= {
                (name, part) for name in ("opening", "closing") for part in ("available", "held", "balance", "seq")
            }
        self._refuses_each(verify, "statement", ledger.statement(), how, skipped)

    @staticmethod
    def _refuses_each(
        verify: Verifier,
        command: str,
        document: Any,
        how: str,
        skipped: set[Path_] = frozenset(),  # type: ignore[assignment]
    ) -> None:
        assert verify(command, document) == 0, verify.said
        paths = [path for path in _paths(document) if path not in skipped]
        assert len(paths) > 20
        for path in paths:
            changed = _changed(document, path, CHANGES[how])
            assert verify(command, changed) == 1, (how, path, verify.said)


class TestAnEntrysProof:
    @pytest.mark.parametrize(("seq", "number"), [(1, 1), (2, 1), (3, 2), (5, 2), (1, 3)])
    def test_holds_under_any_checkpoint_from_its_own_on(
        self, ledger: Ledger, verify: Verifier, seq: int, number: int
    ) -> None:
        assert verify("entry", ledger.entry_proof(seq, number)) == 0, verify.said
        assert f"entry {seq} of wallet {_WALLET}" in verify.said
        assert f"checkpoint {number} of" in verify.said

    def test_may_come_in_pages_in_any_order(self, ledger: Ledger, verify: Verifier) -> None:
        whole = ledger.entry_proof(1, 2)
        pages = [
            {**whole, "following": whole["following"][:1], "has_more": True},
            {**whole, "following": whole["following"][1:3], "has_more": True},
            {**whole, "following": whole["following"][3:]},
        ]
        assert verify("entry", *pages) == 0, verify.said
        assert verify("entry", *reversed(pages)) == 0, verify.said
        assert verify("entry", *pages[:2]) == 1
        assert "next page" in verify.said
        assert verify("entry", pages[0], pages[2]) == 1
        assert verify("entry", pages[1], pages[2]) == 1

    def test_of_pages_that_do_not_belong_together_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        first = ledger.entry_proof(1, 2) | {"following": ledger.rows(2, 2), "has_more": True}
        assert verify("entry", first, ledger.entry_proof(1, 3) | {"following": ledger.rows(3, 5)}) == 1
        assert "not pages of one proof" in verify.said

    def test_of_an_entry_that_waits_for_its_checkpoint_says_so(self, ledger: Ledger, verify: Verifier) -> None:
        head = {"seq": ledger.wallet.seq, "head_hash": ledger.wallet.head_hash}
        waiting = {
            "entry": ledger.rows(6, 6)[0],
            "following": ledger.rows(7, 7),
            "has_more": False,
            "head": head,
            "checkpoint": None,
            "leaf": None,
            "inclusion": None,
        }
        assert verify("entry", waiting) == 1
        assert "under no checkpoint yet" in verify.said

    def test_has_no_head_beside_its_checkpoint(self, ledger: Ledger, verify: Verifier) -> None:
        proof = ledger.entry_proof() | {"head": {"seq": ledger.wallet.seq, "head_hash": ledger.wallet.head_hash}}
        assert verify("entry", proof) == 1

    def test_does_not_hold_by_the_leaf_of_another_wallet(self, ledger: Ledger, verify: Verifier) -> None:
        """Which cannot have the same hash, unless it was put there."""
        proof = ledger.entry_proof(5, 2)
        tile = make_tile([Leaf("wal_other", 5, ledger.entries[4].hash)])
        checkpoint = make_checkpoint(None, _names([tile]), 1, _START, _KEY)
        proof |= {
            "checkpoint": checkpoint_view(checkpoint),
            "leaf": tile.leaves[0]._asdict(),
            "inclusion": inclusion_view(inclusion_of(_names([tile]), 0, tile, 0, 1)),
        }
        assert verify("entry", proof) == 1
        assert "another wallet" in verify.said

    def test_does_not_hold_for_a_history_that_was_forged_to_its_end(self, ledger: Ledger, verify: Verifier) -> None:
        """Every hash fits, every sum is right; only the checkpoint knows better."""
        forged = ledger.entry_proof(5, 2)
        entry = ledger.entries[4]._replace(counterparty="a friend")
        forged["entry"] = entry_view(entry._replace(hash=entry_hash(entry)))
        assert verify("entry", forged) == 1
        assert "with another hash" in verify.said
        forged["leaf"] = {**forged["leaf"], "head_hash": forged["entry"]["hash"]}
        assert verify("entry", forged) == 1
        assert "not in the tree" in verify.said


class TestTheTree:
    def test_refuses_a_path_cut_short_at_either_end(self, ledger: Ledger, verify: Verifier) -> None:
        proof = ledger.wallet_proof()
        path = proof["inclusion"]["path"]
        assert len(path) == 10
        for cut, said in (
            (path[1:], "too short"),
            (path[:-1], "too short"),
            ([], "too short"),
            ([*path, path[-1]], "too long"),
        ):
            changed = {**proof["inclusion"], "path": cut}
            if "separators" in changed:
                changed["separators"] = (proof["inclusion"]["separators"] * 2)[: len(cut)]
            assert verify("wallet", {**proof, "inclusion": changed}) == 1
            # A map may see before the end that a separator is not in its place.
            assert said in verify.said or "can not be" in verify.said

    def test_refuses_every_other_place(self, ledger: Ledger, verify: Verifier) -> None:
        proof = ledger.wallet_proof()
        for index in {*range(0, _WALLETS, 37), 299, 301, -1, _WALLETS, 10**30} - {300}:
            assert verify("wallet", {**proof, "inclusion": {**proof["inclusion"], "leaf_index": index}}) == 1
            assert ("outside of a tree" in verify.said) == (not 0 <= index < _WALLETS)

    def test_refuses_another_trees_path(self, ledger: Ledger, verify: Verifier) -> None:
        mixed = {**ledger.wallet_proof(1), "inclusion": ledger.sealed(2)["inclusion"]}
        # The siblings are the same: only the wallet itself has moved on.
        assert verify("wallet", mixed) == 0
        assert verify("wallet", {**ledger.wallet_proof(1), "leaf": ledger.sealed(2)["leaf"]}) == 1

    @pytest.mark.parametrize("wallets", [1, 2, 3, 7, 255, 256, 257, 511, 513, 1025, 1300])
    @pytest.mark.parametrize("version", [MAPS, LISTS])
    def test_of_any_size_holds_for_each_wallet_that_has_an_edge(
        self, verify: Verifier, wallets: int, version: int
    ) -> None:
        leaves = [Leaf(f"wal_{number:032x}", 0, GENESIS_HASH) for number in range(wallets)]
        tiles = [make_tile(leaves[at : at + TILE_LEAVES], version) for at in range(0, wallets, TILE_LEAVES)]
        names = _names(tiles, version)
        checkpoint = make_checkpoint(None, names, wallets, _START, _KEY, version)
        for index in {0, 1, 254, 255, 256, 511, 512, 1024, wallets - 2, wallets - 1} & {*range(wallets)}:
            at, leaf_at = divmod(index, TILE_LEAVES)
            proof = {
                "wallet_id": leaves[index].wallet_id,
                "head": {"seq": 0, "head_hash": GENESIS_HASH},
                "checkpoint": checkpoint_view(checkpoint),
                "leaf": leaves[index]._asdict(),
                "inclusion": inclusion_view(inclusion_of(names, at, tiles[at], leaf_at, wallets, version)),
                "entries": [],
                "has_more": False,
            }
            assert verify("wallet", proof) == 0, (index, verify.said)


class TestAWalletsProof:
    def test_tells_what_is_signed_from_what_only_follows(self, ledger: Ledger, verify: Verifier) -> None:
        assert verify("wallet", ledger.wallet_proof()) == 0
        assert f"wallet {_WALLET} stood at entry 2 under checkpoint 1" in verify.said
        assert "its head, entry 7, follows from there, not signed yet" in verify.said

    def test_may_come_in_pages_while_the_wallet_moves_on(self, ledger: Ledger, verify: Verifier) -> None:
        whole = ledger.wallet_proof()
        then = {"seq": 6, "head_hash": ledger.entries[5].hash}
        first = {**whole, "head": then, "entries": whole["entries"][:2], "has_more": True}
        last = {**whole, "entries": whole["entries"][2:]}
        assert verify("wallet", first, last) == 0, verify.said
        assert verify("wallet", last) == 1
        assert verify("wallet", first) == 1

    def test_with_rows_in_another_order_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        proof = ledger.wallet_proof()
        assert verify("wallet", {**proof, "entries": proof["entries"][::-1]}) == 1


class TestTheKey:
    def test_may_be_a_pem_file(self, ledger: Ledger, verify: Verifier) -> None:
        pem = verify.write(key_view(_KEY.public_key())["pem"])
        assert verify("wallet", ledger.wallet_proof(), key=pem) == 0

    def test_of_another_signer_proves_nothing(self, ledger: Ledger, verify: Verifier) -> None:
        other = verify.write({"keys": [key_view(_OTHER_KEY.public_key())]})
        for command, document in (
            ("wallet", ledger.wallet_proof()),
            ("entry", ledger.entry_proof()),
            ("checkpoints", ledger.series()),
        ):
            assert verify(command, document, key=other) == 1
            assert "not among those given" in verify.said

    def test_is_known_by_itself_and_not_by_what_the_file_calls_it(self, ledger: Ledger, verify: Verifier) -> None:
        ours, other = key_view(_KEY.public_key()), key_view(_OTHER_KEY.public_key())
        assert (
            verify("wallet", ledger.wallet_proof(), key=verify.write({"keys": [other | {"key_id": ours["key_id"]}]}))
            == 1
        )

    def test_has_one_spelling_for_each_signature(self, ledger: Ledger, verify: Verifier) -> None:
        proof = ledger.wallet_proof()
        signature = proof["checkpoint"]["signature"]
        assert signature.endswith("==")
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        twin = signature[:-3] + alphabet[alphabet.index(signature[-3]) ^ 1] + "=="
        assert verify("wallet", {**proof, "checkpoint": {**proof["checkpoint"], "signature": twin}}) == 1


class TestASeries:
    def test_is_proven_from_pages_lists_and_single_ones(self, ledger: Ledger, verify: Verifier) -> None:
        first, second, third = ledger.series()
        assert verify("checkpoints", {"data": [third, second], "has_more": True, "next_cursor": "x"}, first) == 0
        assert "checkpoints 1 to 3 are signed" in verify.said
        assert verify("checkpoints", [second, third]) == 0
        assert "checkpoints 2 to 3 (what came before was not given)" in verify.said

    def test_with_one_missing_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        first, _, third = ledger.series()
        assert verify("checkpoints", [first, third]) == 1
        assert "checkpoint 2 is missing" in verify.said

    def test_with_a_second_truth_about_a_number_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        """Both signed by the service: whoever has seen one can tell that the other was made up."""
        first, second, third = ledger.checkpoints
        twin = make_checkpoint(first, ledger.names(1), _WALLETS, second.created_at, _KEY, ledger.version)
        assert twin.number == second.number
        assert verify("checkpoints", [*ledger.series(), checkpoint_view(twin)]) == 1
        assert "two different checkpoints 2" in verify.said
        rest = [checkpoint_view(one) for one in (first, twin, third)]
        assert verify("checkpoints", rest) == 1
        assert "checkpoint 3 does not follow" in verify.said

    def test_that_runs_backwards_in_time_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        third = ledger.checkpoints[2]
        first, second, _ = ledger.checkpoints
        early = _signed(third._replace(created_at=second.created_at - timedelta(days=1)))
        assert verify("checkpoints", [checkpoint_view(first), checkpoint_view(second), early]) == 1
        assert "older than the one before" in verify.said
        tree = ledger.names(1), _WALLETS
        backwards = make_checkpoint(third._replace(created_at=_START), *tree, _START, _KEY, ledger.version)
        linked = make_checkpoint(third, *tree, third.created_at, _KEY, ledger.version)
        assert verify("checkpoints", [*ledger.series(), checkpoint_view(linked)]) == 0
        assert verify("checkpoints", [*ledger.series(), checkpoint_view(backwards)]) == 1

    def test_starts_from_nothing_and_only_there(self, ledger: Ledger, verify: Verifier) -> None:
        first = ledger.checkpoints[0]
        for wrong in (first._replace(prev_hash="a" * 64), first._replace(number=2), first._replace(number=0)):
            assert verify("checkpoints", [_signed(wrong)]) == 1
            assert "not for its number" in verify.said

    def test_of_nothing_proves_nothing(self, verify: Verifier) -> None:
        assert verify("checkpoints", []) == 1

    def test_that_one_has_kept_decides_over_a_proof(self, ledger: Ledger, verify: Verifier) -> None:
        proof = ledger.wallet_proof(2)
        assert verify("wallet", proof, kept=ledger.series()) == 0
        assert verify("wallet", proof, kept=ledger.series()[:1]) == 1
        assert "not the one among your own" in verify.said
        assert verify("entry", ledger.entry_proof(), kept=ledger.series()[::2]) == 1
        assert "checkpoint 2 is missing" in verify.said


def _pair(*trees: list[Leaf], versions: tuple[int, ...] = (MAPS, MAPS)) -> tuple[list[Checkpoint], list[list[Tile]]]:
    """Signed checkpoints over these leaves, whatever they are: a service that lies signs too."""
    checkpoints: list[Checkpoint] = []
    tiles = [[make_tile(leaves, version)] for leaves, version in zip(trees, versions, strict=True)]
    for tree, leaves, version in zip(tiles, trees, versions, strict=True):
        before = checkpoints[-1] if checkpoints else None
        checkpoints.append(make_checkpoint(before, _names(tree, version), len(leaves), _START, _KEY, version))
    return checkpoints, tiles


def _head_proof(checkpoint: Checkpoint, tile: Tile, leaf_at: int, entries: list[Document] | None = None) -> Document:
    leaf = tile.leaves[leaf_at]
    names = _names([tile], checkpoint.version)
    inclusion = inclusion_of(names, 0, tile, leaf_at, checkpoint.wallets, checkpoint.version)
    return {
        "wallet_id": leaf.wallet_id,
        "head": {"seq": leaf.seq, "head_hash": leaf.head_hash},
        "checkpoint": checkpoint_view(checkpoint),
        "leaf": leaf._asdict(),
        "inclusion": inclusion_view(inclusion),
        "entries": entries or [],
        "has_more": False,
    }


class TestTheFirstVersion:
    """What a release before the second version has handed out, to the letter."""

    def test_still_verifies(self, verify: Verifier) -> None:
        kept = json.loads((Path(__file__).parent / "first_version.json").read_text())
        key = verify.write(kept["keys"])
        for command in ("wallet", "entry", "checkpoints"):
            assert verify(command, kept[command], key=key) == 0, verify.said
        assert verify("statement", *kept["statement"], key=key) == 0, verify.said
        since = {"since": kept["kept"], "kept": kept["checkpoints"], "key": key}
        assert verify("entry", kept["entry"], **since) == 0, verify.said
        assert verify("wallet", kept["wallet"], **since) == 1
        assert "get the proof with since=1" in verify.said


class TestOneWalletTwice:
    """A service that signs two heads of one wallet, and shows each to somebody else."""

    _LEAVES: ClassVar = [Leaf("wal_a", 1, "a" * 64), Leaf("wal_b", 2, "b" * 64), Leaf("wal_c", 3, "c" * 64)]
    _TWIN = Leaf("wal_b", 1, "d" * 64)

    def _proven(self, verify: Verifier, leaves: list[Leaf], separators: list[str], version: int) -> list[int]:
        """The places at which a head of wal_b is believed."""
        hashes = [leaf_hash_of(leaf, version) for leaf in leaves]
        if version == LISTS:
            root, paths = root_of(hashes), [audit_path(at, hashes) for at in range(len(leaves))]
            inclusions = [{"path": [one.hex() for one in path]} for path in paths]
        else:
            root = map_root(hashes, separators)
            branches = [map_path(at, hashes, separators) for at in range(len(leaves))]
            inclusions = [
                {"path": [one.hash.hex() for one in path], "separators": [one.separator for one in path]}
                for path in branches
            ]
        checkpoint = Checkpoint(1, _START, len(leaves), root.hex(), "0" * 64, key_id_of(_KEY.public_key()), "", version)
        signed = _signed(checkpoint)
        proven = []
        for at, leaf in enumerate(leaves):
            place = {"leaf_index": at, "tree_size": len(leaves), **inclusions[at]}
            proof = {
                "wallet_id": leaf.wallet_id,
                "head": {"seq": leaf.seq, "head_hash": leaf.head_hash},
                "checkpoint": signed,
                "leaf": leaf._asdict(),
                "inclusion": place,
                "entries": [],
                "has_more": False,
            }
            if leaf.wallet_id == "wal_b" and verify("wallet", proof) == 0:
                proven.append(at)
        return proven

    def test_was_proven_twice_by_the_first_version(self, verify: Verifier) -> None:
        assert self._proven(verify, [*self._LEAVES, self._TWIN], [], LISTS) == [1, 3]

    @pytest.mark.parametrize("place", range(4))
    def test_is_proven_once_at_most_wherever_it_was_put(self, verify: Verifier, place: int) -> None:
        leaves = [*self._LEAVES[:place], self._TWIN, *self._LEAVES[place:]]
        texts = ("", "wal_a", "wal_b", "wal_ba", "wal_c", "wal_d")
        for separators in product(texts, repeat=3):
            assert len(self._proven(verify, leaves, list(separators), MAPS)) <= 1


class TestAbsence:
    def test_is_proven_before_between_and_behind_all_others(self, maps: Ledger, verify: Verifier) -> None:
        for wallet_id in ("", "wal_", f"{_WALLET}0", f"wal_{255:032x}x", f"wal_{_WALLETS:032x}", "zzz"):
            assert verify("absence", maps.absence_proof(wallet_id)) == 0, verify.said
            assert f"wallet {wallet_id} is not under checkpoint 1" in verify.said

    def test_of_a_wallet_that_is_there_is_refused(self, maps: Ledger, verify: Verifier) -> None:
        proof = maps.absence_proof(_WALLET)
        assert verify("absence", proof) == 1
        assert "it is there" in verify.said
        for other in (f"wal_{299:032x}", f"wal_{301:032x}", f"wal_{0:032x}"):
            borrowed = {**maps.absence_proof(f"{other}0"), "wallet_id": _WALLET}
            assert verify("absence", borrowed) == 1
            assert "can not be" in verify.said

    def test_is_not_shown_by_the_first_version(self, verify: Verifier) -> None:
        (checkpoint,), ((tile,),) = _pair([Leaf("wal_a", 1, "a" * 64)], versions=(LISTS,))
        proof = {**_absence(checkpoint, [tile], "wal_b"), "checkpoint": checkpoint_view(checkpoint)}
        assert verify("absence", proof) == 1
        assert "first version" in verify.said

    def test_of_everybody_is_proven_by_an_empty_map(self, verify: Verifier) -> None:
        empty = make_checkpoint(None, [], 0, _START, _KEY)
        assert verify("absence", _absence(empty, [], "wal_b")) == 0, verify.said
        forged = _signed(empty._replace(root="a" * 64))
        assert verify("absence", {**_absence(empty, [], "wal_b"), "checkpoint": forged}) == 1
        # Nothing is proven to be in it either.
        leaf = Leaf("wal_b", 1, "b" * 64)
        sealed = {"leaf": leaf._asdict(), "inclusion": {"leaf_index": 0, "tree_size": 0, "path": [], "separators": []}}
        head = {"seq": 1, "head_hash": "b" * 64}
        proof = {"wallet_id": "wal_b", "head": head, "checkpoint": checkpoint_view(empty), **sealed}
        assert verify("wallet", {**proof, "entries": [], "has_more": False}) == 1

    @pytest.mark.parametrize("how", CHANGES)
    def test_with_anything_changed_is_refused(self, maps: Ledger, verify: Verifier, how: str) -> None:
        # Whose absence it is may be changed to whoever else would be at that place.
        TestWhateverIs._refuses_each(
            verify, "absence", maps.absence_proof(f"{_WALLET}0"), how, {("wallet_id",)} if how == "changed" else set()
        )


class TestSince:
    """Who has kept a checkpoint or a proof sees whether what came later follows from it."""

    def test_what_only_grew_is_proven(self, ledger: Ledger, verify: Verifier) -> None:
        later = ledger.wallet_proof(3) | {"entries": ledger.rows(3, 7)}
        assert verify("wallet", later, since=ledger.wallet_proof(1), kept=ledger.series()) == 0, verify.said
        assert "it follows from checkpoint 1, which you had" in verify.said
        assert verify("wallet", ledger.wallet_proof(3), since=ledger.series()[0], kept=ledger.series()) == 0
        assert verify("wallet", ledger.wallet_proof(3), since=ledger.wallet_proof(2)) == 0, verify.said
        assert verify("entry", ledger.entry_proof(3, 3), since=ledger.entry_proof(3, 2)) == 0, verify.said
        assert verify("checkpoints", ledger.series(), since=ledger.wallet_proof(1)) == 0, verify.said
        statement = ledger.statement(2, 5), ledger.entry_proof(5, 3)
        assert verify("statement", *statement, since=ledger.series()[1]) == 0, verify.said

    def test_the_checkpoints_between_are_needed(self, ledger: Ledger, verify: Verifier) -> None:
        later = ledger.wallet_proof(3) | {"entries": ledger.rows(3, 7)}
        assert verify("wallet", later, since=ledger.wallet_proof(1)) == 1
        assert "checkpoint 2 is missing" in verify.said
        assert "--checkpoints" in verify.said

    def test_the_entries_between_are_needed(self, ledger: Ledger, verify: Verifier) -> None:
        assert verify("wallet", ledger.wallet_proof(3), since=ledger.wallet_proof(1), kept=ledger.series()) == 1
        assert "get the proof with since=1" in verify.said
        later = ledger.wallet_proof(3) | {"entries": ledger.rows(4, 7)}
        assert verify("wallet", later, since=ledger.wallet_proof(1), kept=ledger.series()) == 1

    def test_entries_from_before_the_leaf_hold_without_it_too(self, ledger: Ledger, verify: Verifier) -> None:
        later = ledger.wallet_proof(3) | {"entries": ledger.rows(3, 7)}
        assert verify("wallet", later) == 0, verify.said
        assert verify("wallet", {**later, "entries": ledger.rows(3, 4), "head": later["leaf"] | {}}) == 1

    @pytest.mark.parametrize("versions", [(MAPS, MAPS), (LISTS, MAPS), (LISTS, LISTS)])
    def test_a_wallet_that_has_become_shorter_is_refused(
        self, ledger: Ledger, verify: Verifier, versions: tuple[int, int]
    ) -> None:
        longer = [Leaf(_WALLET, 5, ledger.entries[4].hash)]
        shorter = [Leaf(_WALLET, 4, ledger.entries[3].hash)]
        (first, second), ((one,), (other,)) = _pair(longer, shorter, versions=versions)
        before, after = _head_proof(first, one, 0), _head_proof(second, other, 0)
        assert verify("wallet", after) == 0, "by itself nothing is wrong with it"
        assert verify("wallet", after, since=before) == 1
        assert "has become shorter" in verify.said

    def test_a_wallet_with_another_past_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        forged = _resealed(ledger.entries[4], reference="another")
        seen = [Leaf(_WALLET, 5, ledger.entries[4].hash)]
        (first, second), ((one,), (other,)) = _pair(seen, [Leaf(_WALLET, 5, forged["hash"])])
        assert verify("wallet", _head_proof(second, other, 0), since=_head_proof(first, one, 0)) == 1
        entry = {"entry": forged, "following": [], "has_more": False, "head": None}
        sealed = {name: _head_proof(second, other, 0)[name] for name in ("checkpoint", "leaf", "inclusion")}
        assert verify("entry", entry | sealed) == 0, verify.said
        assert verify("entry", entry | sealed, since=_head_proof(first, one, 0)) == 1

    @pytest.mark.parametrize("seen", [3, 4])
    def test_a_past_that_was_rewritten_before_what_is_shown_is_refused(
        self, ledger: Ledger, verify: Verifier, seen: int
    ) -> None:
        """As far as it can be told: from entries that reach back to what was seen, or begin right behind it."""
        known = ledger.entries[seen - 1]
        history = [ledger.entries[1]._replace(reference="another")]
        history[0] = history[0]._replace(hash=entry_hash(history[0]))
        for entry in ledger.entries[2:5]:
            linked = entry._replace(prev_hash=history[-1].hash)
            history.append(linked._replace(hash=entry_hash(linked)))
        (first, second), ((one,), (other,)) = _pair(
            [Leaf(_WALLET, seen, known.hash)], [Leaf(_WALLET, 5, history[-1].hash)]
        )
        before, after = _head_proof(first, one, 0), _head_proof(second, other, 0)
        sealed = {name: after[name] for name in ("checkpoint", "leaf", "inclusion")}
        rest = {"following": [], "has_more": False, "head": None, **sealed}
        proof = {"entry": entry_view(history[-1]), **rest}
        for begin in (2, seen + 1):
            statement = ledger.statement(begin, 5)
            statement["rows"] = [_with_balance(entry_view(entry)) for entry in history[begin - 2 :]]
            assert verify("statement", statement, proof) == 0, verify.said
            assert verify("statement", statement, proof, since=before) == 1
            assert verify("statement", statement, after, since=before) == 1
        following = {"following": [entry_view(entry) for entry in history[seen:]]}
        proof = {"entry": entry_view(history[seen - 1]), **rest, **following}
        assert verify("entry", proof) == 0, verify.said
        assert verify("entry", proof, since=before) == 1

    def test_a_wallet_that_has_gone_is_refused(self, verify: Verifier) -> None:
        leaf, other = Leaf("wal_b", 2, "b" * 64), Leaf("wal_a", 1, "a" * 64)
        (first, second), ((one,), (rest,)) = _pair([other, leaf], [other])
        proof = _absence(second, [rest], "wal_b")
        assert verify("absence", proof) == 0, verify.said
        assert verify("absence", proof, since=checkpoint_view(first)) == 0, verify.said
        assert verify("absence", proof, since=_head_proof(first, one, 1)) == 1
        assert "has gone" in verify.said

    def test_a_checkpoint_that_does_not_come_before_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        first, second, _ = ledger.checkpoints
        twin = make_checkpoint(first, ledger.names(1), _WALLETS, second.created_at, _KEY, ledger.version)
        for wrong in (checkpoint_view(twin), _signed(first._replace(wallets=1))):
            assert verify("wallet", ledger.wallet_proof(2), since=wrong) == 1
            assert verify("checkpoints", ledger.series(), since=wrong) == 1
        assert verify("wallet", ledger.wallet_proof(1), since=ledger.series()[1]) == 1
        assert "older than the one that you had" in verify.said
        assert verify("checkpoints", ledger.series()[:2], since=ledger.series()[2]) == 1
        assert verify("wallet", ledger.wallet_proof(2), since={"root": "x"}) == 1

    def test_the_first_version_does_not_come_back(self, verify: Verifier) -> None:
        leaves = [Leaf("wal_a", 0, GENESIS_HASH)]
        checkpoints, _ = _pair(leaves, leaves, versions=(LISTS, MAPS))
        assert verify("checkpoints", [checkpoint_view(one) for one in checkpoints]) == 0, verify.said
        checkpoints, _ = _pair(leaves, leaves, versions=(MAPS, LISTS))
        assert verify("checkpoints", [checkpoint_view(one) for one in checkpoints]) == 1
        assert "of the first version" in verify.said

    def test_the_third_version_seals_audit_events_and_is_followed_by_no_earlier_one(self, verify: Verifier) -> None:
        second = make_checkpoint(None, [], 0, _START, _KEY)
        sealing = Sealing()
        sealing.add({"id": "aud_1", "action": "x"})
        third = make_checkpoint(second, [], 0, _START, _KEY, audit=sealing.seal())
        views = [checkpoint_view(one) for one in (second, third)]
        assert (views[1]["version"], views[1]["audit_events"]) == (3, 1)
        assert verify("checkpoints", views) == 0, verify.said
        for changed in ({"audit_root": "0" * 64}, {"audit_events": 0}):
            assert verify("checkpoints", [views[0], views[1] | changed]) == 1
            assert "signature" in verify.said
        for missing in ("audit_root", "audit_events"):
            assert verify("checkpoints", [{name: one for name, one in views[1].items() if name != missing}]) == 1
        back = make_checkpoint(third, [], 0, _START, _KEY)
        assert verify("checkpoints", [*views, checkpoint_view(back)]) == 1
        assert "of the second version, the one before of the third" in verify.said

    def test_a_version_that_nobody_knows_is_refused(self, verify: Verifier) -> None:
        checkpoint = make_checkpoint(None, [], 0, _START, _KEY)._replace(version=4)
        assert verify("checkpoints", [_signed(checkpoint)]) == 1
        assert "does not know" in verify.said


class TestAStatement:
    @pytest.mark.parametrize(("first", "last"), [(1, 7), (2, 5), (3, 3), (1, 0), (4, 3)])
    def test_is_consistent_in_itself(self, ledger: Ledger, verify: Verifier, first: int, last: int) -> None:
        assert verify("statement", ledger.statement(first, last)) == 0, verify.said
        assert "nothing ties it to a checkpoint" in verify.said

    def test_needs_no_key_for_that(self, ledger: Ledger, verify: Verifier) -> None:
        assert main(["statement", verify.write(ledger.statement())]) == 0
        assert main(["statement", verify.write(ledger.statement()), verify.write(ledger.wallet_proof(2))]) == 1

    @pytest.mark.parametrize(("first", "last"), [(1, 5), (2, 5), (5, 5)])
    def test_is_proven_by_a_wallet_that_has_not_moved_since(
        self, ledger: Ledger, verify: Verifier, first: int, last: int
    ) -> None:
        assert verify("statement", ledger.statement(first, last), ledger.wallet_proof(2)) == 0, verify.said
        assert "checkpoint 2" in verify.said

    def test_is_proven_by_its_last_entry(self, ledger: Ledger, verify: Verifier) -> None:
        assert verify("statement", ledger.statement(2, 4), ledger.entry_proof(4, 2)) == 0, verify.said
        assert verify("statement", ledger.statement(5, 4), ledger.entry_proof(4, 2)) == 0, verify.said

    def test_is_not_proven_by_a_checkpoint_before_or_after_its_end(self, ledger: Ledger, verify: Verifier) -> None:
        for last in (4, 6):
            assert verify("statement", ledger.statement(2, last), ledger.wallet_proof(2)) == 1
            assert "get the proof of that entry" in verify.said
        assert verify("statement", ledger.statement(2, 4), ledger.entry_proof(5, 2)) == 1
        assert verify("statement", ledger.statement(6, 5), ledger.wallet_proof(2)) == 1
        assert "without rows" in verify.said

    def test_with_another_history_of_the_same_length_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        forged = ledger.entries[4]._replace(reference="another")
        statement = ledger.statement()
        statement["rows"][-1] = _with_balance(entry_view(forged._replace(hash=entry_hash(forged))))
        assert verify("statement", statement) == 0
        assert verify("statement", statement, ledger.wallet_proof(2)) == 1
        assert verify("statement", statement, ledger.entry_proof(5, 2)) == 1

    def test_with_a_forged_row_in_the_middle_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        statement = ledger.statement()
        statement["rows"][1] = _with_balance(_resealed(ledger.entries[2], reference="another"))
        assert verify("statement", statement) == 1
        assert "entry 4 does not follow" in verify.said

    def test_with_a_row_that_starts_elsewhere_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        last = ledger.entries[4]
        more = {name: getattr(last, name) + 1 for name in ("available_before", "available_after")}
        statement = ledger.statement()
        statement["rows"][-1] = _with_balance(_resealed(last, **more))
        statement["closing"] |= {"available": more["available_after"], "balance": more["available_after"]}
        assert verify("statement", statement) == 1
        assert "the balance before was" in verify.said

    def test_with_a_movement_of_no_known_type_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        statement = ledger.statement()
        statement["rows"][-1] = _with_balance(_resealed(ledger.entries[4], type="GIFT"))
        assert verify("statement", statement) == 1
        assert "unknown type" in verify.said

    def test_starts_with_nothing_where_the_wallet_does(self, ledger: Ledger, verify: Verifier) -> None:
        opening = {"available": 5, "held": 0, "balance": 5, "seq": 0}
        assert verify("statement", ledger.statement(1, 0) | {"opening": opening}) == 1

    def test_of_another_balance_without_rows_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        statement = ledger.statement(5, 4)
        for name in ("opening", "closing"):
            statement[name] = {"available": 9_999, "held": 0, "balance": 9_999, "seq": 4}
        assert verify("statement", statement) == 0
        assert verify("statement", statement, ledger.entry_proof(4, 2)) == 1

    def test_of_another_wallet_than_the_proof_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        statement = ledger.statement(1, 0) | {"wallet_id": "wal_other"}
        assert verify("statement", statement) == 0
        assert verify("statement", statement, ledger.wallet_proof(2)) == 1
        assert "another wallet" in verify.said

    def test_with_another_running_balance_or_change_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        for name in ("change", "balance"):
            statement = ledger.statement()
            statement["rows"][1][name] += 1
            assert verify("statement", statement) == 1

    def test_with_reordered_rows_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        statement = ledger.statement()
        assert verify("statement", {**statement, "rows": statement["rows"][::-1]}) == 1

    def test_with_a_row_from_outside_its_time_is_refused(self, ledger: Ledger, verify: Verifier) -> None:
        statement = ledger.statement()
        for fits in ({"from": None, "to": None}, {"from": "2026-02-03"}, {"from": "2026-02-03T05:30:00+05:30"}):
            assert verify("statement", statement | fits) == 0, verify.said
        for late in ({"from": "2026-02-03T00:00:00.001Z"}, {"to": "2026-02-06T00:00:00.000Z"}, {"to": "soon"}):
            assert verify("statement", statement | late) == 1

    def test_with_wrong_arithmetic_is_refused_however_well_it_is_sealed(self, ledger: Ledger, verify: Verifier) -> None:
        wrong = ledger.entries[4]._replace(available_after=9_999)
        statement = ledger.statement()
        statement["rows"][-1] = _with_balance(entry_view(wrong._replace(hash=entry_hash(wrong))))
        statement["closing"] = {"available": 9_999, "held": 0, "balance": 9_999, "seq": 5}
        assert verify("statement", statement) == 1
        assert "does not lead from" in verify.said


class TestWhatCannotBeRead:
    @pytest.mark.parametrize(
        "text", ["", "{", '{"a": 1, "a": 1}', '{"a": NaN}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
    )
    def test_is_told_by_another_status(self, verify: Verifier, text: str) -> None:
        assert verify("wallet", text) == 2

    @pytest.mark.parametrize("value", [None, 1, "proof", [], {}, [{}]])
    def test_is_not_confused_with_json_that_is_no_proof(self, verify: Verifier, value: Any) -> None:
        for command in ("wallet", "entry", "statement", "checkpoints", "absence"):
            assert verify(command, json.dumps(value)) == 1

    def test_may_be_the_key(self, ledger: Ledger, verify: Verifier) -> None:
        other_kind = (
            generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        for key in (
            other_kind.decode(),
            "",
            "{}",
            '{"keys": [{"public_key": "AAAA"}]}',
            "[]",
            "-----BEGIN PUBLIC KEY-----",
        ):
            assert verify("wallet", ledger.wallet_proof(), key=verify.write(key)) == 2

    def test_may_be_missing(self, verify: Verifier, tmp_path: Path) -> None:
        assert main(["wallet", str(tmp_path / "none"), "--key", verify.key]) == 2


class TestTheCommand:
    def test_stands_alone(self, ledger: Ledger, verify: Verifier) -> None:
        """Copied elsewhere it works, without anything of the service in reach."""
        alone = Path(verify.write((Path(__file__).parents[2] / "scripts" / "verify_proof.py").read_text()))
        program = (
            "import runpy, sys; sys.path = [p for p in sys.path if 'site-packages' in p or 'python3' in p]; "
            "sys.modules['service'] = sys.modules['scripts'] = None; sys.argv = ['verify_proof', *sys.argv[2:]]; "
            f"runpy.run_path({str(alone)!r}, run_name='__main__')"
        )
        arguments = ["wallet", verify.write(ledger.wallet_proof()), "--key", verify.key]
        ended = subprocess.run(  # noqa: S603 this very Python
            [sys.executable, "-c", program, "--", *arguments],
            cwd=verify.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("proven: wallet")
