"""Places outside the database that keep a copy of every checkpoint: a protocol, and an append-only file.

Whoever may change everything in MongoDB can erase a payment together with the checkpoint that seals it. The copy is
what then contradicts the database.
"""

import asyncio
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson
import structlog

from service.domain.checkpoints import Checkpoint, canonical_json, checkpoint_hash, checkpoint_view, hash_of_view
from service.settings import Settings

log = structlog.get_logger()

# Nothing in it is secret, and auditors should be able to read it; its folder may hold secrets.
_FILE_MODE = 0o644
_FOLDER_MODE = 0o700
# A line has some 500 bytes; what a crash left of one is shorter.
_TAIL_BYTES = 64 * 1024


class PlaceEnd(NamedTuple):
    """The last checkpoint in a place."""

    number: int
    hash: str


class PlaceDiffers(Exception):
    """The place keeps a checkpoint that the database does not have, or another one under the same number.

    Either somebody changed the database, or it was restored from a backup. A person has to find out which.
    """


class CheckpointPlace(Protocol):
    """Appending the same checkpoint again changes nothing."""

    async def read_end(self) -> PlaceEnd | None:
        """Returns the last checkpoint of the place; None where it is empty. Raises PlaceDiffers, OSError."""
        ...

    async def append(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Appends those that the place does not have yet, and returns once they are on disk.

        Raises PlaceDiffers where they do not continue what is there, and OSError.
        """
        ...


class CheckpointFile:
    """One line of canonical JSON for each checkpoint, exactly as it is published.

    Several workers may share the file: a lock lets one of them append at a time. The file is only ever appended to, so
    that it works with `chattr +a` too. A crash can leave the beginning of a line at the end; the next append ends that
    line and writes the checkpoint anew.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = Path(settings.checkpoint_path)

    async def read_end(self) -> PlaceEnd | None:
        return await asyncio.to_thread(self._read_end)

    async def append(self, checkpoints: Sequence[Checkpoint]) -> None:
        await asyncio.to_thread(self._append, checkpoints)

    def _read_end(self) -> PlaceEnd | None:
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return _end_of(file, self._path)
        finally:
            os.close(file)

    def _append(self, checkpoints: Sequence[Checkpoint]) -> None:
        is_new = not self._path.exists()
        self._path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._end_torn_line(file)
            lines = _lines_after(_end_of(file, self._path), checkpoints, self._path)
            _write(file, b"".join(lines))
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            _sync_folder(self._path.parent)

    def _end_torn_line(self, file: int) -> None:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            log.warning("checkpoint.torn_line_ended", path=str(self._path))
            _write(file, b"\n")


def _lines_after(end: PlaceEnd | None, checkpoints: Sequence[Checkpoint], path: Path) -> list[bytes]:
    """Renders the checkpoints that follow the end. Those before it are in the file already."""
    lines: list[bytes] = []
    for checkpoint in checkpoints:
        if end is None or checkpoint.number > end.number:
            # A number is left out where a checkpoint was refused; the link shows that none is missing.
            if end is not None and checkpoint.prev_hash != end.hash:
                raise PlaceDiffers(f"checkpoint {checkpoint.number} does not follow checkpoint {end.number} of {path}")
            lines.append(canonical_json(checkpoint_view(checkpoint)) + b"\n")
            end = PlaceEnd(checkpoint.number, checkpoint_hash(checkpoint))
        elif checkpoint.number == end.number and checkpoint_hash(checkpoint) != end.hash:
            raise PlaceDiffers(f"{path} has another checkpoint {checkpoint.number}")
    return lines


def _end_of(file: int, path: Path) -> PlaceEnd | None:
    """Reads the last whole line. The beginning of a line that a crash left behind is no checkpoint."""
    size = os.fstat(file).st_size
    start = max(0, size - _TAIL_BYTES)
    lines = os.pread(file, size - start, start).split(b"\n")
    if start:
        # Most likely not a whole line.
        del lines[0]
    for line in reversed(lines):
        try:
            view = orjson.loads(line)
            return PlaceEnd(view["number"], hash_of_view(view))
        except (ValueError, KeyError, TypeError):
            continue
    if size:
        raise PlaceDiffers(f"{path} has no checkpoint in its last {size - start} bytes")
    return None


def _write(file: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.write(file, content[written:])


def _sync_folder(folder: Path) -> None:
    """Makes the file's name survive a power cut, not only its content."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
