"""Reading one record that somebody has named, of any kind; what is somebody else's is not there."""

from typing import TypeVar

from service.domain.records import Record
from service.errors import NotFound
from service.repositories import records as record_repository

Kind = TypeVar("Kind", bound=Record)


async def get_record(record_id: str, kind: type[Kind]) -> Kind:
    """Whoever's it is: for those who may see all, or where the ledger decides about it. Raises NotFound."""
    return _there(await record_repository.find(record_id, kind), record_id, kind)


async def get_owned(record_id: str, kind: type[Kind], user_id: str) -> Kind:
    """Raises NotFound."""
    return _there(await record_repository.find_owned(record_id, kind, user_id), record_id, kind)


async def get_shared(record_id: str, kind: type[Kind], user_id: str) -> Kind:
    """One of whose two sides the user is. Raises NotFound."""
    return _there(await record_repository.find_shared(record_id, kind, user_id), record_id, kind)


def _there(found: Kind | None, record_id: str, kind: type[Kind]) -> Kind:
    if found is None:
        raise NotFound(f"There is no {kind.__name__.lower()} {record_id}")
    return found
