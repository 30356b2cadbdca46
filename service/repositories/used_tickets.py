"""Queries on `used_tickets`."""

from datetime import datetime

from pymongo.errors import DuplicateKeyError

from service.documents import UsedTicket


async def insert_once(ticket_hash: str, expires_at: datetime) -> bool:
    """False where it was there already: of two who come with one ticket, one gets in."""
    try:
        await UsedTicket.get_pymongo_collection().insert_one({"_id": ticket_hash, "expires_at": expires_at})
    except DuplicateKeyError:
        return False
    return True
