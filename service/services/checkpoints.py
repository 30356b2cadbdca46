"""Checkpoints: taking them, reading them, and a wallet's place in one."""

from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, read_in_snapshot
from service.domain.audit_events import AuditAction
from service.domain.breaks import SYSTEM
from service.domain.checkpoints import (
    LISTS,
    LOOK_BACK,
    NOBODY,
    TILE_LEAVES,
    Absence,
    AuditSeal,
    Checkpoint,
    Inclusion,
    Leaf,
    Sealing,
    Tile,
    TileName,
    absence_of,
    checkpoint_hash,
    inclusion_of,
    make_checkpoint,
    make_tile,
    name_tile,
    place_among,
    place_within,
    search_among,
    search_within,
)
from service.domain.clock import to_rfc3339, utc_now
from service.domain.identifiers import Prefix, first_id_at
from service.errors import NotFound
from service.gateways.checkpoint_places import CheckpointPlace, PlaceEnd
from service.repositories import audit_events as audit_repository
from service.repositories import checkpoints as checkpoint_repository
from service.repositories import wallets as wallet_repository
from service.services.audit_events import new_audit_event
from service.services.checkpoint_series import Series, follow_series, require_same
from service.settings import Settings

log = structlog.get_logger()

# A difference of machines' clocks that is no news.
_CLOCKS_APART = timedelta(minutes=5)
# What is in memory at once: 16 tiles of some 24 kB.
_TILES_AT_ONCE = 16
# Their ids take 5 MB of the document's 16. More than rate limits let come in an hour; the next one seals the rest.
_SEALED_AT_ONCE = 100_000
# Checkpoints of a time to come that this process has logged: workers look every ten seconds, for as long as it lasts.
_told_of: set[int] = set()


class Missing(NamedTuple):
    """That a checkpoint saw no such wallet."""

    checkpoint: Checkpoint
    absence: Absence


class Sealed(NamedTuple):
    """A wallet's chain as a checkpoint saw it."""

    checkpoint: Checkpoint
    leaf: Leaf
    inclusion: Inclusion


class NoSigningKey(Exception):
    """A process that was given the public half of the key alone may check checkpoints, and cannot sign them."""


def signing_key(settings: Settings) -> Ed25519PrivateKey:
    """Raises NoSigningKey."""
    if settings.checkpoint_seed is None:
        raise NoSigningKey("WALLET_CHECKPOINT_SIGNING_KEY is not set, and WALLET_CHECKPOINT_PUBLIC_KEY is")
    return Ed25519PrivateKey.from_private_bytes(settings.checkpoint_seed)


async def take_checkpoint_if_due(
    client: Client, settings: Settings, now: datetime, place: CheckpointPlace | None = None
) -> Checkpoint | None:
    """For a worker to call often. None where it is too early, or another process was first.

    Copies to the place what it lacks, also where none is due: a crash may have come between database and place.
    """
    latest = (await follow_series(place, settings.checkpoint_verifier)).last
    if latest is not None and now - latest.created_at < timedelta(seconds=settings.checkpoint_interval_s):
        if latest.created_at - now > _CLOCKS_APART:
            # By our own signature: a machine's clock was wrong. It ends when that time has come.
            _tell_of_a_time_to_come(latest)
        return None
    return await take_checkpoint(client, settings, place)


def _tell_of_a_time_to_come(latest: Checkpoint) -> None:
    if latest.number not in _told_of:
        _told_of.add(latest.number)
        log.error("checkpoint.of_a_time_to_come", number=latest.number, created_at=to_rfc3339(latest.created_at))


async def take_checkpoint(
    client: Client, settings: Settings, place: CheckpointPlace | None = None, *, begins_evidence: bool = False
) -> Checkpoint | None:
    """All wallets' heads as of one moment, sealed and signed. None where another process was first, or where there
    are neither wallets nor checkpoints yet.

    What the database has is verified first (follow_series): a checkpoint that this key has not signed is refused, and
    its number left out. The latest one of the series is in the same snapshot, so that along the series no wallet's
    chain gets shorter: who sees the one before sees wallets at least as new. Tiles are written first; those of a
    checkpoint that came second stay behind, unnamed.

    The place outside the database is compared first, and nothing is signed while it differs (PlaceDiffers, OSError).
    After a crash between the insert and the copy the next caller copies the checkpoint: the database decides what it
    is, so that the copy is always a beginning of the series.
    """
    key = signing_key(settings)
    series = await follow_series(place, settings.checkpoint_verifier, begins_evidence=begins_evidence)
    before = series.last

    async def write_tiles(session: AsyncClientSession) -> tuple[list[TileName], int, AuditSeal]:
        written: set[str] = set()
        if before is not None:
            kept = await checkpoint_repository.find_named_with_tiles(before.number, session=session)
            require_same(PlaceEnd(before.number, checkpoint_hash(before)), None if kept is None else kept[0])
            written = set() if kept is None else {tile.id for tile in kept[1]}
        names, wallets = await _write_tiles(written, session)
        return names, wallets, await _seal_audit_events(series, now, session)

    now = utc_now()
    names, wallets, audit = await read_in_snapshot(client, write_tiles)
    if before is None and wallets == 0:
        return None
    number = await series.next_number()
    checkpoint = make_checkpoint(before, names, wallets, now, key, audit=audit, number=number)
    if not await checkpoint_repository.insert(checkpoint, names, audit.ids):
        log.info("checkpoint.another_was_first", number=checkpoint.number)
        return None
    # By this note check-ledger sees that the latest checkpoint was deleted. A crash here only leaves the note out.
    note = new_audit_event(
        AuditAction.CHECKPOINT_TAKEN,
        actor_id=SYSTEM,
        subject_id=f"checkpoint_{checkpoint.number}",
        request_id=None,
        number=checkpoint.number,
        hash=checkpoint_hash(checkpoint),
    )
    await audit_repository.insert(note, session=None)
    await follow_series(place, settings.checkpoint_verifier)
    log.info("checkpoint.taken", number=checkpoint.number, wallets=wallets, root=checkpoint.root)
    return checkpoint


