"""Proofs over HTTP: of a wallet's head and of one entry, to be checked without us by scripts/verify_proof.py."""

from typing import Annotated, Any

from fastapi import Path, Query, Response
from pydantic import Field

from service.controllers.answers import json_response
from service.controllers.checkpoints import LARGEST_NUMBER, CheckpointView
from service.controllers.dependencies import OpenResources, require
from service.controllers.pagination import Query as StrictQuery
from service.controllers.routing import api_router
from service.controllers.schemas import EntryView, View, problem_responses
from service.controllers.wallets import WalletId
from service.domain.checkpoints import absence_view, checkpoint_view, inclusion_view
from service.domain.entries import entry_view
from service.domain.permissions import Permission
from service.domain.wallets import Wallet
from service.errors import NotCheckpointed, WalletCheckpointed
from service.services import proofs
from service.services.callers import Caller
from service.services.checkpoints import Sealed

router = api_router("Proofs")

# Some 700 kB: the entries of a busy hour in a few answers.
_ENTRIES_LIMIT = 1000

_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

EntryId = Annotated[str, Path(max_length=64)]


class EntryProofQuery(StrictQuery):
    after_seq: Annotated[
        int | None,
        Field(ge=0, le=LARGEST_NUMBER, description="Go on after this entry: the last one of the page before"),
    ] = None
    limit: Annotated[int, Field(ge=1, le=_ENTRIES_LIMIT, description="Entries in one answer")] = _ENTRIES_LIMIT


class WalletProofQuery(EntryProofQuery):
    checkpoint: Annotated[
        int | None, Field(ge=1, le=LARGEST_NUMBER, description="Under this checkpoint instead of the latest")
    ] = None

    since: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_NUMBER, description="Begin where the wallet stood under this earlier checkpoint"),
    ] = None


class AbsenceProofQuery(StrictQuery):
    checkpoint: Annotated[
        int | None, Field(ge=1, le=LARGEST_NUMBER, description="Of this checkpoint instead of the latest")
    ] = None


class HeadView(View):
    """The end of a wallet's chain."""

    seq: int = Field(ge=0, examples=[12])
    head_hash: str = Field(examples=[_HASH])


class LeafView(HeadView):
    """What was hashed into the tree, as canonical JSON: where the wallet's chain stood at the checkpoint."""

    wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])


class InclusionView(View):
    """The leaf's place in the tree, and what to hash it with to come to the root, the nearest first (RFC 6962).

    `separators` are the keys between the two halves at each step: who looks for the wallet by them from the root comes
    to this leaf and to no other. Trees of the first version have none.
    """

    leaf_index: int = Field(ge=0, examples=[41])
    tree_size: int = Field(ge=0, examples=[1042])
    path: list[str] = Field(examples=[[_HASH]])
    separators: list[str] | None = Field(default=None, examples=[["wal_0198c0ffee0070008000000000000002"]])


class WalletProofView(View):
    """`entries`, oldest first, lead from the leaf to the head; with `since`, from where the wallet stood before. With
    `has_more`, ask again with `checkpoint` and `after_seq`, and the same `since`.
    """

    wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    head: HeadView
    checkpoint: CheckpointView
    leaf: LeafView
    inclusion: InclusionView
    entries: list[EntryView]
    has_more: bool


class AbsenceProofView(View):
    """What stands where the wallet would be: another wallet's leaf, by the hashes that it consists of; null where the
    checkpoint saw no wallet at all.
    """

    wallet_id: str = Field(examples=["wal_0198c0ffee0070008000000000000001"])
    checkpoint: CheckpointView
    inclusion: InclusionView
    wallet_hash: str | None = Field(examples=[_HASH])
    head_hash: str | None = Field(examples=[_HASH])


class EntryProofView(View):
    """`following`, oldest first, leads from the entry to the leaf. Where no checkpoint seals the entry yet,
    `checkpoint`, `leaf` and `inclusion` are null and it leads to the wallet's `head`, which is null otherwise.
    """

    entry: EntryView
    following: list[EntryView]
    has_more: bool
    head: HeadView | None
    checkpoint: CheckpointView | None
    leaf: LeafView | None
    inclusion: InclusionView | None


@router.get(
    "/wallets/{wallet_id}/proof",
    operation_id="get_wallet_proof",
    response_model=WalletProofView,
    responses=problem_responses(NotCheckpointed),
    summary="Proof of a wallet's head",
    description="A signed checkpoint, the wallet's place in it, and all entries since: enough to check the balance "
    "without us.",
)
async def prove_wallet(
    wallet_id: WalletId,
    query: Annotated[WalletProofQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
    resources: OpenResources,
) -> Response:
    proof = await proofs.prove_wallet(
        wallet_id,
        user.user_id,
        resources.settings,
        number=query.checkpoint,
        since=query.since,
        after_seq=query.after_seq,
        limit=query.limit,
    )
    return _shape(
        {
            "wallet_id": wallet_id,
            "head": _head_view(proof.head),
            **_sealed_view(proof.sealed),
            "entries": [entry_view(entry) for entry in proof.entries],
            "has_more": proof.has_more,
        }
    )


@router.get(
    "/wallets/{wallet_id}/absence-proof",
    operation_id="get_absence_proof",
    response_model=AbsenceProofView,
    responses=problem_responses(WalletCheckpointed),
    summary="Proof that a checkpoint has no such wallet",
    description="Of a wallet that was opened since. Of one that was there before, it would show that it has gone.",
)
async def prove_absence(
    wallet_id: WalletId,
    query: Annotated[AbsenceProofQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
) -> Response:
    missing = await proofs.prove_absence(wallet_id, user.user_id, number=query.checkpoint)
    return _shape(
        {
            "wallet_id": wallet_id,
            "checkpoint": checkpoint_view(missing.checkpoint),
            **absence_view(missing.absence),
        }
    )


@router.get(
    "/wallets/{wallet_id}/transactions/{entry_id}/proof",
    operation_id="get_entry_proof",
    response_model=EntryProofView,
    summary="Proof of an entry",
    description="The entry, and what leads from it to the next checkpoint.",
)
async def prove_entry(
    wallet_id: WalletId,
    entry_id: EntryId,
    query: Annotated[EntryProofQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
) -> Response:
    proof = await proofs.prove_entry(wallet_id, entry_id, user.user_id, after_seq=query.after_seq, limit=query.limit)
    return _shape(
        {
            "entry": entry_view(proof.entry),
            "following": [entry_view(entry) for entry in proof.following],
            "has_more": proof.has_more,
            "head": None if proof.head is None else _head_view(proof.head),
            **_sealed_view(proof.sealed),
        }
    )


def _head_view(wallet: Wallet) -> dict[str, Any]:
    return {"seq": wallet.seq, "head_hash": wallet.head_hash}


def _sealed_view(sealed: Sealed | None) -> dict[str, Any]:
    if sealed is None:
        return dict.fromkeys(("checkpoint", "leaf", "inclusion"))
    return {
        "checkpoint": checkpoint_view(sealed.checkpoint),
        "leaf": sealed.leaf._asdict(),
        "inclusion": inclusion_view(sealed.inclusion),
    }


def _shape(body: dict[str, Any]) -> Response:
    return json_response(body)
