"""Tells the signer's own checkpoints from whatever else stands in the database, and copies them outside.

Whoever can write to the database can insert a checkpoint: with a number or a time to come, it would be the latest one
for ever, and nothing would be signed any more. Only the signing key tells what belongs to the series: a checkpoint does
when it has this key's signature, or when one that has it follows from it, link by link.
"""

from typing import NamedTuple

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.domain.checkpoints import NO_CHECKPOINT_HASH, Checkpoint, checkpoint_hash, is_signed_by
from service.domain.clock import utc_now
from service.gateways.checkpoint_places import CheckpointPlace, PlaceDiffers, PlaceEnd
from service.repositories import checkpoints as checkpoint_repository
from service.repositories.checkpoints import Row

log = structlog.get_logger()

# Read and copied in one go: about 250 kB.
_ROWS_AT_ONCE = 500
# Named one by one in the log at each look; the metric counts all. Somebody who writes thousands is found by the first.
_NAMED_AT_ONCE = 100


class EvidenceMissing(PlaceDiffers):
    """The place is empty, and the database has more than the first checkpoint.

    Somebody removed the copy, or it was never begun here. Whoever could remove it may have changed the database too, so
    a person decides: `make checkpoint ARGS=--begin-evidence`.
    """


class Series(NamedTuple):
    """Where the series ends, and which numbers behind it are taken by rows that do not belong to it."""

    last: Checkpoint | None
    refused: frozenset[int]

    async def next_number(self) -> int:
        """Returns the first number that no refused row has or had. Another worker's checkpoint may have it."""
        number = 1 if self.last is None else self.last.number + 1
        while True:
            portion = range(number, number + _ROWS_AT_ONCE)
            taken = self.refused | await checkpoint_repository.find_refused(portion)
            free = next((one for one in portion if one not in taken), None)
            if free is not None:
                return free
            number = portion.stop


async def follow_series(
    place: CheckpointPlace | None, key: Ed25519PublicKey, *, begins_evidence: bool = False
) -> Series:
    """Verifies what the database has beyond the place, appends to the place what belongs to the series, and refuses the
    rest: each such row is named in the log, in `refused_checkpoints` and in the metrics.

    The place is read first: what is in it was in the database before. Without a place the whole series is read.
    Raises PlaceDiffers where the database does not have the last checkpoint of the place, EvidenceMissing, and OSError.
    """
    end = None if place is None else await place.read_end()
    if end is None:
        return await _follow_whole(place, key, begins_evidence=begins_evidence)
    last = await _find_end(end)
    refused: list[tuple[Row, str]] = []
    position = last.number
    while rows := await checkpoint_repository.find_unverified(after_id=position, limit=_ROWS_AT_ONCE):
        genuine: list[Checkpoint] = []
        for row in rows:
            reason = _why_refused(row, last, key)
            if reason is None and row.checkpoint is not None:
                last = row.checkpoint
                genuine.append(last)
            else:
                refused.append((row, reason or ""))
        if genuine and place is not None:
            await place.append(genuine)
        position = rows[-1].id
    return await _refuse(last, refused)


async def _find_end(end: PlaceEnd) -> Checkpoint:
    found = await checkpoint_repository.find_unverified_at(end.number)
    kept = None if found is None else found.checkpoint
    require_same(end, kept)
    assert kept is not None  # noqa: S101 required above
    return kept


def require_same(end: PlaceEnd, kept: Checkpoint | None) -> None:
    """Raises PlaceDiffers unless `kept` is the checkpoint with which the place ends."""
    if kept is None or kept.number != end.number:
        raise PlaceDiffers(f"the database has lost checkpoint {end.number}, which was copied outside")
    if checkpoint_hash(kept) != end.hash:
        raise PlaceDiffers(f"the database has another checkpoint {end.number} than the one that was copied outside")


def _why_refused(row: Row, last: Checkpoint, key: Ed25519PublicKey) -> str | None:
    if row.checkpoint is None:
        return "it has not the shape of a checkpoint"
    if not is_signed_by(key, row.checkpoint):
        return "the signing key has not signed it"
    if row.checkpoint.prev_hash != checkpoint_hash(last):
        # With our signature: one between them was erased.
        raise PlaceDiffers(f"the database has lost what comes between checkpoints {last.number} and {row.number}")
    return None


async def _follow_whole(place: CheckpointPlace | None, key: Ed25519PublicKey, *, begins_evidence: bool) -> Series:
    """From the newest one with the key's signature back to the first: a copy that is begun has all of them."""
    rows: list[Row] = []
    while found := await checkpoint_repository.find_unverified(
        after_id=rows[-1].id if rows else 0, limit=_ROWS_AT_ONCE
    ):
        rows += found
    by_hash = {checkpoint_hash(row.checkpoint): row.checkpoint for row in rows if row.checkpoint is not None}
    one = next((one for one in reversed(by_hash.values()) if is_signed_by(key, one)), None)
    series: list[Checkpoint] = []
    while one is not None:
        series.append(one)
        before = by_hash.get(one.prev_hash)
        if before is None and one.prev_hash != NO_CHECKPOINT_HASH:
            raise PlaceDiffers(f"the database has lost the checkpoint before {one.number}")
        one = before
    series.reverse()
    # One alone is no question: a crash, or another machine, came between the first checkpoint and its copy.
    if place is not None and len(series) > 1 and not begins_evidence:
        raise EvidenceMissing(f"the copy is empty, and the database has {len(series)} checkpoints")
    if place is not None and series:
        await place.append(series)
    numbers = {one.number for one in series}
    refused = [(row, "the signing key has not signed it") for row in rows if row.number not in numbers]
    return await _refuse(series[-1] if series else None, refused)


async def _refuse(last: Checkpoint | None, refused: list[tuple[Row, str]]) -> Series:
    reasons = {row.number: reason for row, reason in refused if row.number is not None}
    unknown = await checkpoint_repository.insert_refused(reasons, utc_now())
    new = [(row, reason) for row, reason in refused if row.number is None or row.number in unknown]
    for row, reason in new[:_NAMED_AT_ONCE]:
        log.error("checkpoint.refused", number=str(row.id), reason=reason)
    return Series(last, frozenset(reasons))
