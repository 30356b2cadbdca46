"""Checkpoints over HTTP: the series, for anybody with a token, and the key it is signed with, for anybody."""

from typing import Annotated

from fastapi import Path, Query, Response
from pydantic import Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View
from service.domain.checkpoints import checkpoint_view, key_view
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.permissions import Permission
from service.services import checkpoints
from service.services.callers import Caller

router = api_router("Proofs")

# As high as JSON counts exactly.
LARGEST_NUMBER = MAX_AMOUNT_MINOR

_Number = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="They are counted from 1", examples=[17])]

_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class CheckpointView(View):
    """All wallets' heads at one moment. The signature is over the tag of its version and this object as canonical JSON,
    without `signature`. One of the first version has no `version`, and no tag.
    """

    number: int = Field(ge=1, examples=[17])
    created_at: str = Field(json_schema_extra={"format": "date-time"}, examples=["2026-02-24T12:00:00.000Z"])
    wallets: int = Field(ge=0, description="Size of the tree", examples=[1042])
    root: str = Field(description="Of the map of all wallets' heads", examples=[_HASH])
    prev_hash: str = Field(description="SHA-256 of the checkpoint before; 64 zeros for the first", examples=["0" * 64])
    key_id: str = Field(description="Which of the keys signed", examples=["5a105e8b9d40e1329780d62ea2265d8a"])
    signature: str = Field(description="Ed25519, in base64", examples=["oGJ6x3u0Yw8d…"])
    version: int | None = Field(default=None, ge=2, description="Absent in those of the first version", examples=[3])
    audit_events: int | None = Field(
        default=None, ge=0, description="How many audit events it seals; absent before version 3", examples=[12]
    )
    audit_root: str | None = Field(
        default=None, description="Hash over these audit events; absent before version 3", examples=[_HASH]
    )


class KeyView(View):
    key_id: str = Field(examples=["5a105e8b9d40e1329780d62ea2265d8a"])
    algorithm: str = Field(examples=["Ed25519"])
    public_key: str = Field(description="32 bytes in base64", examples=["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="])
    pem: str = Field(examples=["-----BEGIN PUBLIC KEY-----\n…\n-----END PUBLIC KEY-----\n"])


class KeysView(View):
    keys: list[KeyView]


@router.get(
    "/checkpoints/keys",
    operation_id="get_checkpoint_keys",
    response_model=KeysView,
    summary="The public key that checkpoints are signed with",
)
async def get_keys(resources: OpenResources) -> Response:
    """Without a token: keep it from the day you begin to trust it, and check that it stays the same."""
    return json_response({"keys": [key_view(resources.settings.checkpoint_verifier)]})


@router.get(
    "/checkpoints/{number}",
    response_model=CheckpointView,
    summary="One checkpoint",
    description="Each names the hash of the one before, so that none can be taken out.",
)
async def get_checkpoint(
    number: _Number,
    _user: Annotated[Caller, require(Permission.WALLETS_READ)],
) -> Response:
    checkpoint = await checkpoints.get_checkpoint(number)
    return json_response(checkpoint_view(checkpoint))


@router.get(
    "/checkpoints",
    response_model=PageView[CheckpointView],
    summary="All checkpoints, newest first",
    description="The same ones for everybody: compare yours with somebody else's.",
)
async def list_checkpoints(
    query: Annotated[PageQuery, Query()],
    user: Annotated[Caller, require(Permission.WALLETS_READ)],
    resources: OpenResources,
) -> Response:
    page = open_page(query, resources.settings, "checkpoints", user.user_id, int)
    rows = await checkpoints.list_checkpoints(before_number=page.position, limit=page.limit_and_one)
    return page_of(rows, page, lambda checkpoint: checkpoint.number, checkpoint_view)
