"""Rows of which some may be there already: an attempt before this one has inserted them, or somebody else."""

from collections.abc import Sequence
from typing import Any

from beanie import Document
from pymongo.errors import BulkWriteError, WTimeoutError

_DUPLICATE_KEY = 11000


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
