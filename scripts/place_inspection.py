"""Inspects the ledger, and compares its checkpoints with the copy outside the database."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from scripts.ledger_inspection import Inspection
from scripts.place_rules import Place

# A worker copies a checkpoint at once, and what a crash left out within ten seconds, once it runs.
_LATE: Final = timedelta(minutes=10)


async def inspect_with_copy(
    path: Path, key: Ed25519PublicKey | None, inspecting: Callable[[], Awaitable[Inspection]]
) -> Inspection:
    """Reads the file before it inspects: what is in the file was in the database first. A missing file is empty.

    Raises OSError where the file cannot be read, and whatever `inspecting` raises.
    """
    place = Place(str(path), await asyncio.to_thread(_read, path), key)
    inspection = await inspecting()
    assert inspection.series is not None  # noqa: S101 an inspection has looked at the checkpoints
    assert inspection.looked_at is not None  # noqa: S101 the same
    inspection.breaches += place.check_lines()
    due_at = inspection.looked_at - _LATE
    inspection.breaches += place.compare(inspection.series.hashes, inspection.series.times, due_at)
    return inspection


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
