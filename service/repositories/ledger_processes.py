"""Queries on `ledger_processes`, and the command that ends a dead one's transactions. Times are the server's."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from bson.binary import Binary, UuidRepresentation
from bson.int64 import Int64
from pymongo.asynchronous.collection import AsyncCollection

from service.database import Client
from service.documents import LedgerProcessDocument
from service.domain.ledger_processes import LedgerProcess
from service.repositories.records import from_row


def _collection() -> AsyncCollection[dict[str, Any]]:
    return LedgerProcessDocument.get_pymongo_collection()


async def beat(process_id: str, host: str, pid: int, pid_space: str | None, session_ids: Sequence[bytes]) -> None:
    """In place of what it told before. A process that was taken for dead is there again."""
    told = {"host": host, "pid": Int64(pid), "pid_space": pid_space, "session_ids": list(session_ids)}
    literal = {name: {"$literal": value} for name, value in told.items()}
    await _collection().update_one({"_id": process_id}, [{"$set": literal | {"seen_at": "$$NOW"}}], upsert=True)


class Others(NamedTuple):
    """All ledgers but one: each with for how many seconds it has been silent, and the rows that cannot be read."""

    silent_s: list[tuple[LedgerProcess, float]]
    unreadable: dict[str, str]


async def find_others(process_id: str) -> Others:
    """A row that cannot be read, as another release may write it, keeps nobody from the rest."""
    silent_ms = {"$subtract": ["$$NOW", "$seen_at"]}
    found = await _collection().aggregate(
        [{"$match": {"_id": {"$ne": process_id}}}, {"$addFields": {"silent_ms": silent_ms}}]
    )
    others = Others([], {})
    for row in await found.to_list():
        try:
            others.silent_s.append((_read(row), row["silent_ms"] / 1000))
        except (TypeError, ValueError, KeyError) as error:
            others.unreadable[str(row["_id"])] = repr(error)
    return others


def _read(row: Mapping[str, Any]) -> LedgerProcess:
    """Raises TypeError, ValueError or KeyError for a row that is not as this release writes it."""
    process: LedgerProcess = from_row(LedgerProcess, dict(row))
    for session_id in process.session_ids:
        UUID(bytes=bytes(session_id))
    return process._replace(pid=int(process.pid))


async def touch() -> None:
    """Reads something small: for who wants to know whether the server answers."""
    await _collection().find_one({}, {"_id": 1})


async def remove(process_id: str) -> None:
    await _collection().delete_one({"_id": process_id})


async def end_transactions(client: Client, session_ids: Sequence[bytes]) -> None:
    """Aborts what these sessions have open; what is committed stays. A user may do it to sessions of its own."""
    sessions = [{"id": Binary.from_uuid(UUID(bytes=one), UuidRepresentation.STANDARD)} for one in session_ids]
    await client.admin.command({"killSessions": sessions})
