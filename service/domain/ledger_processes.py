"""Processes that commit transactions, and what ends theirs when they die."""

from datetime import datetime
from typing import NamedTuple


class LedgerProcess(NamedTuple):
    """`session_ids` are those of its transactions at MongoDB; `seen_at` is its last heartbeat, by the server's clock.

    `pid_space` is where `pid` means that process: one boot of one machine, and one container on it; None where that
    cannot be told.
    """

    id: str
    host: str
    pid: int
    pid_space: str | None
    session_ids: tuple[bytes, ...]
    seen_at: datetime
