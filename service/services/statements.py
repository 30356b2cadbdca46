"""Statements: fixing what belongs to one, and reading it whole or bit by bit."""

from collections.abc import AsyncIterator
from datetime import datetime

from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.statements import Movement, Statement, Tally
from service.errors import FieldError, InvalidFields, StatementTooLong, TotalOverflow
from service.repositories import transaction_logs as log_repository
from service.services.wallets import get_wallet

# About 400 KiB of JSON, made in one go.
JSON_MOVEMENTS_LIMIT = 1000


async def open_statement(wallet_id: str, user_id: str, created_from: datetime, created_to: datetime) -> Statement:
    """Opens a wallet's statement from `created_from` on and before `created_to`.

    Raises NotFound where there is no such wallet or it is somebody else's, and InvalidFields for an empty period.
    """
    if created_from >= created_to:
        raise InvalidFields(fields=(FieldError("/query/to", "not_after_from", "Send a time after `from`"),))
    wallet = await get_wallet(wallet_id, user_id)
    # The end first: what is added between the two questions lies behind both, or opening and closing are the same.
    closing = await log_repository.find_point_before(wallet_id, created_to)
    opening = await log_repository.find_point_before(wallet_id, created_from)
    return Statement(wallet_id, wallet.currency, created_from, created_to, min(opening, closing), closing)


class StatementReading:
    """A statement that is being read. `tally` has added up what has been read so far.

    Holds a cursor of the database: whoever made it closes it.
    """

    def __init__(self, statement: Statement) -> None:
        self.tally = Tally(statement)
        self._entries = log_repository.EntryStream(
            statement.wallet_id, after_seq=statement.opening.seq, last_seq=statement.closing.seq
        )

    async def batches(self) -> AsyncIterator[list[Movement]]:
        """Yields all movements, oldest first, some at a time. Raises BrokenChain rather than end on a wrong sum."""
        async for entries in self._entries.batches():
            yield [self.tally.take(entry) for entry in entries]
        self.tally.finish()

    async def close(self) -> None:
        await self._entries.close()


async def read_whole(statement: Statement) -> tuple[Tally, list[Movement]]:
    """Raises StatementTooLong, and TotalOverflow where a sum is beyond what JSON carries exactly."""
    if statement.movements > JSON_MOVEMENTS_LIMIT:
        raise StatementTooLong(movements=statement.movements, limit=JSON_MOVEMENTS_LIMIT)
    reading = StatementReading(statement)
    try:
        movements = [movement async for batch in reading.batches() for movement in batch]
    finally:
        await reading.close()
    tally = reading.tally
    if max(tally.total_in, tally.total_out) > MAX_AMOUNT_MINOR:
        raise TotalOverflow
    return tally, movements
