"""Inserts of many rows: in slices, and of rows of which some may be there already."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from beanie import Document
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, WTimeoutError

_DUPLICATE_KEY = 11000
# So many rows, with all that they may carry, are made and encoded in 3 to 5 ms, in one turn of the event loop. A batch
# of the ledger rarely has as many commands, so that it still inserts each kind at once.
SLICE: Final = 128

_Row = TypeVar("_Row")


async def insert_in_slices(
    collection: AsyncCollection[dict[str, Any]],
    rows: Sequence[_Row],
    encode: Callable[[_Row], dict[str, Any]],
    *,
    session: AsyncClientSession | None,
) -> None:
    """Raises what insert_many raises; in a transaction nothing of the slices before it stays then."""
    for start in range(0, len(rows), SLICE):
        await collection.insert_many([encode(row) for row in rows[start : start + SLICE]], session=session)


async def insert_missing(document: type[Document], rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Tells which of them were new. Those that were there stay as they are, and stand in no other's way.

    Raises WTimeoutError where no majority has confirmed it: that a row is there does not say that it stays.
    """
    try:
        await document.get_pymongo_collection().insert_many(rows, ordered=False)
    except BulkWriteError as error:
        refused = error.details["writeErrors"]
        if any(one["code"] != _DUPLICATE_KEY for one in refused):
            raise
        if unconfirmed := error.details["writeConcernErrors"]:
            raise WTimeoutError(unconfirmed[-1]["errmsg"], unconfirmed[-1]["code"], unconfirmed[-1]) from error
        known = {one["index"] for one in refused}
        return [position not in known for position in range(len(rows))]
    return [True] * len(rows)