async def _seal_audit_events(series: Series, now: datetime, session: AsyncClientSession) -> AuditSeal:
    """Seals the events that no checkpoint has sealed yet, whatever their order: an id may be made before another one's
    and be committed after it. The first checkpoint that seals any begins a day back; what is older stays unsealed.

    They are not chained as they are written: one document would then be changed by every deed of everybody. Events and
    sealed ids are read side by side, in the same order, so that a portion of either is all that is in memory.
    """
    before = series.last
    is_first = before is None or before.audit_root is None
    start = (now if before is None or is_first else before.created_at) - LOOK_BACK
    first_id = first_id_at(Prefix.AUDIT_EVENT, start)
    # Clocks of two processes are seconds apart, so that an event may be a little younger than what seals it.
    sealed_ids = checkpoint_repository.stream_sealed_since(
        start - LOOK_BACK,
        first_id,
        last_number=0 if before is None else before.number,
        refused=series.refused,
        session=session,
    )
    sealing = Sealing()
    sealed_id = await anext(sealed_ids, None)
    async for event in audit_repository.stream_since(first_id, session=session):
        while sealed_id is not None and sealed_id < event["id"]:
            sealed_id = await anext(sealed_ids, None)
        if sealed_id == event["id"]:
            continue
        if sealing.count >= _SEALED_AT_ONCE:
            log.warning("checkpoint.audit_events_left", sealed=sealing.count)
            break
        sealing.add(event)
    return sealing.seal()


async def _write_tiles(written: set[str], session: AsyncClientSession) -> tuple[list[TileName], int]:
    """The names of the tree's tiles in order, and how many wallets there are; what is not `written` yet, it writes."""
    names: list[TileName] = []
    unwritten: list[Tile] = []
    leaves: list[Leaf] = []
    before: Tile | None = None
    wallets = 0

    async def close_tile() -> None:
        nonlocal before
        tile = make_tile(leaves)
        names.append(name_tile(tile, before))
        before = tile
        leaves.clear()
        if tile.id not in written:
            unwritten.append(tile)
        if len(unwritten) >= _TILES_AT_ONCE:
            await checkpoint_repository.insert_missing_tiles(unwritten)
            unwritten.clear()

    async for leaf in wallet_repository.stream_heads(session=session):
        wallets += 1
        leaves.append(leaf)
        if len(leaves) == TILE_LEAVES:
            await close_tile()
    if leaves:
        await close_tile()
    if unwritten:
        await checkpoint_repository.insert_missing_tiles(unwritten)
    return names, wallets


async def list_checkpoints(*, before_number: int | None, limit: int) -> list[Checkpoint]:
    """Newest first."""
    return await checkpoint_repository.find_page(before_number=before_number, limit=limit)


async def get_checkpoint(number: int) -> Checkpoint:
    """Raises NotFound."""
    checkpoint = await checkpoint_repository.find(number)
    if checkpoint is None:
        raise NotFound(f"There is no checkpoint {number}")
    return checkpoint


async def find_sealed(wallet_id: str, number: int) -> Sealed | None:
    """The wallet in that checkpoint; None where it is not in it. Raises NotFound where there is no such checkpoint.

    Its place is looked up, not counted: a wallet whose id was made before another's may be committed after it.
    """
    checkpoint, tiles = await _find_with_tiles(number)
    tile_at = place_among(tiles, wallet_id)
    if tile_at is None:
        return None
    tile = await _find_tile(tiles[tile_at].id)
    leaf_at = place_within(tile, wallet_id)
    if leaf_at is None:
        return None
    inclusion = inclusion_of(tiles, tile_at, tile, leaf_at, checkpoint.wallets, checkpoint.version)
    return Sealed(checkpoint, tile.leaves[leaf_at], inclusion)


async def find_missing(wallet_id: str, number: int) -> Missing | None:
    """That the wallet is not in that checkpoint; None where it is, or where a checkpoint of the first version could not
    show it. Raises NotFound where there is no such checkpoint.
    """
    checkpoint, tiles = await _find_with_tiles(number)
    if checkpoint.version == LISTS:
        return None
    if not tiles:
        return Missing(checkpoint, NOBODY)
    tile_at = search_among(tiles, wallet_id)
    tile = await _find_tile(tiles[tile_at].id)
    leaf_at = search_within(tile, wallet_id)
    if tile.leaves[leaf_at].wallet_id == wallet_id:
        return None
    return Missing(checkpoint, absence_of(tiles, tile_at, tile, leaf_at, checkpoint.wallets))


async def _find_with_tiles(number: int) -> tuple[Checkpoint, list[TileName]]:
    found = await checkpoint_repository.find_with_tiles(number)
    if found is None:
        raise NotFound(f"There is no checkpoint {number}")
    return found


async def _find_tile(tile_id: str) -> Tile:
    tile = await checkpoint_repository.find_tile(tile_id)
    assert tile is not None, "tiles are written before what names them"  # noqa: S101 nobody may delete one
    return tile
